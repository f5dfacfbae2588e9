"""Light heads: features, file format, the bundled ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from curation.errors import InputError, ModelError
from curation.models.encoder import encoder_fingerprint
from curation.models.identity import EMBEDDED_DIR
from curation.models.rewards import open_reward, reward_fingerprint
from curation.models.rewards.features import TEXT_FEATURES, relevance_features, text_features
from curation.models.rewards.heads import HEADS_FILE, Heads, HeadsReward, read_heads, write_heads
from curation.text import Message

PROMPT: list[Message] = [{"role": "user", "content": "Name three rivers of Europe."}]
ANSWERS = [
    "Three rivers of Europe are:\n\n1. The Danube\n2. The Rhine\n3. The Volga",
    "rivers rivers rivers rivers rivers rivers",
    "",
]


@pytest.fixture(scope="module")
def bundled() -> HeadsReward:
    model = open_reward("embedded", device="cpu")
    assert isinstance(model, HeadsReward)
    return model


def test_there_are_at_least_five_bundled_heads_and_they_are_small() -> None:
    folder = EMBEDDED_DIR / "rewards"
    assert len(read_heads(folder).weights) >= 5
    assert (folder / HEADS_FILE).stat().st_size < 2_000_000
    assert "Accuracy on held-out pairs" in (folder / "README.md").read_text(encoding="utf-8")


def test_bundled_heads_prefer_an_answer_to_babble(bundled: HeadsReward) -> None:
    rewards = bundled.score([PROMPT] * 3, ANSWERS)
    assert rewards.shape == (3, len(bundled.outputs))
    assert rewards.dtype == np.float64
    assert (rewards[0] > rewards[1]).all()


def test_rewards_do_not_depend_on_the_batch(bundled: HeadsReward) -> None:
    together = bundled.score([PROMPT] * 3, ANSWERS)
    alone = np.vstack([bundled.score([PROMPT], [answer]) for answer in ANSWERS])
    np.testing.assert_allclose(together, alone, atol=1e-4)


def test_heads_differ(bundled: HeadsReward) -> None:
    rewards = bundled.score([PROMPT] * 2, ANSWERS[:2])
    assert len(set((rewards[0] - rewards[1]).round(6))) == rewards.shape[1]


def test_written_heads_come_back_and_the_bytes_repeat(tmp_path: Path) -> None:
    heads = Heads(np.random.default_rng(0).normal(size=(2, 5)), "embedded", "minilm@x")
    for name in ("a", "b"):
        write_heads(tmp_path / name, heads)
    back = read_heads(tmp_path / "a")
    np.testing.assert_array_equal(back.weights, heads.weights)
    assert back[1:] == heads[1:]
    assert (tmp_path / "a" / HEADS_FILE).read_bytes() == (tmp_path / "b" / HEADS_FILE).read_bytes()


def test_heads_of_another_encoder_are_refused(tmp_path: Path) -> None:
    write_heads(tmp_path, Heads(np.zeros((1, 5)), "embedded", "minilm@other"))
    with pytest.raises(ModelError, match="were fitted on encoder minilm@other"):
        open_reward(str(tmp_path))


def test_a_broken_file_of_heads_is_a_model_error(tmp_path: Path) -> None:
    (tmp_path / HEADS_FILE).write_bytes(b"nothing")
    with pytest.raises(ModelError, match="cannot be read"):
        reward_fingerprint(str(tmp_path))


def test_the_fingerprint_follows_the_weights(tmp_path: Path) -> None:
    found = set()
    for seed in (0, 1):
        folder = tmp_path / str(seed)
        weights = np.full((1, 5), float(seed))
        write_heads(folder, Heads(weights, "embedded", encoder_fingerprint("embedded")))
        found.add(reward_fingerprint(str(folder)))
    assert len(found) == 2


def test_a_model_that_is_nothing_is_an_input_error() -> None:
    with pytest.raises(InputError, match="not a folder that exists"):
        reward_fingerprint("no such model")


@pytest.mark.parametrize("text", ["", " ", "\x00", "\ud800", "🙂" * 50, "\n" * 2000, "a" * 20000, "1. x\n2. y"])
def test_features_of_any_text_are_finite(text: str) -> None:
    values = text_features(["What?", text], [text, text])
    assert values.shape == (2, len(TEXT_FEATURES))
    assert np.isfinite(values).all()


def test_features_see_what_their_names_say() -> None:
    names = {name: column for column, name in enumerate(TEXT_FEATURES)}
    good, bad = text_features(["Name 3 rivers"] * 2, [ANSWERS[0], "I'm sorry, I can't. rivers rivers rivers"])
    assert good[names["log_numbered"]] == pytest.approx(np.log1p(3))
    assert good[names["refusals"]] == 0.0 < bad[names["refusals"]]
    assert bad[names["refusal_start"]] == 1.0
    assert bad[names["numbers_missing"]] == 1.0


def test_relevance_is_the_cosine_and_its_square() -> None:
    vectors = np.array([[0.6, 0.8]], dtype=np.float32)
    np.testing.assert_allclose(relevance_features(vectors, np.array([[1, 0]], dtype=np.float32)), [[0.6, 0.36]])
