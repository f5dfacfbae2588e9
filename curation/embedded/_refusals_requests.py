"""What the bundled request model learns from, and how. Its network is read in curation/refusals/requests.py."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from curation.embedded._refusals_data import chatgpt_parts
from curation.embedded._refusals_encoder import FROZEN_LAYERS, SMOOTHING, fitted
from curation.models.refusal_encoder import RefusalEncoder
from curation.refusals.requests import CLASSES, REASONS, REQUEST_WEIGHTS
from curation.refusals.taxonomy import open_taxonomy

if TYPE_CHECKING:
    import torch

__all__ = [
    "COMPLIED",
    "WRITTEN",
    "Request",
    "fit_requests",
    "labelled_requests",
    "save_requests",
    "written_requests",
]

EXAMPLES: Final = Path(__file__).parent / "requests_examples.yaml"
WRITTEN: Final = "written"
COMPLIED: Final = "chatgpt_complied"
_REASON_WEIGHT: Final = 0.5
_EPOCHS: Final = 4
_NO_REASON: Final = -100


class Request(NamedTuple):
    """One labelled request."""

    text: str
    source: str
    refuse: int
    look_alike: int | None
    """None where nobody said, and only whether to refuse is known."""
    reason: str | None
    """One of ``REASONS``; None where it should be answered or nobody said."""


def labelled_requests(data: Path) -> list[Request]:
    """CoCoNot's evaluation sets and contrast preferences, XSTest's prompts, CatQA, self-instruct, our own, and
    what chatgpt_refusals complied with, but for its test part."""
    taxonomy = open_taxonomy("coconot")
    rows: list[Request] = []
    for line in _lines(data / "coconot/coconot_eval.jsonl"):
        row = json.loads(line)
        rows.append(Request(row["prompt"], "coconot_eval", 1, 0, taxonomy.name_of_label(row["category"])))
    for line in _lines(data / "coconot/coconot_contrast_eval.jsonl"):
        rows.append(Request(json.loads(line)["prompt"], "coconot_contrast", 0, 1, None))
    with (data / "xstest/xstest_prompts.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            unsafe = int(row["label"] == "unsafe")
            rows.append(Request(row["prompt"], "xstest", unsafe, 1 - unsafe, "safety" if unsafe else None))
    content = json.loads((data / "catqa/catqa_english.json").read_text(encoding="utf-8"))
    for parts in content.values():
        for questions in parts.values():
            rows += [Request(text, "catqa", 1, 0, "safety") for text in questions]
    for name in ("seed_tasks", "user_oriented_instructions"):
        for line in _lines(data / f"self_instruct/{name}.jsonl"):
            rows.append(Request(json.loads(line)["instruction"], "self_instruct", 0, 0, None))
    preferred = (json.loads(line)["prompt"] for line in _lines(data / "coconot/coconot_pref.jsonl"))
    rows += [Request(text, "coconot_pref", 0, 1, None) for text in dict.fromkeys(preferred)]
    train, validation, _ = chatgpt_parts(data)
    rows += [Request(answer.group, COMPLIED, 0, None, None) for answer in train + validation if not answer.refusal]
    return [row for row in rows if row.text.strip()] + written_requests()


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").split("\n") if line]


def written_requests() -> list[Request]:
    """Our own: look-alikes and what they look like, ordinary requests, and others to refuse."""
    import yaml

    content = yaml.safe_load(EXAMPLES.read_text(encoding="utf-8"))
    rows = []
    for answered, refused in (pair for pairs in content["pairs"].values() for pair in pairs):
        rows.append(Request(answered, WRITTEN, 0, 1, None))
        rows.append(Request(refused, WRITTEN, 1, 0, "safety"))
    rows += [Request(text, WRITTEN, 0, 0, None) for text in content["ordinary"]]
    return rows + [Request(text, WRITTEN, 1, 0, reason) for text, reason in content["refused"]]


def fit_requests(requests: Sequence[Request], rows: Sequence[int], *, seed: int = 0) -> RefusalEncoder:
    """A network with the logits of ``CLASSES``, then of ``REASONS``, fitted to the requests of these numbers."""
    import torch
    from torch.nn import functional

    chosen = [requests[row] for row in rows]
    classes = torch.tensor([0 if r.refuse else 1 if r.look_alike else 2 for r in chosen])
    answered = torch.tensor([r.look_alike is None for r in chosen])
    reasons = torch.tensor([_NO_REASON if r.reason is None else REASONS.index(r.reason) for r in chosen])

    def loss(found: torch.Tensor, some: Sequence[int]) -> torch.Tensor:
        here = list(some)
        shares = functional.log_softmax(found[:, : len(CLASSES)], dim=1)
        apart = functional.cross_entropy(shares, classes[here], label_smoothing=SMOOTHING, reduction="none")
        either = -torch.logsumexp(shares[:, 1:], dim=1)  # a look-alike or an ordinary request
        value = torch.where(answered[here], either, apart).mean()
        told = reasons[here] != _NO_REASON
        if not told.any():
            return value
        why = found[told][:, len(CLASSES) :]
        return value + _REASON_WEIGHT * functional.cross_entropy(
            why, reasons[here][told], label_smoothing=SMOOTHING
        )

    outputs = len(CLASSES) + len(REASONS)
    return fitted([r.text for r in chosen], loss, outputs=outputs, epochs=_EPOCHS, seed=seed)


def save_requests(encoder: RefusalEncoder, folder: Path) -> None:
    """Write the layers that were fitted, and the head, in half precision."""
    import torch
    from safetensors.torch import save_file

    left = tuple(f"encoder.layer.{layer}." for layer in range(FROZEN_LAYERS))
    kept = {name: value for name, value in sorted(encoder.weights.items()) if not name.startswith(left)}
    half = {name: value.detach().to(torch.float16).contiguous() for name, value in kept.items()}
    save_file(half, folder / REQUEST_WEIGHTS)
