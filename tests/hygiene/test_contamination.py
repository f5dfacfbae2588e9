"""Rows that evaluation sets hold: found, named, quoted; and nothing else."""

from __future__ import annotations

import json
import random
import unicodedata
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from curation.commands.decontaminate import run_decontaminate
from curation.errors import InputError
from curation.files import rejects_path
from curation.hygiene.contamination import EvaluationIndex, decontaminate, gram_size

WORDS = [f"word{i}" for i in range(3000)]


def sentence(length: int, seed: int) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=length))


def prompts(*texts: str | None) -> pl.DataFrame:
    return pl.DataFrame({"prompt": pl.Series(list(texts), dtype=pl.String)})


QUESTION = sentence(30, seed=1)


def test_a_prompt_with_an_evaluation_row_inside_is_removed_and_quoted() -> None:
    rows = prompts("harmless", f"Please answer: {QUESTION.upper()}! Thanks.", sentence(30, seed=2), None)

    kept, rejects = decontaminate(rows, {"exam": prompts(sentence(30, seed=3), QUESTION)})

    assert kept["prompt"].to_list() == [rows["prompt"][0], rows["prompt"][2]]
    assert rejects.select("row", "rule", "value", "matched_set", "matched_row").rows() == [
        (1, "evaluation_ngram", "exam:1", "exam", 1),
        (3, "null_prompt", "prompt", None, None),
    ]
    assert rejects["matched_text"][0].startswith(QUESTION)
    assert rejects["score"][0] == 1.0
    assert QUESTION in rejects["reason"][0]


def test_the_longest_shared_run_is_quoted() -> None:
    words = QUESTION.split()
    text = " ".join([*words[:14], "other", *words[10:28], "end"])

    _, rejects = decontaminate(prompts(text), {"exam": prompts(QUESTION)}, n=8)

    assert rejects["matched_text"].to_list() == [" ".join(words[10:28])]


@pytest.mark.parametrize(("shared", "removed"), [(7, False), (8, True)])
def test_eight_words_in_a_row_are_enough_and_seven_are_not(shared: int, removed: bool) -> None:
    words = QUESTION.split()
    text = f"{sentence(20, seed=8)} {' '.join(words[3 : 3 + shared])} {sentence(20, seed=9)}"

    kept, _ = decontaminate(prompts(text), {"exam": prompts(QUESTION)}, n=8)

    assert (kept.height == 0) is removed


def test_overlap_is_the_share_of_the_evaluation_rows_ngrams() -> None:
    words = QUESTION.split()
    text = " ".join(words[:19])  # 12 of the 23 8-grams

    _, rejects = decontaminate(prompts(text), {"exam": prompts(QUESTION)}, n=8)
    kept, _ = decontaminate(prompts(text), {"exam": prompts(QUESTION)}, n=8, min_overlap=0.53)

    assert rejects["score"].to_list() == [pytest.approx(12 / 23)]
    assert kept.height == 1


def test_agrees_with_a_plain_search_for_shared_ngrams() -> None:
    chance = random.Random(0)
    vocabulary = WORDS[:12]
    evaluation = [" ".join(chance.choices(vocabulary, k=chance.randint(1, 30))) for _ in range(60)]
    texts = [" ".join(chance.choices(vocabulary, k=chance.randint(1, 60))) for _ in range(200)]

    def grams(text: str, n: int = 5) -> set[tuple[str, ...]]:
        words = text.split()
        return {tuple(words[i : i + n]) for i in range(max(1, len(words) - n + 1))}

    _, rejects = decontaminate(prompts(*texts), {"exam": prompts(*evaluation)}, n=5, max_rows=1000)

    expected = {}
    for row, text in enumerate(texts):
        scores = [len(grams(text) & grams(other)) / len(grams(other)) for other in evaluation]
        if max(scores) > 0:
            expected[row] = max(scores)
    assert 5 < len(expected) < 200
    assert dict(rejects.select("row", "score").iter_rows()) == pytest.approx(expected)


def test_texts_shorter_than_the_ngram_match_when_they_are_the_same_words() -> None:
    rows = prompts("What is love?", "what is LOVE", "What is love, baby?", "love")

    kept, rejects = decontaminate(rows, {"exam": prompts("What is love?", "!!!")})

    assert rejects["row"].to_list() == [0, 1]
    assert kept.height == 2


def test_templates_shared_by_many_rows_match_nothing() -> None:
    template = sentence(20, seed=5)
    exam = prompts(*(f"{template} {sentence(12, seed=100 + i)}" for i in range(11)))
    rows = prompts(f"{template} and something of my own", exam["prompt"][4])

    kept, rejects = decontaminate(rows, {"exam": exam})

    assert rejects.select("row", "matched_row").rows() == [(1, 4)]
    assert kept.height == 1
    assert EvaluationIndex({"exam": exam}).templates == {"exam": 20 - 13 + 1}


@pytest.mark.parametrize(
    ("lengths", "size"), [([3] * 100, 8), ([10] * 100, 10), ([50] * 100, 13), ([9] * 10 + [40] * 90, 9)]
)
def test_words_of_an_ngram_follow_the_evaluation_rows(lengths: list[int], size: int) -> None:
    assert gram_size(np.array(lengths)) == size


def test_several_sets_with_their_own_sizes() -> None:
    short = prompts(*(sentence(9, seed=i) for i in range(20)))
    long = pl.DataFrame({"question": [sentence(60, seed=50 + i) for i in range(20)]})
    rows = prompts(f"x {short['prompt'][7]} y", f"x {long['question'][3]} y", sentence(40, seed=99))

    index = EvaluationIndex({"short": short, "long": long})
    _, rejects = decontaminate(rows, {"short": short, "long": long})

    assert index.sizes == {"short": 9, "long": 13}
    assert rejects["value"].to_list() == ["short:7", "long:3"]


def test_neighbours_by_embedding_are_removed_when_asked_for() -> None:
    rows = prompts("How can I bake bread at home?", "What is the capital of Peru?")
    exam = {"exam": prompts("How do I bake bread at home?")}

    kept, rejects = decontaminate(rows, exam, similarity=0.9)

    assert decontaminate(rows, exam).kept.height == 2
    assert kept["prompt"].to_list() == ["What is the capital of Peru?"]
    assert rejects.select("rule", "value", "matched_text").rows() == [
        ("evaluation_neighbour", "exam:0", "How do I bake bread at home?")
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"column": "promt"}, r"no column 'promt' \(did you mean 'prompt'\?\)"),
        ({"n": 0}, "n 0, expected at least 1 word"),
        ({"min_overlap": 2.0}, "min_overlap 2.0, expected a share"),
        ({"similarity": 0.0}, "similarity 0.0, expected a cosine"),
        ({"against": {}}, "no evaluation set"),
        ({"against": {"exam": pl.DataFrame({"answer": ["x"]})}}, "exam: no column 'prompt', nor prompt, question"),
    ],
)
def test_wrong_options_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        decontaminate(prompts("a"), **{"against": {"exam": prompts("b")}, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize("texts", [[], ["!!!"], ["a"], ["a", "b"] * 5000])
def test_few_and_many_short_texts(texts: list[str]) -> None:
    kept, rejects = decontaminate(prompts(*texts), {"exam": prompts("b", "")})

    assert rejects.height == texts.count("b")
    assert kept.height == len(texts) - texts.count("b")


def test_command_reads_files_and_folders_and_names_what_matched(tmp_path: Path) -> None:
    folder = tmp_path / "exams"
    folder.mkdir()
    prompts(sentence(30, seed=4), QUESTION).write_ndjson(folder / "one.jsonl")
    pl.DataFrame({"question": [sentence(30, seed=6)]}).write_parquet(tmp_path / "two.parquet")
    rows = prompts("free", f"x {QUESTION}", sentence(30, seed=6), "").with_columns(id=pl.Series([5, 6, 7, 8]))
    rows.write_parquet(tmp_path / "in.parquet")

    summary = run_decontaminate(
        tmp_path / "in.parquet", tmp_path / "out.parquet", against=[folder, tmp_path / "two.parquet"]
    )

    assert pl.read_parquet(tmp_path / "out.parquet")["id"].to_list() == [5]
    rejects = pl.read_parquet(rejects_path(tmp_path / "out.parquet"))
    assert rejects.columns == ["row", "rule", "value", "reason"]
    assert rejects.select("row", "value").rows() == [(1, "one.jsonl:1"), (2, "two.parquet:0"), (3, "prompt")]
    assert QUESTION in rejects["reason"][1 - 1]
    assert "one.jsonl (13-grams" in summary


def test_command_matches_texts_shorter_than_the_ngram_whole(tmp_path: Path) -> None:
    prompts("What is love?", "!!!").write_parquet(tmp_path / "exam.parquet")
    prompts("what is LOVE", "love", "What is love, baby?", "?!").write_parquet(tmp_path / "in.parquet")

    run_decontaminate(tmp_path / "in.parquet", tmp_path / "out.parquet", against=[tmp_path / "exam.parquet"])

    rejects = pl.read_parquet(rejects_path(tmp_path / "out.parquet"))
    assert rejects.select("row", "rule").rows() == [(0, "evaluation_ngram")]
    assert pl.read_parquet(tmp_path / "out.parquet").height == 3


def test_command_refuses_an_empty_folder(tmp_path: Path) -> None:
    prompts("a").write_parquet(tmp_path / "in.parquet")
    (tmp_path / "nothing").mkdir()

    with pytest.raises(InputError, match=r"a folder with no .jsonl"):
        run_decontaminate(tmp_path / "in.parquet", tmp_path / "out.parquet", against=[tmp_path / "nothing"])


def test_real_prompts_against_themselves_are_all_found(shared_data: Path) -> None:
    prompts = pl.read_ndjson(shared_data / "coconot/coconot_eval.jsonl").select("prompt")
    others = pl.read_ndjson(shared_data / "self_instruct/seed_tasks.jsonl").select(prompt="instruction")

    assert decontaminate(prompts, {"coconot": prompts}, max_rows=10_000).kept.height == 0
    assert decontaminate(others, {"coconot": prompts}).kept.height == others.height


def test_accents_of_their_own_are_found_and_quoted() -> None:
    text = "l'été dernier nous avons visité la forêt près du vieux château à côté de la rivière"
    apart = unicodedata.normalize("NFD", text)

    for rows, exam in ((prompts(apart), prompts(text)), (prompts(text), prompts(apart))):
        rejects = decontaminate(rows, {"exam": exam}).rejects
        assert rejects["matched_text"].to_list() == [text]


def test_a_question_that_a_set_repeats_is_no_template() -> None:
    exam = prompts(*[QUESTION] * 11, QUESTION.upper(), sentence(30, seed=2))

    _, rejects = decontaminate(prompts(f"x {QUESTION}"), {"exam": exam})

    assert rejects.select("row", "matched_row", "score").rows() == [(0, 0, 1.0)]
    assert EvaluationIndex({"exam": exam}).templates == {"exam": 0}


def test_a_set_without_text_is_an_error_and_rows_without_it_are_counted(tmp_path: Path) -> None:
    exam = prompts(None, "").with_columns(question=pl.lit(QUESTION))
    with pytest.raises(InputError, match="exam: found no text in its 2 rows"):
        decontaminate(prompts(QUESTION), {"exam": exam})

    lines = [json.dumps({"prompt": text}) for text in (QUESTION, None)]
    (tmp_path / "exam.jsonl").write_text("\n".join([*lines, '{"prompt": "\\ud800"}', lines[0]]) + "\n")
    prompts("a", QUESTION).write_parquet(tmp_path / "in.parquet")
    summary = run_decontaminate(
        tmp_path / "in.parquet", tmp_path / "out.parquet", against=[tmp_path / "exam.jsonl"]
    )
    assert "2 of its rows have no text to compare with" in summary
    assert pl.read_parquet(rejects_path(tmp_path / "out.parquet"))["value"].to_list() == ["exam.jsonl:0"]
