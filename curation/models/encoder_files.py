"""What an encoder's files say of it before anything is loaded: its kind, its prompts, its similarity.

sentence-transformers makes an encoder of nearly anything, with a word in the log: a sparse or a multi-vector model
becomes one by taking the mean of states that were never trained for it. Such models are refused here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from curation.errors import InputError
from curation.models.identity import EMBEDDED, ModelRef, model_file, resolve_model

__all__ = ["EncoderFiles", "RetrievalPrompts", "encoder_files", "has_half_width", "retrieval_prompts"]

_SETTINGS: Final = "config_sentence_transformers.json"
_ENCODER: Final = "SentenceTransformer"
_KINDS: Final = {
    "SparseEncoder": "a sparse encoder (SPLADE): its vectors are weights of words",
    "MultiVectorEncoder": "a multi-vector encoder (ColBERT): it has one vector for each token",
    "CrossEncoder": "a cross-encoder, which reads two texts together: it can be negatives.rescorer",
}
_HEADS: Final = ("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering")
"""Architectures that read a text for another purpose; of a language model (ForCausalLM) an encoder can be made."""
_HALF: Final = ("bfloat16", "float16")


class EncoderFiles(NamedTuple):
    """What is known of an encoder without its weights."""

    prompts: Mapping[str, str]
    """By name, what its authors put before a text."""
    default_prompt: str
    """Put before each text by default; mostly nothing."""
    similarity: str
    """``cosine``, ``dot``, …: what it was trained for."""
    has_modules: bool
    """Whether its files say how a text's vector is made; without, sentence-transformers decides."""
    half_width: bool
    """Whether its weights are in half the width (bfloat16, float16)."""


def encoder_files(ref: ModelRef) -> EncoderFiles:
    """Read the small files of an encoder.

    Raises:
        InputError: when it is a model of another kind.
    """
    modules, settings = _read(ref, "modules.json"), _read(ref, _SETTINGS) or {}
    kind = settings.get("model_type") or _ENCODER
    config = _read(ref, "config.json") or {}
    architectures = config.get("architectures") or []
    if modules is None and kind == _ENCODER and any(str(a).endswith(_HEADS) for a in architectures):
        kind = f"a {architectures[0]}, which gives labels or scores and no vectors"
    elif _has_router(modules):
        kind = "a router with one network for queries and another for documents"
    if kind != _ENCODER:
        raise InputError(
            f"encoder {ref.given!r} is {_KINDS.get(kind, kind)}; expected a model with one vector for each text"
        )
    prompts = {str(k): str(v) for k, v in (settings.get("prompts") or {}).items() if v is not None}
    default = prompts.get(settings.get("default_prompt_name") or "", "")
    if modules and not config:  # an older layout: the network in a folder of its own
        config = _read(ref, f"{modules[0].get('path')}/config.json") or {}
    half = (config.get("dtype") or config.get("torch_dtype")) in _HALF
    return EncoderFiles(prompts, default, settings.get("similarity_fn_name") or "cosine", modules is not None, half)


def has_half_width(model: str = EMBEDDED) -> bool:
    """Whether an encoder's weights are in half the width.

    Raises:
        InputError: when ``model`` is no encoder.
    """
    return _files_of(model).half_width


def _files_of(model: str) -> EncoderFiles:
    if model == EMBEDDED:
        return EncoderFiles({}, "", "cosine", has_modules=True, half_width=False)
    return encoder_files(resolve_model(model, embedded="encoder"))


class RetrievalPrompts(NamedTuple):
    """What is put before the texts of a search; None for what the model puts before any text, mostly nothing."""

    query: str | None
    document: str | None


def retrieval_prompts(
    model: str = EMBEDDED, *, query: str | None = None, document: str | None = None
) -> RetrievalPrompts:
    """The words that an encoder was trained to read before a query, and before a document.

    As in sentence-transformers' ``encode_query`` and ``encode_document``, they are the model's own prompts
    ``query``, and ``document``, ``passage`` or ``corpus``, where its files have them.

    Args:
        query, document: instead of those: the name of another prompt of the model, or a text; empty for nothing.

    Raises:
        InputError: when ``model`` is no encoder, or has no prompt of a name.
    """
    files = _files_of(model)
    return RetrievalPrompts(
        _prompt(model, files, query, ("query",)), _prompt(model, files, document, ("document", "passage", "corpus"))
    )


def _prompt(model: str, files: EncoderFiles, given: str | None, names: tuple[str, ...]) -> str | None:
    if given is not None and re.fullmatch(r"[\w-]+", given) and given not in files.prompts:
        has = f"it has {', '.join(sorted(files.prompts))}" if files.prompts else "it has none"
        raise InputError(
            f"encoder {model!r} has no prompt {given!r} ({has}); to put a text before others, end it in a space "
            f"or a colon"
        )
    if given is not None:
        found = files.prompts.get(given, given)
    else:
        found = next((files.prompts[name] for name in names if name in files.prompts), files.default_prompt)
    return None if found == files.default_prompt else found


def _has_router(modules: Any) -> bool:
    return any(str(m.get("type", "")).endswith((".Router", ".Asym")) for m in modules or ())


def _read(ref: ModelRef, name: str) -> Any:
    """A JSON file of a model; None where it has none."""
    path = model_file(ref, name)
    if path is None:
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"encoder {ref.given!r}: its {name} is no JSON: {error}") from None
