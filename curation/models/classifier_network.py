"""Sequence classifiers of transformers as networks: opened whole or not at all, and how rows of tokens are padded.

What the texts and the labels are is not known here.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from curation.models.adapters import refuse_adapter
from curation.models.attention import honour_soft_cap
from curation.models.identity import ModelRef
from curation.models.quiet import no_progress_bar
from curation.models.weights import require_all_weights, require_no_other_weights

__all__ = ["Padding", "open_network", "reads_last_token", "says_how_many_labels"]

_OTHER_KINDS: Final = (
    "ForTokenClassification",
    "ForProcessRewardModel",
    "ForQuestionAnswering",
    "ForMultipleChoice",
)
"""Architectures whose heads bear the same names, and so would fit."""


def open_network(ref: ModelRef, *, dtype: str = "float32", device: str) -> Any:
    """A network in evaluation mode, from safetensors, without the repository's own code.

    Args:
        device: ``meta`` for the structure alone: the files are looked through, and not read.

    Raises:
        InputError: when the model is an adapter.
        One of ``weights.LOADING_ERRORS``: when it cannot be loaded, when its files do not hold all of it or hold
            more, or when they are those of a model of another kind.
    """
    import torch

    refuse_adapter(ref)
    options: dict[str, Any] = {"revision": ref.commit, "trust_remote_code": False}
    if ref.kind != "hub":
        options["local_files_only"] = True
    if device == "meta":
        options["device_map"] = "meta"
    network, loading = _loaded(ref, dtype=getattr(torch, dtype), use_safetensors=True, **options)
    named = tuple(network.config.architectures or ())
    try:
        require_all_weights(network, loading)
    except ValueError as error:
        if not any(name.endswith("ForCausalLM") for name in named):
            raise
        raise ValueError(f"{error}; a {named[0]} that judges in words is asked as a judge") from error
    for name in named:
        if name.endswith(_OTHER_KINDS):
            raise ValueError(
                f"its files are those of a {name}, which gives no score to an answer: a process reward model "
                f"judges each token or step"
            )
    require_no_other_weights(network, loading)
    return honour_soft_cap(network).to(device).eval()


def _loaded(ref: ModelRef, **options: Any) -> tuple[Any, Any]:
    """A network and what was said of its loading.

    A config that does not count its labels has two for transformers; OpenRLHF's reward models have one.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForSequenceClassification

    build = AutoModelForSequenceClassification.from_pretrained
    with no_progress_bar():
        try:
            found: tuple[Any, Any] | None = build(ref.location, output_loading_info=True, **options)
        except SafetensorError as error:
            raise ValueError(f"its weights are damaged: {error}") from error
        except RuntimeError as error:
            if "ignore_mismatched_sizes" not in str(error):
                raise ValueError(str(error)) from error
            found = None
            if not says_how_many_labels(ref):
                with suppress(RuntimeError):
                    found = build(ref.location, output_loading_info=True, num_labels=1, **options)
            if found is None:
                raise ValueError(
                    "its weights are of another shape than its config says: check how many labels config.json has"
                ) from error
    assert found is not None
    return found


def says_how_many_labels(ref: ModelRef) -> bool:
    """Whether a model's config names its labels, or counts them."""
    from transformers import PreTrainedConfig

    local = ref.kind != "hub"
    given, _ = PreTrainedConfig.get_config_dict(ref.location, revision=ref.commit, local_files_only=local)
    return "id2label" in given or "num_labels" in given


def reads_last_token(network: Any) -> bool:
    """Whether it is a language model with a head at the last token, which never reads two texts as a pair."""
    return hasattr(network, "score")


class Padding:
    """Rows of tokens, padded on the right so that each one's score is that of the row alone.

    A causal classifier reads its score at the last token that is not the padding of its *config*. The tokenizer's
    own padding is often another token, or is the one that ends every turn.

    Attributes:
        token: the config's padding; None where it has none, or one that is no token (-1).
    """

    def __init__(self, network: Any) -> None:
        self._config = network.config.get_text_config()
        given = getattr(self._config, "pad_token_id", None)
        self.token: int | None = given if given in range(network.get_input_embeddings().num_embeddings) else None

    def batch(
        self, rows: Sequence[Sequence[int]], types: Sequence[Sequence[int]] | None = None, *, device: Any
    ) -> dict[str, Any]:
        """What the network is called with.

        Args:
            rows: token ids, at least one a row.
            types: which of two texts each token belongs to, for a network that is told.
        """
        import torch

        width = max(len(row) for row in rows)
        pad = self.token
        if pad is None:
            ends = {row[-1] for row in rows}
            pad = next(token for token in range(len(rows) + 1) if token not in ends)
            self._config.pad_token_id = pad
        columns = {
            "input_ids": [[*row, *[pad] * (width - len(row))] for row in rows],
            "attention_mask": [[1] * len(row) + [0] * (width - len(row)) for row in rows],
        }
        if types is not None:
            columns["token_type_ids"] = [[*row, *[0] * (width - len(row))] for row in types]
        return {name: torch.tensor(values, device=device) for name, values in columns.items()}
