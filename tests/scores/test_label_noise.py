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
from curation.scores.label_noise import _out_of_fold, label_noise, suggest
from curation.scores.noise_witnesses import annotator_column, peoples_votes, with_votes
from curation.scores.voters import METHODS, Method


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
    # All margins are alike here, so that wrong labels and an unsure model can hardly be told apart.
    assert result.right_share == pytest.approx(0.8, abs=0.1)


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


def test_no_label_of_a_fold_is_seen_be_it_in_what_counts() -> None:
    random = np.random.default_rng(0)
    blocks = {
        name: random.normal(size=(120, width)) for name, width in (("extent", 3), ("style", 12), ("heads", 5))
    }
    fold = np.arange(120) % 5
    out = fold == 0
    turned = {name: np.where(out[:, None], -block, block) for name, block in blocks.items()}
    one, other = (_out_of_fold(given, fold, [], 0)[out] for given in (blocks, turned))
    assert np.array_equal(one, -other)


def test_blocks_of_noise_agree_with_labels_no_more_than_a_coin() -> None:
    shares = []
    for seed in range(12):
        random = np.random.default_rng(seed)
        blocks = {name: random.normal(size=(120, 8)) for name in ("extent", "style", "heads")}
        used: list[str] = []
        margins = _out_of_fold(blocks, np.arange(120) % 5, used, 0)
        shares.append((margins > 0).mean() + 0.5 * (margins == 0).mean())
    # Twelve times 120 labels: the mean of a coin is within 0.03 in 97 of 100 cases.
    assert np.mean(shares) < 0.53


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


def test_a_witness_against_the_labels_gets_no_weight_and_is_named() -> None:
    frame, _ = noisy(120)
    # Every second label is spoken against, so that no fold's labels agree with it but by a hair.
    noise = [[float(value)] for value in np.where(np.arange(120) % 2, 1.0, -1.0)]
    frame = frame.with_columns(chosen_rewards=pl.Series(noise), rejected_rewards=pl.Series([[0.0]] * 120))
    result = label_noise(frame, encoder=ENCODER, prior=None)
    assert any("without weight" in line and "the rewards" in line for line in result.used)


def test_an_annotator_who_flips_is_found_and_rows_without_one_stay() -> None:
    frame, _ = noisy(240, flips=0.0)
    random = np.random.default_rng(1)
    careless = np.arange(240) % 4 == 0
    turned = careless & (random.random(240) < 0.5)
    swap = pl.Series(turned)
    frame = frame.with_columns(
        chosen=pl.when(swap).then("rejected").otherwise("chosen"),
        rejected=pl.when(swap).then("chosen").otherwise("rejected"),
        annotator=pl.Series(
            [None if n % 10 == 3 else "careless" if c else f"p{n % 3}" for n, c in enumerate(careless)]
        ),
    )
    result = label_noise(frame, encoder=ENCODER, prior=None, annotator="annotator")
    assert result.annotators["annotator"][0] == "careless"
    assert result.annotators["right_share"][0] < 0.8
    assert result.annotators["right_share"][1] > 0.9
    assert result.frame.height == 240
    assert result.frame["annotator_loss_rank"].null_count() == 0
    assert any("rows without one" in line for line in result.used)


def test_a_label_that_was_turned_round_is_not_its_annotators() -> None:
    frame, flipped = noisy(240, flips=0.25)
    wrong = pl.Series(flipped)
    who = [None if n == 0 else "careless" if f else f"p{n % 3}" for n, f in enumerate(flipped)]
    mended = frame.with_columns(
        chosen=pl.when(wrong).then("rejected").otherwise("chosen"),
        rejected=pl.when(wrong).then("chosen").otherwise("rejected"),
        flipped=wrong,
        annotator=pl.Series(who),
    )
    result = label_noise(mended, encoder=ENCODER, prior=None, annotator="annotator")
    # Every label of the file is right now, and each that careless gave was wrong.
    share = dict(result.annotators.select("annotator", "right_share").iter_rows())
    assert share["careless"] < 0.4
    assert min(share[f"p{n}"] for n in range(3)) > 0.95
    losses = dict(result.annotators.select("annotator", "median_loss").iter_rows())
    assert losses["careless"] > max(losses[f"p{n}"] for n in range(3))
    assert result.frame.filter("flipped")["label_probability"].min() > 0.9
    assert any(f"{int(flipped[1:].sum()):,} labels were turned round since" in line for line in result.used)
    nobody = mended.with_columns(annotator=pl.when(~wrong).then("annotator"))
    rest = label_noise(nobody, encoder=ENCODER, prior=None, annotator="annotator")
    for column in ("label_probability", "annotator_loss_rank"):
        np.testing.assert_allclose(result.frame[column], rest.frame[column])


def test_votes_of_people_are_weighed_by_their_reliability() -> None:
    frame, flipped = noisy(100, flips=0.3)
    # Texts say nothing here; three voters are right, one votes against everything.
    frame = frame.with_columns(
        chosen=pl.format("x{}", pl.int_range(100)), rejected=pl.format("y{}", pl.int_range(100))
    )
    votes = [
        [{"voter": f"v{v}", "vote": "rejected" if f else "chosen"} for v in range(3)]
        + [{"voter": "troll", "vote": "chosen" if f else "rejected"}, {"voter": "shy", "vote": "tie"}]
        for f in flipped
    ]
    result = label_noise(frame.with_columns(votes=pl.Series(votes)), encoder=ENCODER, prior=None, votes="votes")
    assert roc_auc_score(~flipped, result.frame["label_probability"]) > 0.99
    reliability = dict(result.voters.select("voter", "reliability").iter_rows())
    assert reliability["troll"] < 0.1
    assert reliability["v0"] > 0.9


@pytest.mark.parametrize("method", METHODS)
def test_one_vote_a_pair_is_no_proof_and_its_voter_not_perfect(method: Method) -> None:
    frame, _ = noisy(100)
    random = np.random.default_rng(0)
    votes = [[{"voter": f"v{n % 4}", "vote": str(random.choice(["chosen", "rejected"]))}] for n in range(100)]
    said = peoples_votes(frame.with_columns(votes=pl.Series(votes)), "votes", method=method)
    # Four to one at most: a right label in ten is not turned round by one voice against it.
    assert np.abs(said.log_odds).max() <= np.log(4) + 1e-12
    assert said.voters["reliability"].max() <= 0.8 + 1e-12
    assert with_votes(np.full(100, 0.9), said).min() > 0.5


def test_ties_alone_say_nothing_and_rows_without_votes_are_null() -> None:
    frame, _ = noisy(60)
    ties = [[{"voter": "a", "vote": "tie"}, {"voter": "b", "vote": None}] for _ in range(60)]
    plain = label_noise(frame, encoder=ENCODER, prior=None)
    tied = label_noise(frame.with_columns(votes=pl.Series(ties)), encoder=ENCODER, prior=None, votes="votes")
    np.testing.assert_allclose(tied.frame["label_probability"], plain.frame["label_probability"], rtol=1e-12)
    assert set(tied.frame["vote_probability"]) == {0.5}
    assert tied.voters.is_empty()
    assert "votes of 0 people on 0 rows" in tied.used

    some = [[{"voter": v, "vote": "chosen"} for v in "abc"] if n < 20 else [] for n in range(60)]
    some[1] = [{"voter": v, "vote": "tie"} for v in "abc"]
    found = label_noise(frame.with_columns(votes=pl.Series(some)), encoder=ENCODER, prior=None, votes="votes").frame
    assert found["vote_probability"].is_null().to_list() == [n >= 20 for n in range(60)]
    assert found["vote_probability"][1] == 0.5
    assert (found["vote_probability"][2:20] > 0.5).all()


def test_votes_of_another_kind_are_an_input_error() -> None:
    frame, _ = noisy(40)
    with pytest.raises(InputError, match="expected a list of"):
        label_noise(frame.with_columns(votes=pl.lit(3)), encoder=ENCODER, prior=None, votes="votes")
    odd = frame.with_columns(votes=pl.Series([[{"voter": "a", "vote": "maybe"}]] * 40))
    with pytest.raises(InputError, match=r"a vote is none of chosen, rejected and tie .* found 'maybe'"):
        label_noise(odd, encoder=ENCODER, prior=None, votes="votes")


@pytest.mark.parametrize(
    ("method", "word"),
    [
        ("majority", "majority"),
        ("glad", "GLAD"),
        ("mace", "MACE"),
        ("dawid_skene", "Dawid-Skene"),
        ("noisy_bradley_terry", "noisy Bradley-Terry"),
    ],
)
def test_reward_models_are_voters_by_the_method_that_is_asked_for(method: Method, word: str) -> None:
    frame, flipped = noisy(80)
    random = np.random.default_rng(1)
    better = np.where(flipped, -1.0, 1.0)
    models = [np.where(random.random(80) < wrong, -better, better) for wrong in (0.05, 0.1, 0.45)]
    chosen = [[float(value) for value in row] for row in np.stack(models, axis=1)]
    scored = frame.with_columns(chosen_rewards=pl.Series(chosen), rejected_rewards=pl.Series([[0.0] * 3] * 80))
    result = label_noise(scored, encoder=ENCODER, prior=None, vote_method=method)
    voters = dict(result.voters.select("voter", "reliability").iter_rows())
    assert voters["reward model 0"] > voters["reward model 2"]
    assert f"{word} over the reward models, for their reliability only" in result.used


@pytest.mark.parametrize(("flips", "warned"), [(0.2, False), (0.5, True)])
def test_a_model_that_is_no_better_than_a_coin_warns_of_cleaning_by_it(flips: float, warned: bool) -> None:
    frame, _ = noisy(200, flips=flips, seed=3)
    result = label_noise(frame, encoder=ENCODER, prior=None)
    margins = result.frame["label_margin"]
    assert result.agreement.share == pytest.approx(((margins > 0).sum() + (margins == 0).sum() / 2) / 200)
    assert bool(result.warnings) is warned
    assert all("may well do harm" in line for line in result.warnings)


def test_labels_that_nothing_explains_are_all_kept() -> None:
    rows = 60
    frame = pl.DataFrame(
        {
            "prompt": [f"p{n}" for n in range(rows)],
            "chosen": [f"{n:03d}" for n in range(rows)],
            "rejected": [f"{999 - n:03d}" for n in range(rows)],
        }
    )
    result = label_noise(frame, encoder=ENCODER, prior=None)
    assert set(result.frame["suggested_action"]) == {"keep"}


def test_a_language_model_is_a_witness_that_counts_where_it_agrees_with_the_labels() -> None:
    """What is right cannot be seen from length or words: both answers say the same words in another order."""
    random = np.random.default_rng(0)
    names = [f"Ann{n}" for n in range(120)]
    good, bad = [f"{n} thanks you." for n in names], [f"you thanks. {n}" for n in names]
    flipped = random.random(len(names)) < 0.15
    frame = pl.DataFrame(
        {
            "prompt": [f"Who thanks me, {n}?" for n in names],
            "chosen": [b if f else g for g, b, f in zip(good, bad, flipped, strict=True)],
            "rejected": [g if f else b for g, b, f in zip(good, bad, flipped, strict=True)],
        }
    )
    without = label_noise(frame, encoder=ENCODER, prior=None)
    found = label_noise(frame, encoder=ENCODER, prior=None, language_model="embedded")
    assert roc_auc_score(~flipped, found.frame["label_margin"]) > 0.99
    assert "language model's state" in found.used[0] or "mean state" in found.used[0]
    assert not any("state" in words for words in without.used)
    turned = frame.rename({"chosen": "rejected", "rejected": "chosen"})
    other = label_noise(turned, encoder=ENCODER, prior=None, language_model="embedded").frame
    # The labels of all rows turned are as consistent as before: what is known of a row does not change.
    assert other["label_margin"].to_list() == pytest.approx(found.frame["label_margin"].to_list(), abs=1e-6)


def test_pairs_that_the_language_model_cannot_read_are_judged_without_it_and_counted() -> None:
    frame, _ = noisy(40)
    long = frame.with_columns(
        chosen=pl.when(pl.int_range(pl.len()) == 3).then(pl.lit("word " * 20_000)).otherwise("chosen")
    )
    found = label_noise(long, encoder=ENCODER, prior=None, language_model="embedded")
    assert found.frame.height == 40
    assert found.frame["label_probability"].is_finite().all()
    assert found.used[0].startswith("pairs that the language model could not read")
    assert "context_overflow 1" in found.used[0]


def test_an_empty_annotator_is_nobody() -> None:
    found = annotator_column(pl.DataFrame({"who": ["ann", "", " ", None]}), "who")
    assert found is not None
    assert found.to_list() == ["ann", None, None, None]
    assert annotator_column(pl.DataFrame({"who": ["", " "]}), "who") is None
    numbers = annotator_column(pl.DataFrame({"who": [3, None]}), "who")
    assert numbers is not None
    assert numbers.to_list() == [3, None]
