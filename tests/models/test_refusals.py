"""The refusal detector adapters: the bundled one's files, and classifiers of transformers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from curation.commands.refusals import run_refusals
from curation.errors import InputError, ModelError
from curation.models.chat.asking import Asking
from curation.models.identity import EMBEDDED_DIR
from curation.models.refusals import (
    judge_fingerprint,
    open_refusal_detector,
    open_refusal_judge,
    refusal_fingerprint,
)
from curation.recipe import RefusalDetection
from curation.stages.refusal_step import RefusalStep

BUNDLED = EMBEDDED_DIR / "refusals"
ALONE = "{response}"
"""What an untrained classifier is given: it has nothing to be checked by."""


def test_bundled_detector_is_small_and_safe() -> None:
    files = [
        path for folder in (BUNDLED, EMBEDDED_DIR / "requests") for path in folder.rglob("*") if path.is_file()
    ]
    assert sum(path.stat().st_size for path in files) < 50 * 2**20
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".md"}


def test_two_openings_give_the_same_numbers() -> None:
    answers = [
        "I can't help with that.",
        "Here is the list.",
        "As an AI I have no opinion, but many people like tea.",
    ]
    first, second = (open_refusal_detector().detect([None] * 3, answers) for _ in range(2))
    assert np.array_equal(first.probability, second.probability)


def test_fingerprint_changes_with_the_files(tmp_path: Path) -> None:
    copy = tmp_path / "refusals"
    shutil.copytree(BUNDLED, copy)
    before = refusal_fingerprint(str(copy))
    (copy / "lexicon.json").write_text("{}\n", encoding="utf-8")
    assert refusal_fingerprint(str(copy)) != before


def test_torn_weights_are_explained(tmp_path: Path) -> None:
    copy = tmp_path / "refusals"
    shutil.copytree(BUNDLED, copy)
    weights = copy / "lexical.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ModelError, match="cannot be read"):
        open_refusal_detector(str(copy))


def test_missing_config_is_explained(tmp_path: Path) -> None:
    copy = tmp_path / "refusals"
    shutil.copytree(BUNDLED, copy)
    (copy / "config.json").unlink()
    with pytest.raises(ModelError, match=r"config\.json"):
        open_refusal_detector(str(copy))


def test_unknown_model_is_explained() -> None:
    with pytest.raises(InputError, match="not a folder that exists"):
        open_refusal_detector("no/such/folder/here")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained BERT with two labels, and a word-level tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("classifier")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "i", "can", "not", "help", "sure", "here"]
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
    fast.save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        id2label={0: "NORMAL", 1: "REJECTION"},
        label2id={"NORMAL": 0, "REJECTION": 1},
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def test_classifier_probability_is_its_refusing_labels(classifier: Path) -> None:
    detector = open_refusal_detector(str(classifier), classifier_input=ALONE)
    flipped = open_refusal_detector(str(classifier), classifier_input=ALONE, refusal_labels=["NORMAL"])
    answers = ["i can not help", "sure here", "i " * 90]
    scores, others = detector.detect([None] * 3, answers), flipped.detect([None] * 3, answers)
    assert scores.probability + others.probability == pytest.approx(1.0, abs=1e-6)
    assert scores.truncated.tolist() == [False, False, True]
    assert detector.fingerprint != flipped.fingerprint


def test_answers_that_a_classifier_reads_at_both_ends_are_counted(classifier: Path, tmp_path: Path) -> None:
    rows = [("Q", "i can not help"), ("Q", "i " * 90)]
    pl.DataFrame(rows, schema=["prompt", "response"], orient="row").write_ndjson(tmp_path / "a.jsonl")
    done = run_refusals(
        tmp_path / "a.jsonl",
        tmp_path / "o.parquet",
        model=open_refusal_detector(str(classifier), classifier_input=ALONE),
        taxonomy=None,
    )
    assert done.truncated == 1
    assert "1 long answers: the beginning and the end were read, not the middle" in done.summary
    step = RefusalStep(RefusalDetection(model=str(classifier), classifier_input=ALONE, taxonomy=None))
    batch = pl.DataFrame(
        {
            "candidate_id": ["short", "long"],
            "messages": [[{"role": "user", "content": "Q"}]] * 2,
            "response": [text for _, text in rows],
        }
    )
    assert step.open()(batch).rows["refusal_truncated"].to_list() == [False, True]


def test_a_judge_in_transformers_is_asked_without_a_schema_and_its_prose_is_no_verdict() -> None:
    judge = open_refusal_judge("embedded", asking=Asking(16))
    assert judge.fingerprint == judge_fingerprint("embedded", asking=Asking(16))
    found = judge.detect([None], ["Four."])
    assert found.refusal_class == [None]
    assert np.isnan(found.probability).all()


def test_classifier_without_the_label_is_explained(classifier: Path) -> None:
    with pytest.raises(InputError, match="'SAFE' is none of them"):
        open_refusal_detector(str(classifier), refusal_labels=["SAFE"])


def renamed(classifier: Path, folder: Path, names: list[str]) -> str:
    """The same classifier with other labels."""
    copy = folder / "renamed"
    shutil.copytree(classifier, copy)
    config = json.loads((copy / "config.json").read_text())
    config |= {"id2label": dict(enumerate(names)), "label2id": {name: n for n, name in enumerate(names)}}
    (copy / "config.json").write_text(json.dumps(config))
    return str(copy)


@pytest.mark.parametrize("other", ["Non-refusal", "non_refusal", "NOT_REJECTED", "No refusal", "nonrefusal"])
def test_a_label_that_denies_a_refusal_is_none(classifier: Path, tmp_path: Path, other: str) -> None:
    answers = ["i can not help", "sure here"]
    plain = open_refusal_detector(str(classifier), classifier_input=ALONE).detect([None] * 2, answers)
    found = open_refusal_detector(renamed(classifier, tmp_path, [other, "Refusal"]), classifier_input=ALONE).detect(
        [None] * 2, answers
    )
    assert found.probability == pytest.approx(plain.probability)


def test_a_classifier_whose_labels_all_mean_a_refusal_is_explained(classifier: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="all of them are taken for refusals"):
        open_refusal_detector(renamed(classifier, tmp_path, ["REFUSED", "DECLINED"]))


def test_what_is_no_answer_refuses_whatever_a_classifier_makes_of_it(classifier: Path) -> None:
    for labels in (["NORMAL"], ["REJECTION"]):
        detector = open_refusal_detector(str(classifier), classifier_input=ALONE, refusal_labels=labels)
        found = detector.detect([None] * 3, ["", '{"error": {"code": 500}}', "sure here"])
        assert found.refusal_class[:2] == ["full_refusal"] * 2
        assert found.kind == ["empty_or_filtered", "empty_or_filtered", None]
