"""Opens a refusal detector: the bundled one, any sequence classifier, or an LLM judge. No thresholds on data.

What a judge is asked is in ``curation/models/refusal_judge.py``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from curation.errors import InputError, ModelError
from curation.models.chat.asking import VERDICT, Asking
from curation.models.classifiers import SequenceClassifier, open_classifier
from curation.models.encoder import MINILM_SHA256
from curation.models.identity import ModelRef, resolve_model
from curation.models.protocols import RefusalDetector, RefusalScores
from curation.refusals.dressing import spoken
from curation.refusals.notices import is_empty_or_filtered
from curation.text import canonical_json

if TYPE_CHECKING:
    from curation.models.chat import ChatOptions
    from curation.models.refusal_judge import RefusalJudge
    from curation.refusals.cascade import Cascade

__all__ = [
    "ClassifierDetector",
    "judge_fingerprint",
    "open_refusal_detector",
    "open_refusal_judge",
    "refusal_fingerprint",
]

_BUNDLED_WEIGHTS: Final = "lexical.safetensors"
_REFUSING_LABEL: Final = re.compile(r"refus|reject|declin", re.IGNORECASE)
_NEGATED_LABEL: Final = re.compile(
    r"(?<![a-z])(?:non|not|no|never|without|un)[^a-z]*(?:any?[^a-z]+)?(?:refus|reject|declin)", re.IGNORECASE
)
_CODE_VERSION: Final = 13  # raised when the reading of answers changes
_NOT_AN_ANSWER: Final = 0.999
_NO_ANSWER_YET: Final = 0.4
_CLASSIFIER_VERSION: Final = 4  # raised when the reading of a classifier's labels or answers changes


def refusal_fingerprint(
    model: str = "embedded", *, refusal_labels: Sequence[str] = (), max_length: int = 512
) -> str:
    """What a detector's numbers depend on.

    Raises:
        InputError: when ``model`` names nothing.
    """
    ref = resolve_model(model, embedded="refusals")
    if _is_bundled(ref):
        return f"{ref.fingerprint}+minilm@{MINILM_SHA256[:12]}/v{_CODE_VERSION}"
    return f"{ref.fingerprint}/{canonical_json([sorted(refusal_labels), max_length])}/v{_CLASSIFIER_VERSION}"


def open_refusal_detector(
    model: str = "embedded",
    *,
    refusal_labels: Sequence[str] = (),
    max_length: int = 512,
    batch_size: int = 32,
    device: str | None = None,
) -> RefusalDetector:
    """Load a detector.

    Args:
        model: a folder, a Hub id, or ``embedded``.
        refusal_labels: which labels of a classifier mean a refusal; by default those whose name says so,
            and does not deny it (``Non-refusal``).
        max_length: tokens a classifier reads; longer answers keep both ends, and are reported as truncated.
        batch_size: answers in one forward pass of a classifier.
        device: ``cpu``, ``cuda``, …; None for the best one there is. The bundled detector uses the CPU.

    Raises:
        InputError: when ``model`` names nothing, or no label means a refusal.
        ModelError: when it cannot be loaded.
    """
    ref = resolve_model(model, embedded="refusals")
    if _is_bundled(ref):
        return _open_bundled(ref)
    fingerprint = refusal_fingerprint(model, refusal_labels=refusal_labels, max_length=max_length)
    return _open_classifier(
        ref,
        fingerprint,
        refusal_labels=refusal_labels,
        max_length=max_length,
        batch_size=batch_size,
        device=device,
    )


def judge_fingerprint(model: str, *, asking: Asking, backend: str = "auto", revision: str | None = None) -> str:
    """What a judge's verdicts depend on.

    Raises:
        InputError: when ``model`` is no chat model.
    """
    from curation.models.chat import chat_fingerprint
    from curation.models.refusal_judge import JUDGE_VERSION

    options = _judge_options(model, backend, asking)
    return f"judge{JUDGE_VERSION}:{chat_fingerprint(model, options, backend=backend, revision=revision)}"


def open_refusal_judge(
    model: str,
    *,
    asking: Asking = VERDICT,
    backend: str = "auto",
    revision: str | None = None,
    concurrency: int = 64,
    timeout: float = 600.0,
) -> RefusalJudge:
    """An LLM that judges answers.

    Args:
        model: a folder, a Hub id, or ``http://host:port/v1#name`` for a server.
        asking: how long and how hot a verdict may be, and with which key a server is asked.
        backend: ``auto``, ``server``, ``transformers`` or ``vllm``; see ``curation.models.chat.open_chat``.
        revision: the caller's own name for what a server serves.
        concurrency: requests that a server has at once.
        timeout: seconds for one reply.

    Raises:
        InputError: when ``model`` is no chat model.
        ModelError: when it cannot be loaded.
    """
    from curation.models.chat import Connection, open_chat
    from curation.models.refusal_judge import RefusalJudge

    connection = Connection(concurrency=concurrency, timeout=timeout, key_variable=asking.key_variable)
    options = _judge_options(model, backend, asking)
    return RefusalJudge(open_chat(model, options, backend=backend, revision=revision, connection=connection))


def _judge_options(model: str, backend: str, asking: Asking) -> ChatOptions:
    """Structured outputs and log-probabilities, but for transformers, which has neither."""
    from curation.models.chat import backend_of
    from curation.models.refusal_judge import judge_options

    return judge_options(asking, structured=backend_of(model, backend) != "transformers")


def _is_bundled(ref: ModelRef) -> bool:
    return ref.kind != "hub" and (ref.kind == "embedded" or (Path(ref.location) / _BUNDLED_WEIGHTS).is_file())


def _open_bundled(ref: ModelRef) -> Cascade:
    from curation.models.refusal_encoder import RefusalEncoder
    from curation.refusals.cascade import Cascade, load_config
    from curation.refusals.lexical_model import LexicalModel

    folder = Path(ref.location)
    return Cascade(
        fingerprint=refusal_fingerprint(ref.given),
        lexical=LexicalModel.load(folder),
        config=load_config(folder),
        encoder=lambda: RefusalEncoder.load(folder),
    )


def _open_classifier(
    ref: ModelRef,
    fingerprint: str,
    *,
    refusal_labels: Sequence[str],
    max_length: int,
    batch_size: int,
    device: str | None,
) -> ClassifierDetector:
    classifier = open_classifier(
        ref,
        what="refusal detector",
        or_else=", or a folder that make_refusals wrote",
        max_length=max_length,
        batch_size=batch_size,
        device=device,
    )
    labels = dict(enumerate(classifier.labels))
    refusing = _refusing(labels, refusal_labels, ref.given)
    return ClassifierDetector(classifier, refusing, fingerprint=fingerprint)


def _refusing(labels: dict[int, str], wanted: Sequence[str], model: str) -> list[int]:
    """The label numbers that mean a refusal; ``Non-refusal`` and its like do not."""
    missing = sorted(set(wanted) - set(labels.values()))
    found = [number for number, name in labels.items() if name in wanted]
    if not wanted:
        found = [
            n for n, name in labels.items() if _REFUSING_LABEL.search(name) and not _NEGATED_LABEL.search(name)
        ]
    if missing or not found:
        raise InputError(
            f"refusal detector {model!r} has the labels {', '.join(labels.values())}: "
            + (f"{missing[0]!r} is none of them" if missing else "none of them names a refusal")
            + "; set refusal_labels to those that do"
        )
    if len(found) == len(labels) > 1:
        raise InputError(
            f"refusal detector {model!r} has the labels {', '.join(labels.values())}, and all of them are taken "
            "for refusals, so every answer would be one; set refusal_labels to those that are"
        )
    return found


class ClassifierDetector:
    """A sequence classifier; see ``curation.models.protocols.RefusalDetector``.

    It knows nothing of partial refusals, so its classes are compliance and full refusal. A classifier with
    one output is read as the logit of a refusal. What is no answer at all (``curation.refusals.notices``) refuses,
    whatever the classifier makes of it; an answer that is reasoning without an end is never sure.
    """

    def __init__(self, classifier: SequenceClassifier, refusing: Sequence[int], *, fingerprint: str) -> None:
        self._classifier = classifier
        self._refusing = list(refusing)
        self.fingerprint = fingerprint

    def detect(self, prompts: Sequence[str | None], responses: Sequence[str]) -> RefusalScores:
        """Probability and class of n answers; prompts are not read, nor is reasoning before an answer."""
        responses, unfinished = spoken(responses)
        found = self._classifier.classify(responses)
        try:
            probability = found.probabilities()[:, self._refusing].sum(axis=1)
        except ModelError as error:
            raise ModelError(f"refusal detector {self.fingerprint}: {error}") from None
        blank = [is_empty_or_filtered(text) for text in responses]
        probability = np.where(blank, _NOT_AN_ANSWER, np.clip(probability, 0.0, 1.0))
        probability = np.where(unfinished, _NO_ANSWER_YET, probability)
        classes = ["full_refusal" if p >= 0.5 else "compliance" for p in probability]
        kinds = ["empty_or_filtered" if none else None for none in blank]
        return RefusalScores(probability, classes, kinds, found.truncated)
