"""What a person sees of a long step in the terminal."""

from __future__ import annotations

import io
import itertools
from types import SimpleNamespace

import pytest
from rich.console import Console

from curation.progress import LogProgress, RichProgress


def progress() -> tuple[RichProgress, io.StringIO]:
    seen = io.StringIO()
    return RichProgress(Console(file=seen, width=80)), seen


def _fail_after(shown: RichProgress, rows: int) -> None:
    with shown.step("ches", None) as bar:
        if rows:
            bar.advance(rows)
        raise ValueError("wrong")


def test_a_narrow_terminal_cuts_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(0.0, 1.5)
    monkeypatch.setattr("curation.progress.time", SimpleNamespace(monotonic=lambda: next(clock)))
    shown, seen = progress()
    with shown.step("policy_stats", 147) as bar:
        bar.advance(147, tokens=14_149)
    assert "147/147" in seen.getvalue()
    assert "98 rows/s · 9,433 tokens/s" in seen.getvalue()
    assert "…" not in seen.getvalue()


@pytest.mark.parametrize(("rows", "said"), [(0, "0"), (3, "0.3"), (32, "3.2"), (98, "9.8"), (104, "10")])
def test_a_slow_step_is_not_said_to_stand(monkeypatch: pytest.MonkeyPatch, rows: int, said: str) -> None:
    clock = itertools.count(0.0, 10.0)
    monkeypatch.setattr("curation.progress.time", SimpleNamespace(monotonic=lambda: next(clock)))
    shown, seen = progress()
    with shown.step("judgements", 500) as bar:
        bar.advance(rows)
    assert f" {said} rows/s" in seen.getvalue()
    lines: list[str] = []
    with LogProgress(lines.append).step("judgements", max(rows, 1)) as log:
        log.advance(rows)
    assert all(line.endswith(f" {said} rows/s") for line in lines)
    assert bool(lines) == bool(rows)


def test_a_step_of_unknown_length_says_nothing_of_what_is_left() -> None:
    shown, seen = progress()
    with shown.step("ches", None) as bar:
        bar.advance(1_500)
    assert "1,500 rows" in seen.getvalue()
    assert "left" not in seen.getvalue()


@pytest.mark.parametrize(("rows", "bars"), [(0, 0), (3, 1)])
def test_of_a_step_that_never_began_there_is_no_bar_beside_its_error(rows: int, bars: int) -> None:
    shown, seen = progress()
    with pytest.raises(ValueError, match="wrong"):
        _fail_after(shown, rows)
    assert seen.getvalue().count("ches") == bars
