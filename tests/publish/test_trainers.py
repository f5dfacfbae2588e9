"""Every published folder is loaded as it is and trained on for a few steps, by the trainers that the cards name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from curation.publish.card import CardData, render_card
from curation.publish.card_header import data_tables
from curation.publish.derived import reward_frame, sft_frame, triplets_frame
from curation.publish.formats import (
    preference_frame,
    preference_unpaired_frame,
    retrieval_frame,
    trainer_view,
)
from curation.publish.goals import goal_frame, goal_scores
from curation.publish.writing import Draft, split_counts, write_dataset
from curation.refusals.building import build_refusals
from tests.publish.conftest import Tables, make_tables

ROOT = Path(__file__).resolve().parents[2]
POLICY = ROOT / "curation" / "embedded" / "policy"
STEPS = 3


def retrieval_rows(tables: Tables) -> pl.DataFrame:
    """Each prompt with its chosen answer and two answers to other prompts."""
    texts = tables.candidates["response"].to_list()
    mined = tables.prompts.select(
        anchor=pl.col("messages").list.last().struct.field("content"), anchor_id="prompt_id", split="split"
    ).with_columns(
        positive_id=tables.pairs["chosen_id"],
        positive=pl.Series(texts[::2]),
        negatives=pl.Series([[texts[i - 3], texts[i - 5]] for i in range(0, len(texts), 2)]),
        negative_scores=pl.lit([0.5, 0.4]),
    )
    return retrieval_frame(mined, num_negatives=2).frame


def with_dialogues(tables: Tables) -> Tables:
    """A third of the prompts behind a system message, and a third behind an earlier turn, too."""
    system = {"role": "system", "content": "Answer in short."}
    earlier = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hello, what is it?"}]
    before = [[], [system], [system, *earlier]]
    said = [before[i % 3] + messages for i, messages in enumerate(tables.prompts["messages"].to_list())]
    messages = pl.Series("messages", said, dtype=tables.prompts.schema["messages"])
    return tables._replace(prompts=tables.prompts.with_columns(messages))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One published folder for each dataset, with its card."""
    tables, root = with_dialogues(make_tables(30)), tmp_path_factory.mktemp("published")
    answered = {"pairs": tables.pairs, "prompts": tables.prompts, "candidates": tables.candidates}
    sure = {"label_smoothing": pl.lit(0.1), "weight": pl.lit(0.8)}
    decided = {"flipped": pl.lit(value=False), "label_action": pl.lit("soft_label+weight"), **sure}
    preference = preference_frame(**answered, pair_scores=tables.pair_scores.with_columns(**decided))
    scored = preference.with_columns(chosen_rewards=pl.concat_list(2.0), rejected_rewards=pl.concat_list(1.0))
    unpaired = preference_unpaired_frame(**answered | {"pairs": tables.pairs.with_columns(**sure)}).frame
    retrieval = retrieval_rows(tables)
    asked = tables.candidates.join(tables.prompts, on="prompt_id").join(tables.refusals, on="candidate_id")
    refusal = build_refusals(asked).frame.join(tables.prompts.select("prompt_id", "split"), on="prompt_id")
    for name, rows in {
        "preference": preference,
        "preference_unpaired": unpaired,
        "reward": reward_frame(preference),
        "reward_augmented": goal_frame(goal_scores(scored, scale=(1.0, 10.0)), instruction="Aim at {goal}.").frame,
        "sft": sft_frame(unpaired),
        "refusal": refusal,
        "retrieval": retrieval,
        "retrieval_triplets": triplets_frame(retrieval),
    }.items():
        _write(root / name, name, rows)
    return root


def _write(folder: Path, name: str, rows: pl.DataFrame) -> None:
    view = trainer_view(name, rows)

    def card(draft: Draft) -> dict[str, bytes]:
        tables = data_tables(draft.files, view.frame, view.evidence)
        splits = split_counts(view.frame)
        data = CardData(name, "n", "mit", splits, evidence=view.evidence is not None, tables=tables)
        return {"README.md": render_card(data).encode()}

    write_dataset(view.frame, folder=str(folder), evidence=view.evidence, extra_files=card)


@pytest.fixture
def load(folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    return lambda name, *config: datasets.load_dataset(
        str(folders / name), *config, cache_dir=str(tmp_path / "cache")
    )


@pytest.fixture
def arguments(tmp_path: Path) -> dict[str, Any]:
    """What every trainer is told here; nothing of it maps a column."""
    return {
        "output_dir": str(tmp_path / "out"),
        "max_steps": STEPS,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-4,
        "use_cpu": True,
        "bf16": False,
        "report_to": "none",
        "disable_tqdm": True,
        "logging_steps": 1,
        "save_strategy": "no",
        "seed": 0,
    }


def losses(trainer: Any) -> list[float]:
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def policy() -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(POLICY), AutoTokenizer.from_pretrained(POLICY)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["preference", "reward_augmented"])
def test_dpo_trains_on_preference(load, arguments, name):
    from trl import DPOConfig, DPOTrainer

    model, tokenizer = policy()
    dataset = load(name)
    trainer = DPOTrainer(
        model=model, args=DPOConfig(**arguments), train_dataset=dataset["train"], eval_dataset=dataset["test"],
        processing_class=tokenizer,
    )  # fmt: skip
    found = losses(trainer)
    assert len(found) == STEPS
    assert found[0] == pytest.approx(0.6931, abs=1e-3), "before the first step policy and reference agree"


@pytest.mark.slow
def test_kto_trains_on_preference_unpaired(load, arguments):
    from trl import KTOConfig, KTOTrainer

    model, tokenizer = policy()
    dataset = load("preference_unpaired")["train"]
    trainer = KTOTrainer(
        model=model, args=KTOConfig(**arguments), train_dataset=dataset, processing_class=tokenizer
    )
    completions = {
        prompt: {tuple(row["completion_ids"]) for row in trainer.train_dataset if row["prompt_id"] == prompt}
        for prompt in set(dataset["prompt_id"])
    }
    matched = [tuple(row["KL_completion_ids"]) in completions[row["prompt_id"]] for row in trainer.train_dataset]
    assert sum(matched) <= 0.1 * len(matched), "the KL term needs completions of other prompts"
    assert len(losses(trainer)) == STEPS


@pytest.mark.slow
def test_reward_trainer_takes_the_margin(load, arguments):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from trl import RewardConfig, RewardTrainer

    dataset = load("reward")["train"]
    trainer = RewardTrainer(
        model=AutoModelForSequenceClassification.from_pretrained(POLICY, num_labels=1),
        args=RewardConfig(**arguments),
        train_dataset=dataset,
        processing_class=AutoTokenizer.from_pretrained(POLICY),
    )
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(4)])
    assert batch["margin"].tolist() == pytest.approx(dataset["margin"][:4], rel=1e-6)
    assert len(losses(trainer)) == STEPS


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sft", "refusal"])
def test_sft_trains_on(load, arguments, name):
    from trl import SFTConfig, SFTTrainer

    model, tokenizer = policy()
    trainer = SFTTrainer(
        model=model, args=SFTConfig(**arguments), train_dataset=load(name)["train"], processing_class=tokenizer
    )
    assert len(losses(trainer)) == STEPS
    for row in list(trainer.train_dataset)[:6]:
        learned = tokenizer.decode([token for token in row["labels"] if token != -100])
        assert learned.startswith(row["completion"][0]["content"]), "the prompt is not learned"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["retrieval", "retrieval_triplets"])
def test_sentence_transformers_trains_on(load, arguments, name):
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from sentence_transformers.sentence_transformer.training_args import BatchSamplers

    from curation.models.encoder import _minilm_folder

    model = SentenceTransformer(str(_minilm_folder()), device="cpu")
    trainer = SentenceTransformerTrainer(
        model=model,
        args=SentenceTransformerTrainingArguments(**arguments, batch_sampler=BatchSamplers.NO_DUPLICATES),
        train_dataset=load(name)["train"],
        loss=MultipleNegativesRankingLoss(model),
    )
    assert len(losses(trainer)) == STEPS


@pytest.mark.slow
def test_the_other_forms_of_the_guide_hold_every_row(folders, load, tmp_path, monkeypatch):
    code = (ROOT / "docs" / "trainers.md").read_text().split("```python\n")[1].split("```")[0]
    for name, dataset in {"my-team/my-pairs": "preference", "my-team/my-answers": "preference_unpaired"}.items():
        code = code.replace(f'"{name}"', f'"{folders / dataset}", cache_dir="{tmp_path}"')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    exec(code, {})
    pairs, answers = load("preference")["train"], load("preference_unpaired")["train"]
    read = {name: pl.read_ndjson(f"{name}.jsonl").to_dicts() for name in ("pairs", "answers", "swift", "nemo")}
    for row, ours, theirs in zip(pairs, read["pairs"], read["swift"], strict=True):
        assert (ours["messages"], [ours["chosen"]]) == (row["prompt"], row["chosen"])
        assert [ours["rejected"]] == row["rejected"]
        assert theirs["messages"] == row["prompt"] + row["chosen"]
        assert theirs["rejected_response"] == row["rejected"][0]["content"]
    assert [row["label"] for row in read["answers"]] == answers["label"]
    assert [row["messages"][-1:] for row in read["answers"]] == answers["completion"]
    assert [[c["completion"] for c in row["completions"]] for row in read["nemo"]] == [
        [row["chosen"], row["rejected"]] for row in pairs
    ]


@pytest.mark.slow
def test_headers_say_what_datasets_finds(folders, load):
    import yaml

    for folder in sorted(folders.iterdir()):
        meta = yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])
        infos = meta["dataset_info"] if isinstance(meta["dataset_info"], list) else [meta["dataset_info"]]
        for info in infos:
            loaded = load(folder.name, info.get("config_name", "default"))
            assert {s["name"]: s["num_examples"] for s in info["splits"]} == {
                k: v.num_rows for k, v in loaded.items()
            }
            assert info["features"] == loaded["train"].features._to_yaml_list(), folder.name
