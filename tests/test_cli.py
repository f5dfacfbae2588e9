"""The command line as a person meets it: its own process, its exit status, and what it prints."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from typer.testing import CliRunner

from curation.cli import app
from curation.workspace import Workspace
from tests.child_processes import HEARS_CTRL_C, started
from tests.stages.conftest import sentences

COMMANDS = (
    "run", "demo", "report", "explain", "ui", "ches", "rewards", "strength", "structure", "label-noise", "refusals",
    "negatives", "dedup", "decontaminate", "select", "judge", "push", "review", "status", "forget", "repair",
)  # fmt: skip
PLAIN: dict[str, Any] = {
    "name": "plain",
    "sources": [{"path": "pairs.jsonl"}],
    "encoder": None,
    "rewards": [],
    "refusals": None,
    "policy": None,
}


class Shell:
    """Runs commands in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "curation.cli", *map(str, arguments)],
            cwd=self.folder, env=os.environ | {"COLUMNS": "200"} | environment,
            capture_output=True, text=True, check=False, timeout=900,
        )  # fmt: skip

    def write(self, name: str, content: str | bytes | list[dict[str, Any]]) -> Path:
        path = self.folder / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif isinstance(content, str):
            path.write_text(content)
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in content))
        return path

    def recipe(self, **changes: Any) -> Path:
        return self.write("recipe.yaml", yaml.safe_dump(PLAIN | changes))

    def fails(self, status: int, *arguments: str | Path) -> str:
        """The one line that a failing command prints."""
        done = self(*arguments)
        assert done.returncode == status, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, done.stderr
        return lines[0]

    def rejected(self, rows: list[dict[str, Any]], **changes: Any) -> dict[str, str]:
        """The rejects of a run over these rows: row id to rule. The run itself ends well."""
        self.write("pairs.jsonl", rows)
        done = self("run", self.recipe(gates={"min_rows": 0}, **changes), "--workspace", "ws")
        assert "Traceback" not in done.stderr, done.stderr
        rejects = Workspace(self.folder / "ws").read("rejects")
        assert (rejects["reason"].str.len_chars() > 0).all()
        return dict(rejects.select("row_id", "rule").iter_rows())


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A folder in which a plain recipe has run."""
    shell = Shell(tmp_path_factory.mktemp("ran"))
    shell.write("pairs.jsonl", sentences(6))
    recipe = shell.recipe(publish={"datasets": ["preference", "preference_unpaired"]})
    done = shell("run", recipe, "--workspace", "ws")
    assert done.returncode == 0, done.stderr
    return shell


# ---- help and errors -----------------------------------------------------------------------------------------


def test_help_lists_every_command(shell: Shell) -> None:
    done = shell("--help")
    assert done.returncode == 0
    listed = {line.strip("│ ").split(" ")[0] for line in done.stdout.splitlines()}
    assert set(COMMANDS) <= listed


@pytest.mark.parametrize(("group", "command"), [("refusals", "detect"), ("rewards", "score"), ("review", "write")])
def test_help_of_a_group_leads_to_the_options_of_its_first_command(shell: Shell, group: str, command: str) -> None:
    assert f" {group} {command} --help" in " ".join(shell(group, "--help").stdout.split())


def test_no_arguments_show_the_help(shell: Shell) -> None:
    done = shell()
    # click moved it from standard output to standard error in 8.2.
    assert "Usage" in done.stdout + done.stderr


def test_the_version_is_that_of_the_package(shell: Shell) -> None:
    done = shell("--version")
    assert (done.returncode, done.stdout) == (0, f"preference-curation {version('preference-curation')}\n")


def test_an_unknown_option_is_a_wrong_input(shell: Shell) -> None:
    assert shell("run", "recipe.yaml", "--wrokspace", "x").returncode == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("select", "in.jsonl", "-o", "out.jsonl", "--rows", "5", "--method", "diverse"),
            "'diverse' is not one of",
        ),
        (("select", "in.jsonl", "-o", "out.jsonl", "--method", "dsir", "--rows", "x"), 'a whole number, found "x"'),
        (("dedup", "in.jsonl", "-o", "out.jsonl", "--column", "c", "--threshold", "2"), 'equal to 1, found "2"'),
        (("rewards", "train", "in.jsonl", "-o", "out", "--seed", "x"), 'a whole number, found "x"'),
        (("ui", "--port", "x"), "Invalid value for '--port': expected a whole number"),
    ],
)
def test_a_wrong_value_is_said_in_our_words(arguments: tuple[str, ...], said: str) -> None:
    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})
    assert result.exit_code == 2
    assert said in result.output
    assert "Value error" not in result.output
    assert "Input should" not in result.output


def test_the_list_of_commands_cuts_no_sentence() -> None:
    result = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "80"})
    assert "..." not in result.output.removeprefix("Usage: curation [OPTIONS] COMMAND [ARGS]...")


def test_an_error_is_one_line_and_debug_shows_where_it_was(shell: Shell) -> None:
    assert "nowhere.yaml: cannot be read" in shell.fails(2, "run", "nowhere.yaml")
    assert "Traceback" in shell("--debug", "run", "nowhere.yaml").stderr


# ---- run, report, explain ------------------------------------------------------------------------------------


def test_run_prints_what_was_kept_and_where_it_is(shell: Shell) -> None:
    shell.write("pairs.jsonl", [*sentences(4), sentences(1)[0]])
    done = shell("run", shell.recipe(), "--workspace", "ws")
    assert done.returncode == 0, done.stderr
    for expected in ("at the start", "duplicate_pair", "ws/datasets/preference", "ws/report.html"):
        assert expected in done.stdout, done.stdout
    assert (shell.folder / "ws" / "report.html").is_file()


def test_a_second_run_says_that_there_is_nothing_to_do(ran: Shell) -> None:
    done = ran("run", "recipe.yaml", "--workspace", "ws")
    assert done.returncode == 0
    assert "Nothing to do" in done.stdout


def test_a_trial_is_kept_apart(ran: Shell) -> None:
    done = ran("run", "recipe.yaml", "--workspace", "ws", "--limit", "2")
    assert done.returncode == 0, done.stderr
    assert "ws/trial/datasets/preference" in done.stdout
    assert Workspace(ran.folder / "ws").read("preference").height == 6


def test_a_refusing_gate_is_exit_status_1_and_says_by_how_much(shell: Shell) -> None:
    shell.write("pairs.jsonl", sentences(3))
    line = shell.fails(1, "run", shell.recipe(gates={"min_rows": 5}), "--workspace", "ws")
    assert "min_rows: 3 rows; allowed is at least 5, 2 too few" in line
    assert not (shell.folder / "ws" / "datasets" / "preference").exists()


def test_report_prints_where_it_is(ran: Shell) -> None:
    done = ran("report", "ws")
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_file()


def test_explain_tells_of_a_pair_without_its_texts(ran: Shell) -> None:
    pair = Workspace(ran.folder / "ws").read("pairs")["pair_id"][0]
    done = ran("explain", "ws", pair[:12])
    assert done.returncode == 0, done.stderr
    assert pair in done.stdout
    assert "Tell me something" not in done.stdout
    assert "Tell me something" in ran("explain", "ws", pair, "--show-text").stdout


def test_explain_tells_of_an_input_row(ran: Shell) -> None:
    told = ran("explain", "ws", "pairs#1").stdout
    assert "pairs#1" in told
    assert "published in preference_unpaired" in told
    assert "People have known" not in told


def test_explain_does_not_know_every_identifier(ran: Shell) -> None:
    assert "has no prompt, candidate, pair or input row 'ffffffff'" in ran.fails(2, "explain", "ws", "ffffffff")


@pytest.mark.parametrize("command", [("report", "typo"), ("explain", "typo", "ffffffff"), ("ui", "typo")])
def test_a_misspelt_workspace_is_not_made(shell: Shell, command: tuple[str, ...]) -> None:
    assert "is no workspace" in shell.fails(2, *command)
    assert not (shell.folder / "typo").exists()


def test_ui_needs_a_free_port(ran: Shell) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        line = ran.fails(2, "ui", "ws", "--port", port)
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in line


# ---- a wrong recipe ------------------------------------------------------------------------------------------


def test_a_misspelt_recipe_key_is_named_with_the_right_one(shell: Shell) -> None:
    shell.write("pairs.jsonl", sentences(2))
    line = shell.fails(2, "run", shell.recipe(gates={"min_row": 1}))
    assert "unknown key 'gates.min_row' (did you mean 'min_rows'?)" in line


def test_a_source_that_is_not_there_is_named(shell: Shell) -> None:
    assert "pairs.jsonl" in shell.fails(2, "run", shell.recipe(), "--workspace", "ws")


# ---- wrong files ---------------------------------------------------------------------------------------------


def test_an_empty_file_is_refused(shell: Shell) -> None:
    shell.write("pairs.jsonl", "")
    assert "pairs.jsonl" in shell.fails(2, "run", shell.recipe(), "--workspace", "ws")


def test_half_a_json_line_is_named_by_its_number(shell: Shell) -> None:
    whole = json.dumps(sentences(1)[0])
    shell.write("pairs.jsonl", f'{whole}\n{{"prompt": "ab')
    line = shell.fails(2, "run", shell.recipe(), "--workspace", "ws")
    assert "pairs.jsonl" in line
    assert "line 2" in line


def test_a_torn_parquet_is_refused(shell: Shell) -> None:
    path = shell.folder / "pairs.parquet"
    pl.DataFrame(sentences(5)).write_parquet(path)
    path.write_bytes(path.read_bytes()[:-20])
    line = shell.fails(2, "run", shell.recipe(sources=[{"path": "pairs.parquet"}]), "--workspace", "ws")
    assert "pairs.parquet" in line


def test_a_missing_column_is_named_with_those_that_are_there(shell: Shell) -> None:
    shell.write("pairs.jsonl", [{"ask": "Why?", "better": "So.", "worse": "No."}])
    line = shell.fails(2, "run", shell.recipe(), "--workspace", "ws")
    assert "ask, better, worse" in line


# ---- wrong rows: the run ends well, and the row is in the rejects --------------------------------------------


@pytest.mark.parametrize(
    ("row", "rule"),
    [
        ({"prompt": "p", "chosen": "same", "rejected": "same"}, "chosen_equals_rejected"),
        ({"prompt": "p", "chosen": "", "rejected": "b"}, "empty_response"),
        ({"prompt": "p", "chosen": " \n", "rejected": "b"}, "empty_response"),
        ({"prompt": "p", "chosen": None, "rejected": "b"}, "null_response"),
        ({"prompt": [{"role": "oracle", "content": "p"}], "chosen": "a", "rejected": "b"}, "unknown_role"),
    ],
)
def test_a_wrong_row_is_rejected_with_a_reason(shell: Shell, row: dict[str, Any], rule: str) -> None:
    assert shell.rejected([*_shaped(row), row])["pairs#2"] == rule


def _shaped(like: dict[str, Any]) -> list[dict[str, Any]]:
    """Two good rows with prompts of the same type."""
    good: list[dict[str, Any]] = [dict(row) for row in sentences(2)]
    if isinstance(like["prompt"], list):
        for row in good:
            row["prompt"] = [{"role": "user", "content": row["prompt"]}]
    return good


def test_one_candidate_only_gives_no_pair_and_says_so(shell: Shell) -> None:
    rows = [{"prompt": "p", "responses": ["only"], "scores": [1.0]}]
    rows += [{"prompt": f"q{i}", "responses": ["good", "bad"], "scores": [2.0, 1.0]} for i in range(2)]
    pairs = {"strategies": ["best_vs_worst"], "score": "provided"}
    assert "one_candidate" in set(shell.rejected(rows, pairs=pairs).values())


def test_scores_that_are_not_numbers_are_rejected_and_not_ranked(shell: Shell) -> None:
    text = '{"prompt": "p", "responses": ["a", "b"], "scores": [NaN, 1.0]}\n'
    shell.write("pairs.jsonl", text + '{"prompt": "q", "responses": ["a", "b"], "scores": [2.0, 1.0]}\n')
    recipe = shell.recipe(pairs={"strategies": ["best_vs_worst"], "score": "provided"})
    done = shell("run", recipe, "--workspace", "ws")
    assert done.returncode == 0, done.stderr
    assert Workspace(shell.folder / "ws").read("pairs").height == 1


def test_equal_prompts_with_different_answers_are_one_prompt(shell: Shell) -> None:
    rows = [{"prompt": "p", "chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(3)]
    assert shell.rejected(rows) == {}
    space = Workspace(shell.folder / "ws")
    assert (space.read("prompts").height, space.read("pairs").height) == (1, 3)


def test_nul_is_rejected_since_many_readers_end_a_text_there(shell: Shell) -> None:
    rows = [{"prompt": "p", "chosen": "a\0c", "rejected": "b"}, *sentences(1)]
    assert shell.rejected(rows) == {"pairs#0": "nul_character"}


def test_a_very_long_answer_is_kept_whole(shell: Shell) -> None:
    rows = [{"prompt": "p", "chosen": "long " * 20_000, "rejected": "b"}]
    assert shell.rejected(rows) == {}
    lengths = Workspace(shell.folder / "ws").read("candidates")["response"].str.len_chars()
    assert lengths.max() == 100_000


# ---- a workspace that cannot be used -------------------------------------------------------------------------


def test_a_workspace_of_a_newer_version_is_left_alone(shell: Shell) -> None:
    shell.write("pairs.jsonl", sentences(2))
    (shell.folder / "ws").mkdir()
    shell.write("ws/workspace.json", '{"format_version": 99}')
    line = shell.fails(1, "run", shell.recipe(), "--workspace", "ws")
    assert "written by a newer version" in line
    assert not (shell.folder / "ws" / "tables").exists()


@pytest.mark.parametrize("place", ["/proc/none", "file/below"])
def test_a_workspace_that_cannot_be_written_is_named(shell: Shell, place: str) -> None:
    shell.write("pairs.jsonl", sentences(2))
    shell.write("file", "not a folder")
    line = shell.fails(1, "run", shell.recipe(), "--workspace", place)
    assert "cannot" in line
    assert place in line


# ---- commands on files ---------------------------------------------------------------------------------------


def test_strength_adds_its_columns(shell: Shell) -> None:
    rows = [{"id": i, "chosen_rewards": [1.0 + i, 2.0], "rejected_rewards": [0.0, 0.5]} for i in range(4)]
    shell.write("in.jsonl", rows)
    done = shell("strength", "in.jsonl", "-o", "out.parquet")
    assert done.returncode == 0, done.stderr
    out = pl.read_parquet(shell.folder / "out.parquet")
    assert out["id"].to_list() == [0, 1, 2, 3]
    assert {"strength_mean", "strength_std", "agreement", "label_probability", "strength_band"} <= set(out.columns)


def test_dedup_keeps_the_first_and_names_it(shell: Shell) -> None:
    shell.write("in.jsonl", [{"text": "one"}, {"text": "two"}, {"text": "one"}])
    done = shell("dedup", "in.jsonl", "-o", "out.jsonl", "--column", "text")
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["text"] for line in (shell.folder / "out.jsonl").read_text().splitlines()] == [
        "one",
        "two",
    ]
    rejects = pl.read_parquet(shell.folder / "out.rejects.parquet")
    assert rejects["row"].to_list() == [2]


def test_refusals_tell_a_refusal_from_an_answer(shell: Shell) -> None:
    shell.write(
        "in.jsonl", [{"response": "I'm sorry, but I can't help with that."}, {"response": "Paris is in France."}]
    )
    done = shell("refusals", "in.jsonl", "-o", "out.parquet")
    assert done.returncode == 0, done.stderr
    assert pl.read_parquet(shell.folder / "out.parquet")["refusal_class"].to_list() == [
        "full_refusal",
        "compliance",
    ]


def test_rewards_add_one_entry_a_head(shell: Shell) -> None:
    shell.write("in.jsonl", sentences(3))
    done = shell("rewards", "in.jsonl", "-o", "out.parquet", "--model", "embedded")
    assert done.returncode == 0, done.stderr
    out = pl.read_parquet(shell.folder / "out.parquet")
    assert out["chosen_rewards"].list.len().min() >= 5


def test_ches_adds_its_columns(shell: Shell) -> None:
    shell.write("in.jsonl", sentences(3))
    done = shell("ches", "in.jsonl", "-o", "out.parquet", "--policy", "embedded")
    assert done.returncode == 0, done.stderr
    assert {"ches", "ln_ches", "difficulty"} <= set(pl.read_parquet(shell.folder / "out.parquet").columns)


def test_negatives_print_the_waterfall(shell: Shell) -> None:
    shell.write("in.jsonl", [{"anchor": r["prompt"], "positive": r["chosen"]} for r in sentences(8)])
    done = shell("negatives", "in.jsonl", "-o", "out.parquet", "--num-negatives", "2")
    assert done.returncode == 0, done.stderr
    assert "relative_margin" in done.stdout


@pytest.mark.parametrize("command", ["ches", "rewards", "refusals", "negatives", "strength"])
def test_a_file_without_the_columns_is_refused(shell: Shell, command: str) -> None:
    shell.write("in.jsonl", [{"nothing": 1}])
    assert "nothing" in shell.fails(2, command, "in.jsonl", "-o", "out.parquet")
    assert not (shell.folder / "out.parquet").exists()


def test_an_output_of_another_kind_is_refused_before_any_work(shell: Shell) -> None:
    shell.write("in.jsonl", sentences(1))
    assert ".parquet" in shell.fails(2, "refusals", "in.jsonl", "-o", "out.xlsx")


WAITING = """
import time
from curation import cli

@cli.app.command()
def wait() -> None:
    print("ready", flush=True)
    time.sleep(3600)

cli.main()
"""


WHILE_TOLD = """
from curation import cli

say = cli._say

def say_late(error):
    cli._say = say
    signal.raise_signal(signal.SIGINT)

cli._say = say_late

@cli.app.command()
def wait() -> None:
    signal.raise_signal(signal.SIGINT)

cli.main()
"""


EACH_TIME_BEFORE_IT_IS_TOLD = """
from curation import cli

class Interrupted(cli.InterruptedRun):
    def __init__(self, said):
        signal.raise_signal(signal.SIGINT)
        super().__init__(said)

cli.InterruptedRun = Interrupted

@cli.app.command()
def wait() -> None:
    signal.raise_signal(signal.SIGINT)

cli.main()
"""


@pytest.mark.parametrize("again", [WHILE_TOLD, EACH_TIME_BEFORE_IT_IS_TOLD])
def test_another_ctrl_c_before_the_first_was_told_is_told(again: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", HEARS_CTRL_C + again, "wait"], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 130
    assert ended.stderr.startswith("error: stopped: give the same command again;"), ended.stderr
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("times", [1, 2, 6])
def test_ctrl_c_says_what_to_do(times: int) -> None:
    command = [sys.executable, "-c", HEARS_CTRL_C + WAITING, "wait"]
    with started(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        for _ in range(times):
            process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=900)
    assert process.returncode == 130
    assert said.endswith("a run goes on from what it has finished, and a file is written whole or not at all\n"), (
        said
    )
