"""Which adapter serves a MODEL. The adapters are in the modules beside this one; nothing heavy is imported here."""

from __future__ import annotations

from dataclasses import asdict
from typing import Final

from curation.errors import InputError
from curation.models.chat.connection import Connection, address_of, is_address
from curation.models.chat.counting import CountedChat, counter
from curation.models.chat.protocol import ChatModel, ChatOptions
from curation.models.chat.request_body import FIELDS
from curation.models.kept import keeper
from curation.models.sampling_limits import check_sampling
from curation.models.template_options import check_template_options
from curation.models.vllm_engine import EngineOptions
from curation.text import canonical_json, content_hash

__all__ = [
    "BACKENDS",
    "Connection",
    "EngineOptions",
    "backend_of",
    "chat_fingerprint",
    "is_address",
    "open_chat",
]

BACKENDS: Final = ("auto", "server", "transformers", "vllm")

_SERVER_VERSION: Final = 1
"""Raised when the same request would be sent in another form."""
_VLLM_VERSION: Final = 1


def chat_fingerprint(
    model: str, options: ChatOptions, *, backend: str = "auto", revision: str | None = None
) -> str:
    """What the answers depend on besides the messages: weights and revision, and every option.

    Args:
        model: ``http://host:port/v1#name`` (or https) for an OpenAI-compatible server; a folder, a Hub id or
            ``embedded`` for a model in this process.
        options: of the answers.
        backend: ``auto`` (the server for an address, else transformers), ``server``, ``transformers``, ``vllm``.
        revision: the caller's own name for what a server serves. With it the address is left out of the
            fingerprint, so that answers are found again when the same weights are served elsewhere.

    Raises:
        InputError: when ``model`` is none of these, or an option is out of its range or unknown to the backend.
    """
    _check(options)
    chosen = backend_of(model, backend)
    if options.extra_body and chosen != "server":
        raise InputError(f"backend {chosen} has no extra_body: only a server's requests have fields")
    for name in ("dtype", "quantization"):
        if chosen != "vllm" and getattr(options, name) is not None:
            raise InputError(f"backend {chosen} has no {name}: it is of vllm in this process")
    if chosen == "server":
        address = address_of(model)
        where = f"{address.name}@{revision or content_hash(address.url)[:8]}"
        return f"{where}/openai{_SERVER_VERSION}/{_options_hash(options)}".replace("'", "_")
    if chosen == "transformers":
        from curation.models.chat.in_process import transformers_fingerprint

        return transformers_fingerprint(model, options)
    from curation.models.identity import resolve_model

    name = resolve_model(model, embedded="policy").fingerprint
    lora = f"+{resolve_model(options.lora, embedded='policy').fingerprint}" if options.lora else ""
    return f"{name}{lora}/vllm{_VLLM_VERSION}/{_options_hash(options)}"


def open_chat(
    model: str,
    options: ChatOptions,
    *,
    backend: str = "auto",
    connection: Connection | None = None,
    engine: EngineOptions | None = None,
    revision: str | None = None,
    batch_rows: int = 64,
) -> ChatModel:
    """A chat model, ready to answer.

    Args:
        model, options, backend, revision: as for :func:`chat_fingerprint`.
        connection: how a server is called.
        engine: where vLLM in this process runs.
        batch_rows: answers that transformers makes at once.

    Raises:
        InputError: as :func:`chat_fingerprint`; when a key's variable was named and is not set; when a model
            has no chat template.
        MissingExtraError: when a package of the backend is not installed.
        ModelError: when a model cannot be loaded. A server is first called in ``chat``.
    """
    fingerprint = chat_fingerprint(model, options, backend=backend, revision=revision)
    chosen = backend_of(model, backend)
    if chosen == "server":
        from curation.models.chat.kept import KeptChat
        from curation.models.chat.server import ServerChat

        kept, counted, address = keeper(), counter(), address_of(model)
        server: ChatModel
        if counted is not None:
            server = CountedChat(address, options, counted, fingerprint=fingerprint)
        else:
            server = ServerChat(address, options, connection or Connection(), fingerprint=fingerprint)
        return server if kept is None else KeptChat(server, kept)
    if chosen == "transformers":
        from curation.models.chat.in_process import open_transformers_chat

        return open_transformers_chat(model, options, requests_at_once=batch_rows)
    from curation.models.chat.in_process_vllm import open_vllm_chat

    return open_vllm_chat(model, options, engine=engine or EngineOptions(), fingerprint=fingerprint)


def backend_of(model: str, backend: str = "auto") -> str:
    """``server``, ``transformers`` or ``vllm``.

    Raises:
        InputError: when there is no such backend, or it cannot have this model.
    """
    if backend not in BACKENDS:
        raise InputError(f"backend {backend!r} is not there: expected one of {', '.join(BACKENDS)}")
    if backend == "auto":
        return "server" if is_address(model) else "transformers"
    if (backend == "server") != is_address(model):
        wanted = (
            "an address such as http://host:port/v1#name" if backend == "server" else "a folder, Hub id or embedded"
        )
        raise InputError(f"backend {backend!r} needs {wanted} for its model")
    return backend


def _check(options: ChatOptions) -> None:
    check_sampling(max_new_tokens=options.max_new_tokens, temperature=options.temperature, top_p=options.top_p)
    if not 0 <= options.top_logprobs <= 20:
        raise InputError(f"top_logprobs is {options.top_logprobs}, expected 0 to 20")
    check_template_options(options.template_options)
    if options.template_options and "chat_template_kwargs" in (options.extra_body or ()):
        raise InputError(
            "extra_body has chat_template_kwargs, and template_options are the same: give one of the two"
        )
    ours = [name for name in options.extra_body or () if name in FIELDS]
    if ours:
        raise InputError(f"extra_body names {ours[0]!r}, which every request has already: give it as an option")
    try:
        canonical_json(options.extra_body)
    except (ValueError, TypeError) as error:
        raise InputError(f"extra_body holds what JSON has no form for: {error}") from None


def _options_hash(options: ChatOptions) -> str:
    """Options at rest (None, 0) are left out, so that an option added later changes no key of today."""
    given = {name: value for name, value in asdict(options).items() if value not in (None, 0)}
    given.pop("json_schema_optional", None)
    return content_hash(canonical_json(given))[:12]
