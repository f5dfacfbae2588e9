"""Refusal classifiers as they lie on the Hub: what they read, which labels, and in which batch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import transformers
from pydantic import ValidationError
from typer.testing import CliRunner

from curation.cli import app
from curation.errors import InputError, ModelError
from curation.models.refusal_check import ANSWERS as PLAIN
from curation.models.refusal_check import REFUSALS, REQUEST
from curation.models.refusals import open_refusal_detector, refusal_fingerprint
from curation.recipe import RefusalDetection
from curation.stages.refusal_step import RefusalStep
from tests.models.rewards.test_hub_models import saved
from tests.tiny_policies import tiny_tokenizer

MINOS = "<|user|>\n{prompt}\n<|assistant|>\n{response}"
LABELS = {"id2label": {0: "Non-refusal", 1: "Refusal"}, "label2id": {"Non-refusal": 0, "Refusal": 1}}
ANSWERS = ["sat", "on the mat and then on the other mat and then on the mat again", "the {prompt} cat"]


@pytest.fixture(scope="module")
def minos(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A ModernBERT with the labels of NousResearch/Minos-v1."""
    folder = tmp_path_factory.mktemp("minos")
    tokenizer = tiny_tokenizer(chat_template=None)
    torch.manual_seed(0)
    config = transformers.ModernBertConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=256, initializer_range=0.5, pad_token_id=0,
        bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2, num_labels=2, **LABELS,
    )  # fmt: skip
    transformers.ModernBertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def expected(folder: str, texts: list[str]) -> Any:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    network = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        return [float(network(**tokenizer(text, return_tensors="pt")).logits.softmax(-1)[0, 1]) for text in texts]


def test_a_classifier_reads_request_and_answer_where_it_is_told_how(minos: str) -> None:
    prompts = ["the cat", "the {response} mat", "on"]
    texts = [f"<|user|>\n{p}\n<|assistant|>\n{a}" for p, a in zip(prompts, ANSWERS, strict=True)]
    detector = open_refusal_detector(minos, classifier_input=MINOS, device="cpu")
    found = detector.detect(prompts, ANSWERS).probability
    np.testing.assert_allclose(found, expected(minos, texts), atol=1e-5)
    bare = (
        open_refusal_detector(minos, classifier_input="{response}", device="cpu")
        .detect(prompts, ANSWERS)
        .probability
    )
    np.testing.assert_allclose(bare, expected(minos, ANSWERS), atol=1e-5)
    assert np.abs(bare - found).max() > 0.01
    with pytest.raises(InputError, match="expected a column prompt"):
        detector.detect([None], ["sat"])


def test_a_long_request_leaves_room_for_the_answer(minos: str) -> None:
    detector = open_refusal_detector(minos, classifier_input=MINOS, max_length=64, device="cpu")
    found = detector.detect(["the cat " * 500] * 3, ["sat on it", "the other cat", "on the mat and then"])
    assert len(set(found.probability.round(6))) == 3


def test_what_a_classifier_reads_is_in_the_recipe_and_in_the_ledgers_key(minos: str) -> None:
    options = RefusalDetection(model=minos, classifier_input=MINOS)
    keys = {RefusalStep(o).key.producer for o in (options, RefusalDetection(model=minos))}
    assert len(keys) == 2
    with pytest.raises(ValidationError, match="classifier_input"):
        RefusalDetection(model=minos, classifier_input="{prompt}")
    with pytest.raises(InputError, match="not for it"):
        refusal_fingerprint("embedded", classifier_input=MINOS)
    with pytest.raises(InputError, match=r"expected \{response\}"):
        open_refusal_detector(minos, classifier_input="answer", device="cpu")


def test_one_with_a_chat_template_must_be_told_what_it_reads(tmp_path: Path) -> None:
    folder = saved(tmp_path, num_labels=2, **LABELS)
    with pytest.raises(InputError, match=r"has a chat template.*classifier_input"):
        open_refusal_detector(folder, device="cpu")
    assert open_refusal_detector(folder, classifier_input="{response}", device="cpu")


@pytest.mark.parametrize("pad", [None, -1, 9])
def test_a_batch_of_a_language_model_with_a_head_has_each_answers_own_number(tmp_path: Path, pad: Any) -> None:
    """Whatever pads: its tokenizer has no padding, or pads on the left with another token than its config's."""
    tokenizer = tiny_tokenizer(chat_template=None, pad=pad is not None)
    tokenizer.padding_side = "left"
    folder = saved(tmp_path, num_labels=2, tokenizer=tokenizer, pad_token_id=pad, **LABELS)
    alone = {"classifier_input": "{response}", "device": "cpu"}
    found = open_refusal_detector(folder, **alone).detect([None] * 3, ANSWERS).probability
    np.testing.assert_allclose(found, expected(folder, ANSWERS), atol=1e-5)


def test_labels_that_are_questions_of_their_own_do_not_share_one(tmp_path: Path) -> None:
    names = {0: "refusal_safety", 1: "refusal_ability", 2: "polite"}
    folder = saved(
        tmp_path, num_labels=3, problem_type="multi_label_classification", id2label=names,
        label2id={name: n for n, name in names.items()}, tokenizer=tiny_tokenizer(chat_template=None),
    )  # fmt: skip
    network = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    ids = tiny_tokenizer()("sat", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        surest = float(network(ids).logits[0, :2].sigmoid().max())
    found = (
        open_refusal_detector(folder, classifier_input="{response}", device="cpu")
        .detect([None], ["sat"])
        .probability
    )
    np.testing.assert_allclose(found, [surest], atol=1e-5)


def test_a_guard_that_answers_in_words_is_no_classifier(tmp_path: Path) -> None:
    """WildGuard, Llama Guard, ShieldGemma, Granite Guardian."""
    with pytest.raises(ModelError, match=r"score\.weight.*asked as a judge"):
        open_refusal_detector(saved(tmp_path, kind="ForCausalLM"), device="cpu")


def test_the_command_takes_labels_and_what_is_read(minos: str, tmp_path: Path) -> None:
    rows = [{"prompt": "the cat", "response": answer} for answer in ANSWERS]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = ["refusals", str(tmp_path / "in.jsonl"), "-o", str(tmp_path / "o.parquet"), "--taxonomy", "none"]
    done = CliRunner().invoke(
        app, [*given, "--model", minos, "--refusal-label", "Non-refusal", "--classifier-input", MINOS]
    )
    assert done.exit_code == 0, done.output
    told = open_refusal_detector(minos, classifier_input=MINOS, device="cpu").detect(["the cat"] * 3, ANSWERS)
    found = pl.read_parquet(tmp_path / "o.parquet")["refusal_probability"].to_numpy()
    np.testing.assert_allclose(found, 1 - told.probability, atol=1e-5)
    wrong = CliRunner().invoke(app, [*given, "--judge", "http://127.0.0.1:9/v1#m", "--refusal-label", "Refusal"])
    assert isinstance(wrong.exception, InputError)
    assert "--judge names a chat model" in str(wrong.exception)


def trained(folder: Path, texts: dict[str, int], labels: dict[str, Any] = LABELS) -> str:
    """A BERT over words that knows these texts' labels, and what has the same first two words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = sorted({word for text in texts for word in text.replace("\n", " ").split()})
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words]
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(names)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(names), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=64, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **labels,
    )  # fmt: skip
    network = transformers.BertForSequenceClassification(config)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    batch = fast(list(texts), padding=True, return_tensors="pt")
    for _ in range(40):
        loss = network(**batch, labels=torch.tensor(list(texts.values()))).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    network.eval().save_pretrained(folder)
    return str(folder)


def test_one_that_knows_plain_refusals_needs_no_line(tmp_path: Path) -> None:
    folder = trained(tmp_path, dict.fromkeys(REFUSALS, 1) | dict.fromkeys(PLAIN, 0))
    found = open_refusal_detector(folder, device="cpu").detect([None] * 2, [REFUSALS[0], PLAIN[0]])
    assert found.refusal_class == ["full_refusal", "compliance"]


def test_one_that_takes_plain_refusals_for_answers_is_an_error_before_any_row_is_judged(tmp_path: Path) -> None:
    """As one trained on dialogues is, to which an answer alone is the user's; or one whose labels are turned."""
    written = {
        MINOS.format(prompt="Tell me.", response=text): int(text in REFUSALS) for text in (*REFUSALS, *PLAIN)
    }
    folder = trained(tmp_path / "minos", written | dict.fromkeys(REFUSALS, 0))
    with pytest.raises(InputError, match=r"8 of 8 plain refusals for answers.*classifier_input"):
        open_refusal_detector(folder, device="cpu")
    told = open_refusal_detector(folder, classifier_input=MINOS, device="cpu")
    assert told.detect(["Tell me."] * 2, [REFUSALS[0], PLAIN[0]]).refusal_class == ["full_refusal", "compliance"]
    turned = trained(tmp_path / "turned", dict.fromkeys(REFUSALS, 0) | dict.fromkeys(PLAIN, 1))
    with pytest.raises(InputError, match="8 of 8 plain answers for refusals"):
        open_refusal_detector(turned, device="cpu")
    assert open_refusal_detector(turned, refusal_labels=["Non-refusal"], device="cpu")


def test_labels_that_are_turned_round_are_an_error_whatever_it_is_said_to_read(tmp_path: Path) -> None:
    """The model was fitted with 0 for refusals, and its config calls 1 Refusal: refusals would be compliance."""
    alone = dict.fromkeys(REFUSALS, 0) | dict.fromkeys(PLAIN, 1)
    folder = trained(tmp_path, alone | {MINOS.format(prompt=REQUEST, response=t): n for t, n in alone.items()})
    for reads in ("{response}", MINOS):
        with pytest.raises(InputError, match="labels seem to be turned round: set refusal_labels"):
            open_refusal_detector(folder, classifier_input=reads, device="cpu")
        named = open_refusal_detector(folder, classifier_input=reads, refusal_labels=["Non-refusal"], device="cpu")
        told = named.detect([REQUEST] * 2, [REFUSALS[0], PLAIN[0]])
        assert told.refusal_class == ["full_refusal", "compliance"]


def test_one_that_finds_no_plain_refusal_is_a_warning_where_it_is_said_what_it_reads(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It may read another language."""
    folder = trained(tmp_path, dict.fromkeys((*REFUSALS, *PLAIN), 0) | {"Das mache ich nicht.": 1})
    with caplog.at_level("WARNING", logger="curation"):
        open_refusal_detector(folder, classifier_input="{response}", device="cpu")
    assert "takes 8 of 8 plain refusals for answers and 0 of 8 plain answers for refusals" in caplog.text


@pytest.mark.parametrize("apart", [False, True])
def test_a_label_for_partial_refusals_makes_them_partial(tmp_path: Path, apart: bool) -> None:
    """As XSTest's labels are; a dataset leaves partial refusals out, and full ones in."""
    names = {0: "1_full_compliance", 1: "2_full_refusal", 2: "3_partial_refusal"}
    labels: dict[str, Any] = {"id2label": names, "label2id": {name: n for n, name in names.items()}}
    part = "Mix the flour, but I cannot say where the mushrooms grow."
    texts = dict.fromkeys(REFUSALS, 1) | dict.fromkeys(PLAIN, 0) | {part: 2}
    folder = trained(tmp_path, texts, labels)
    if apart:
        config = json.loads((tmp_path / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps(config | {"problem_type": "multi_label_classification"}))
    found = open_refusal_detector(folder, device="cpu").detect([None] * 4, [REFUSALS[0], PLAIN[0], part, ""])
    assert found.refusal_class == ["full_refusal", "compliance", "partial_refusal", "full_refusal"]
