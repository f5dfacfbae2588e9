"""Cross-fitted label noise."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from curation.errors import InputError
from curation.models.protocols import Encoded
from curation.scores.ensemble import cross_fit, make_folds
from curation.scores.label_noise import label_noise, suggest


class HashEncoder:
    """Deterministic vectors with no meaning, so that tests need no model."""

    fingerprint = "hash"
    dimension = 8

    def encode(self, texts: Sequence[str]) -> Encoded:
        seeds = [int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) for text in texts]
        vectors = np.array([np.random.default_rng(seed).normal(size=8) for seed in seeds]).reshape(-1, 8)
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return Encoded(unit.astype(np.float32), np.zeros(len(texts), dtype=bool))


ENCODER = HashEncoder()


def noisy(rows: int = 200, flips: float = 0.2, seed: int = 0) -> tuple[pl.DataFrame, np.ndarray]:
    """Pairs whose better answer is a full sentence; some exchanged."""
    random = np.random.default_rng(seed)
    flipped = random.random(rows) < flips
    good = [f"The result is {n}. It follows because the first term grows." for n in range(rows)]
    bad = [f"idk maybe {n}" if n % 2 else "i cannot say" for n in range(rows)]
    frame = pl.DataFrame(
        {
            "prompt": [f"What is item {n}?" for n in range(rows)],
            "chosen": [b if f else g for g, b, f in zip(good, bad, flipped, strict=True)],
            "rejected": [g if f else b for g, b, f in zip(good, bad, flipped, strict=True)],
        }
    )
    return frame, flipped


def test_flipped_rows_get_low_probabilities() -> None:
    frame, flipped = noisy()
    result = label_noise(frame, encoder=ENCODER, prior=None)
    assert roc_auc_score(~flipped, result.frame["label_probability"]) > 0.99
    assert result.right_share == pytest.approx(0.8, abs=0.06)


@pytest.mark.parametrize("flips", [0.05, 0.4])
def test_other_flip_rates_work(flips: float) -> None:
    frame, flipped = noisy(flips=flips)
    result = label_noise(frame, encoder=ENCODER, prior=None)
    assert roc_auc_score(~flipped, result.frame["label_probability"]) > 0.9


def test_exchanging_all_answers_keeps_what_is_said_of_each_label() -> None:
    frame, _ = noisy(60)
    turned = frame.rename({"chosen": "rejected", "rejected": "chosen"})
    one = label_noise(frame, encoder=ENCODER, prior=None).frame["label_margin"]
    two = label_noise(turned, encoder=ENCODER, prior=None).frame["label_margin"]
    np.testing.assert_allclose(one, two, atol=1e-6)


def test_the_own_label_is_not_seen() -> None:
    frame, _ = noisy(60, flips=0.0)
    row = frame[:1]
    turned = pl.concat([row.select("prompt", chosen="rejected", rejected="chosen"), frame[1:]])
    one = label_noise(frame, encoder=ENCODER, prior=None).frame["label_margin"]
    two = label_noise(turned, encoder=ENCODER, prior=None).frame["label_margin"]
    assert two[0] == pytest.approx(-one[0], rel=0.35)
    assert two[0] < 0 < one[0]


def test_the_same_seed_gives_the_same_numbers() -> None:
    frame, _ = noisy(60)
    one = label_noise(frame, encoder=ENCODER, prior=None, seed=3).frame
    assert one.equals(label_noise(frame, encoder=ENCODER, prior=None, seed=3).frame)


def test_equal_answers_are_even_chances() -> None:
    frame, _ = noisy(60)
    frame = pl.concat([frame, frame[:1].with_columns(rejected="chosen")])
    last = label_noise(frame, encoder=ENCODER, prior=None).frame.row(-1, named=True)
    assert last["label_probability"] == 0.5


def test_ready_rewards_are_a_witness_and_named() -> None:
    frame, flipped = noisy(100)
    rewards = [[0.0, 0.1] if f else [1.0, 1.2] for f in flipped]
    frame = frame.with_columns(chosen_rewards=pl.Series(rewards), rejected_rewards=pl.Series([[0.5, 0.6]] * 100))
    result = label_noise(frame, encoder=ENCODER, prior=None)
    assert any("chosen_rewards" in witness for witness in result.used)


def test_rows_without_text_are_rejected_by_name() -> None:
    frame, _ = noisy(40)
    frame = frame.with_columns(prompt=pl.when(pl.int_range(pl.len()) == 2).then(None).otherwise("prompt"))
    result = label_noise(frame, encoder=ENCODER, prior=None)
    assert result.rejects.select("row", "rule").rows() == [(2, "not_text")]
    assert result.frame.height == 39


def test_fewer_prompts_than_folds_is_an_input_error() -> None:
    with pytest.raises(InputError, match="fewer than the 5 folds"):
        label_noise(noisy(3)[0], encoder=ENCODER, prior=None)


def test_a_missing_column_is_an_input_error() -> None:
    with pytest.raises(InputError, match="'rejected' is missing"):
        label_noise(pl.DataFrame({"prompt": ["a"], "chosen": ["b"]}), encoder=ENCODER, prior=None)


def test_suggestions_follow_the_thresholds() -> None:
    assert suggest(np.array([0.1, 0.3, 0.9]), flip_below=0.2, drop_below=0.5) == ["flip", "drop", "keep"]


def test_folds_keep_groups_whole_and_are_of_like_size() -> None:
    groups = [f"g{n // 3}" for n in range(90)]
    folds = make_folds(groups, 5, seed=0)
    assert all(len(set(folds[n : n + 3])) == 1 for n in range(0, 90, 3))
    assert np.bincount(folds).tolist() == [18] * 5


def test_cross_fitted_margins_come_from_heads_without_the_fold() -> None:
    random = np.random.default_rng(0)
    width = 42 + 2 * 4
    chosen, rejected = random.normal(size=(60, width)), random.normal(size=(60, width))
    groups = [str(n) for n in range(60)]
    fit = cross_fit(chosen, rejected, groups, dimension=4, heads=3, folds=4, seed=1, penalty=5.0)
    assert fit.weights.shape == (3, width)
    seen = ((chosen - rejected) @ fit.weights.T > 0).mean()
    unseen = (fit.margins > 0).mean()
    assert seen > unseen + 0.1
    np.testing.assert_allclose(fit.margins, fit.chosen - fit.rejected)
