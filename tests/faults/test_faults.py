"""Faults at random moments of a real run; ``benchmarks/faults.py`` injects more of them."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from tests.faults.injections import FAULTS
from tests.faults.place import Outcome
from tests.faults.trial import trial, undisturbed

SUITE = ("kill -9 of the run", "Ctrl-C twice")
LONGEST = 45.0
"""Seconds after which no further fault is begun: a slow machine tries fewer, and says so."""


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, float, int]:
    return undisturbed(tmp_path_factory.mktemp("right"))


def test_every_fault_of_the_suite_is_one() -> None:
    assert set(SUITE) <= set(FAULTS)


@pytest.mark.slow
def test_the_outcome_after_a_fault_is_the_undisturbed_one(
    tmp_path: Path, right: tuple[Outcome, float, int]
) -> None:
    outcome, seconds, port = right
    assert outcome.published
    assert outcome.tables["pairs"].height > 10
    started = time.monotonic()
    for tried, name in enumerate(SUITE):
        if tried and time.monotonic() - started > LONGEST:
            break
        found = trial(tmp_path / str(tried), name, right=outcome, seconds=seconds, port=port, seed=1)
        assert found.wrong == [], found
        shutil.rmtree(tmp_path / str(tried))
