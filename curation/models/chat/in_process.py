"""Chat through transformers, in this process: the sampler of ``curation.models.generator`` behind the protocol."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Final

from curation.errors import InputError
from curation.models.chat.protocol import ChatAnswer, ChatOptions, ChatReply, ChatRequest
from curation.models.generator import TransformersGenerator, generator_fingerprint, open_generator
from curation.models.protocols import Fault

__all__ = ["TransformersChat", "open_transformers_chat", "transformers_fingerprint"]

_REQUESTS_AT_ONCE: Final = 64


def transformers_fingerprint(model: str, options: ChatOptions) -> str:
    """See ``generator_fingerprint``.

    Raises:
        InputError: for an option that this backend does not have.
    """
    return generator_fingerprint(model, **_sampling(options))


def open_transformers_chat(
    model: str, options: ChatOptions, *, requests_at_once: int = _REQUESTS_AT_ONCE
) -> TransformersChat:
    """Load a model; see ``open_generator`` for what is raised."""
    return TransformersChat(open_generator(model, **_sampling(options)), requests_at_once=requests_at_once)


class TransformersChat:
    """See ``curation.models.chat.protocol.ChatModel``. The same request always gets the same answer."""

    def __init__(self, generator: TransformersGenerator, *, requests_at_once: int = _REQUESTS_AT_ONCE) -> None:
        self.fingerprint = generator.fingerprint
        self._generator = generator
        self._at_once = requests_at_once

    def chat(self, requests: Iterable[ChatRequest]) -> Iterator[ChatReply]:
        """One reply for each request, a batch at a time."""
        waiting = iter(requests)
        while batch := list(islice(waiting, self._at_once)):
            made = self._generator.generate([r.messages for r in batch], [r.sample_index for r in batch])
            for request, answer in zip(batch, made, strict=True):
                yield ChatReply(request.key, answer if isinstance(answer, Fault) else ChatAnswer(*answer))


def _sampling(options: ChatOptions) -> dict[str, Any]:
    """What the sampler knows; the rest is refused, for an option that is passed over would be a silent lie."""
    for name, given in (
        ("json_schema", options.json_schema is not None),
        ("top_logprobs", options.top_logprobs > 0),
        ("lora", options.lora is not None),
    ):
        if given:
            raise InputError(f"backend transformers has no {name}: use vllm or a server")
    return {
        "max_new_tokens": options.max_new_tokens,
        "temperature": options.temperature,
        "top_p": options.top_p,
        "seed": options.seed,
        "system_prompt": options.system_prompt,
        "template_options": options.template_options,
    }
