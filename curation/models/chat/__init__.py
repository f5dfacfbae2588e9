"""Chat models: in this process or behind a server, all behind one protocol (``protocol.py``).

    options = ChatOptions(max_new_tokens=64, temperature=0.8)
    model = open_chat("http://localhost:8000/v1#policy", options)
    for reply in model.chat(ChatRequest(str(i), messages) for i, messages in enumerate(prompts)):
        ...

``chat_fingerprint(model, options)`` names the same thing without loading it. The choice of the adapter is in
``opening.py``.
"""

from curation.models.chat.opening import (
    BACKENDS,
    Connection,
    EngineOptions,
    backend_of,
    chat_fingerprint,
    is_address,
    open_chat,
)
from curation.models.chat.protocol import (
    ChatAnswer,
    ChatModel,
    ChatOptions,
    ChatReply,
    ChatRequest,
    TokenProbabilities,
)

__all__ = [
    "BACKENDS",
    "ChatAnswer",
    "ChatModel",
    "ChatOptions",
    "ChatReply",
    "ChatRequest",
    "Connection",
    "EngineOptions",
    "TokenProbabilities",
    "backend_of",
    "chat_fingerprint",
    "is_address",
    "open_chat",
]
