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
from curation.models.refusal_check import check_known
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
_PARTIAL_LABEL: Final = re.compile(r"partial|partly", re.IGNORECASE)
_CODE_VERSION: Final = 17  # raised when the reading of answers changes
_NOT_AN_ANSWER: Final = 0.999
_NO_ANSWER_YET: Final = 0.4
_FIELD: Final = re.compile(r"\{(prompt|response)\}")
_CLASSIFIER_VERSION: Final = 6  # raised when the reading of a classifier's labels or answers changes


def refusal_fingerprint(
    model: str = "embedded",
    *,
    refusal_labels: Sequence[str] = (),
    classifier_input: str | None = None,
    max_length: int = 512,
) -> str:
    """What a detector's numbers depend on.

    Raises:
        InputError: when ``model`` names nothing, or takes no such options.
    """
    ref = resolve_model(model, embedded="refusals")
    if _is_bundled(ref):
        if refusal_labels or classifier_input is not None:
            raise InputError(
                f"refusal detector {model!r} is no classifier: refusal_labels and classifier_input are not for it"
            )
        return f"{ref.fingerprint}+minilm@{MINILM_SHA256[:12]}/v{_CODE_VERSION}"
    options = [sorted(refusal_labels), max_length, *([] if classifier_input is None else [classifier_input])]
    return f"{ref.fingerprint}/{canonical_json(options)}/v{_CLASSIFIER_VERSION}"


def open_refusal_detector(
    model: str = "embedded",
    *,
    refusal_labels: Sequence[str] = (),
    classifier_input: str | None = None,
    max_length: int = 512,
    batch_size: int = 32,
    device: str | None = None,
) -> RefusalDetector:
    """Load a detector.

    Args:
        model: a folder, a Hub id, or ``embedded``.
        refusal_labels: which labels of a classifier mean a refusal; by default those whose name says so,
            and does not deny it (``Non-refusal``).
        classifier_input: what a classifier reads: a text with ``{response}`` in it, and ``{prompt}`` where it was
            trained on both; by default the answer alone, and then it must know plain refusals from plain answers.
        max_length: tokens a classifier reads; longer answers keep both ends, and are reported as truncated.
        batch_size: answers in one forward pass of a classifier.
        device: ``cpu``, ``cuda``, …; None for the best one there is. The bundled detector uses the CPU.

    Raises:
        InputError: when ``model`` names nothing, no label means a refusal, what it reads is not known, or it takes
            plain refusals for answers.
        ModelError: when it cannot be loaded.
    """
    ref = resolve_model(model, embedded="refusals")
    fingerprint = refusal_fingerprint(
        model, refusal_labels=refusal_labels, classifier_input=classifier_input, max_length=max_length
    )
    if _is_bundled(ref):
        return _open_bundled(ref)
    if classifier_input is not None and "{response}" not in classifier_input:
        raise InputError(f"classifier_input is {classifier_input!r}: expected {{response}} in it")
    classifier = open_classifier(
        ref,
        what="refusal detector",
        or_else=", or a folder that make_refusals wrote",
        max_length=max_length,
        batch_size=batch_size,
        device=device,
    )
    if classifier.has_template and classifier_input is None:
        raise InputError(
            f"refusal detector {model!r} has a chat template, so it may be meant to read request and answer: set "
            f"classifier_input to the text that its card gives it, with {{prompt}} and {{response}} in it, or to "
            f"{{response}} for the answer alone"
        )
    refusing = _refusing(dict(enumerate(classifier.labels)), refusal_labels, ref.given)
    detector = ClassifierDetector(
        classifier, refusing, fingerprint=fingerprint, reads=classifier_input, most_of_prompt=max_length
    )
    check_known(detector, model, reads=classifier_input)
    return detector


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

    A refusal is partial where the labels that say so ("partial_refusal") are likelier than the others that refuse;
    without such labels its classes are compliance and full refusal. A classifier with one output is read as the
    logit of a refusal. What is no answer at all (``curation.refusals.notices``) refuses,
    whatever the classifier makes of it; an answer that is reasoning without an end is never sure.
    """

    def __init__(
        self,
        classifier: SequenceClassifier,
        refusing: Sequence[int],
        *,
        fingerprint: str,
        reads: str | None = None,
        most_of_prompt: int = 512,
    ) -> None:
        """
        Args:
            reads: the text that it is given, with ``{response}`` and maybe ``{prompt}`` in it.
            most_of_prompt: characters of a prompt, so that it leaves room for the answer.
        """
        self._classifier = classifier
        self._parts = _FIELD.split(reads or "{response}")
        self._most_of_prompt = most_of_prompt
        self._partial = [n for n in refusing if _PARTIAL_LABEL.search(classifier.labels[n])]
        self._full = [n for n in refusing if n not in self._partial]
        self.fingerprint = fingerprint

    def detect(self, prompts: Sequence[str | None], responses: Sequence[str]) -> RefusalScores:
        """Probability and class of n answers. Reasoning before an answer is not read.

        Raises:
            InputError: when a prompt is needed and there is none.
            ModelError: when a logit is not finite.
        """
        responses, unfinished = spoken(responses)
        found = self._classifier.classify([self._text(p, r) for p, r in zip(prompts, responses, strict=True)])
        apart = self._classifier.multi_label
        try:
            chances = found.probabilities(multi_label=apart)
        except ModelError as error:
            raise ModelError(f"refusal detector {self.fingerprint}: {error}") from None
        # Labels that exclude each other add up; of questions of their own the surest says yes.
        add = np.maximum if apart else np.add
        full, partly = (
            add.reduce(chances[:, labels], axis=1, initial=0.0) for labels in (self._full, self._partial)
        )
        probability = add(full, partly)
        blank = np.array([is_empty_or_filtered(text) for text in responses], dtype=bool)
        probability = np.where(blank, _NOT_AN_ANSWER, np.clip(probability, 0.0, 1.0))
        probability = np.where(unfinished, _NO_ANSWER_YET, probability)
        refusals = np.where((partly > full) & ~blank, "partial_refusal", "full_refusal")
        classes = np.where(probability >= 0.5, refusals, "compliance").tolist()
        kinds = ["empty_or_filtered" if none else None for none in blank]
        return RefusalScores(probability, classes, kinds, found.truncated)

    def _text(self, prompt: str | None, response: str) -> str:
        if prompt is None and "prompt" in self._parts[1::2]:
            raise InputError(
                "classifier_input has {prompt}, and there are answers without one: expected a column prompt, or "
                "messages"
            )
        values = {"prompt": _both_ends(prompt or "", self._most_of_prompt), "response": response}
        return "".join(values[part] if place % 2 else part for place, part in enumerate(self._parts))


def _both_ends(text: str, most: int) -> str:
    tail = most // 4
    return text if len(text) <= most else f"{text[: most - tail]} … {text[-tail:]}"
