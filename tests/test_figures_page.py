"""The figures page and the README's table are what ``make bench`` makes of its record."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import _all

    return _all


@pytest.fixture
def page(bench: ModuleType) -> ModuleType:
    return sys.modules["_page"]


def record() -> dict[str, object]:
    found: dict[str, object] = json.loads((ROOT / "benchmarks" / "figures.json").read_text())
    return found


def test_the_readme_quotes_what_the_page_has(page: ModuleType) -> None:
    readme = (ROOT / "README.md").read_text()
    assert page.with_table(readme, page.readme_table(record())) == readme
    assert "|" in readme.partition(page.START)[2].partition(page.END)[0]


def test_the_page_is_what_the_record_says(page: ModuleType) -> None:
    assert page.figures_page(record()) == (ROOT / "docs" / "figures.md").read_text()


def test_every_longer_run_names_its_command_and_stands_on_the_page() -> None:
    page = (ROOT / "docs" / "figures.md").read_text()
    for path in sorted((BENCHMARKS / "longer").glob("*.json")):
        one = json.loads(path.read_text())
        assert (BENCHMARKS / one["script"]).exists(), path
        assert f"`{one['command']}`" in page, path


def test_every_size_is_of_a_script_that_is_there(bench: ModuleType) -> None:
    assert {name for name in bench.SIZES if not (BENCHMARKS / f"{name}.py").exists()} == set()
    scripts = {path.stem for path in BENCHMARKS.glob("[!_]*.py")}
    assert {job.script.stem for job in bench.jobs(full=False, only=[])} == scripts


@pytest.mark.parametrize(
    ("code", "status", "note"),
    [
        ("print('fine')", "done", ""),
        ("from _figures import skip; skip('no data')", "skipped", "no data"),
        ("raise SystemExit(3)", "failed", "status 3: it said nothing"),
        ("import time; time.sleep(60)", "too long", "stopped after 2 s"),
    ],
)
def test_a_script_that_does_not_get_through_is_marked(
    bench: ModuleType, tmp_path: Path, code: str, status: str, note: str
) -> None:
    script = tmp_path / "one.py"
    script.write_text(f"import sys; sys.path.insert(0, {str(BENCHMARKS)!r})\n{code}\n")
    outcome = bench.run(bench.Job(script, ()), tmp_path, limit=2 if status == "too long" else 60)
    assert (outcome.status, outcome.note) == (status, note)


def test_a_script_writes_its_figures_with_goal_and_ratio(tmp_path: Path) -> None:
    script = tmp_path / "speed.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(BENCHMARKS)!r})\n"
        "from _figures import FIGURES\n"
        "FIGURES.add('time', 2.0, 's', peer='loop', peer_value=5.0, better='lower', ratio_at_least=3)\n"
        "FIGURES.add('lost', 0, 'rows', peer='other', peer_value=7, better='lower', at_most=0)\n"
        "FIGURES.write()\n"
    )
    subprocess.run([sys.executable, str(script)], check=True, env={"BENCH_RESULTS": str(tmp_path)})
    told = json.loads((tmp_path / "speed.json").read_text())
    first, second = told["figures"]
    assert (first["ratio"], first["goal"], first["reached"]) == (2.5, "3 times", False)
    assert (second["ratio"], second["reached"]) == (None, True)
    assert told["machine"]["python"]


def test_a_script_that_is_run_again_takes_the_place_of_its_own_results_alone(bench: ModuleType) -> None:
    def result(command: str, value: int) -> dict[str, object]:
        return {"script": command.split()[1].rpartition("/")[2], "command": command, "figures": value}

    before = [
        result("python benchmarks/a.py --rows 10", 1),
        result("python benchmarks/b.py server --rows 5", 2),
        result("python benchmarks/b.py vllm", 3),
    ]
    again = result("python benchmarks/b.py server --rows 9", 4)
    assert bench.merged(before, [again]) == [before[0], again, before[2]]
