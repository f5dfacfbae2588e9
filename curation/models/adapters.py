"""Whether a model's files are an adapter (LoRA), which is no model by itself. Nothing is loaded here."""

from __future__ import annotations

from curation.errors import InputError
from curation.models.identity import ModelRef, model_file

__all__ = ["refuse_adapter"]


def refuse_adapter(ref: ModelRef) -> None:
    """Refuse what holds an adapter: transformers would read the model under it, with or without the adapter.

    Which of the two depends on whether peft is installed, and no key of a result would say it.

    Raises:
        InputError: what to do with it.
    """
    if model_file(ref, "adapter_config.json") is not None:
        raise InputError(
            f"model {ref.given!r} holds an adapter (adapter_config.json), which is no model by itself: merge it "
            f"into its model (peft: merge_and_unload, then save_pretrained), without that file; "
            f"generation with backend vllm takes an adapter as lora"
        )
