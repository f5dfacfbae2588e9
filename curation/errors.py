"""The errors a user can meet. Nothing else belongs here.

    CurationError
    ├── InputError        the user's file, rows or arguments are wrong          exit status 2
    │   └── RecipeError   the recipe is wrong                                   exit status 2
    ├── WorkspaceError    the workspace cannot be read, written or locked       exit status 1
    ├── ModelError        a model cannot be loaded or gave what it must not     exit status 1
    ├── EngineError       the Ray cluster cannot be used as it stands           exit status 1
    ├── MissingExtraError a package of an optional extra is not installed       exit status 1
    ├── GateError         a gate refused a publication                          exit status 1
    ├── PushError         the Hub or another place refused a dataset            exit status 1
    ├── BudgetReached     the run stopped before max_cost was exceeded          exit status 1
    └── InterruptedRun    the user stopped the run; what was done is kept       exit status 130

Each message is one line that says where (file, row, field), what was found, what was expected and what
to do. None carries the text of a prompt or an answer: ids and positions only.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Final

__all__ = [
    "KEPT",
    "BudgetReached",
    "CurationError",
    "EngineError",
    "GateError",
    "InputError",
    "InterruptedRun",
    "MissingExtraError",
    "ModelError",
    "PushError",
    "RecipeError",
    "WorkspaceError",
    "closest",
    "missing_file_system",
]


_LONGEST: Final = 1_800


KEPT: Final = "What is finished is kept, and the same command goes on from there"
"""The end of a message about a step that could not go on."""


class CurationError(Exception):
    """Any error that this package raises on purpose."""

    exit_status = 1

    def __str__(self) -> str:
        # What is quoted comes from files and servers: a line break or a terminal's control character may be in it.
        text = "".join(map(_shown, " ".join(super().__str__().splitlines())))
        more = len(text) - _LONGEST
        return text if more <= 0 else f"{text[:_LONGEST]}… ({more:,} characters more)"


class InputError(CurationError):
    """The user's input is wrong."""

    exit_status = 2


class RecipeError(InputError):
    """The recipe is wrong."""


class WorkspaceError(CurationError):
    """The workspace cannot be used as it stands."""


class ModelError(CurationError):
    """A model cannot be loaded, or answered with something unusable."""


class EngineError(CurationError):
    """The cluster that was to compute cannot be reached, or has no room."""


class MissingExtraError(CurationError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"{package} is not installed, and this needs it: install it with "
            f"`pip install 'preference-curation[{extra}]'`"
        )


def missing_file_system(url: str, error: ImportError) -> CurationError:
    """What fsspec's lack of a package for a URL means for the user."""
    if url.startswith(("s3:", "s3a:")):
        return MissingExtraError("s3fs", "s3")
    return InputError(f"{url}: {error}")


class GateError(CurationError):
    """A gate refused a publication."""


class PushError(CurationError):
    """The place that a dataset was to be pushed to refused it, or could not be reached."""


class BudgetReached(CurationError):
    """The next answer could cost more than is left; what was paid for is kept."""


class InterruptedRun(CurationError):
    """The user stopped the run."""

    exit_status = 130

    @classmethod
    def after(cls, step: str, *, done: int, total: int) -> InterruptedRun:
        """In a step of which so many rows are done."""
        return cls(
            f"stopped in {step} after {done:,} of {total:,} rows; they are kept, and the same command goes on from "
            f"there"
        )


def _shown(character: str) -> str:
    return character if character.isprintable() else ascii(character)[1:-1]


def closest(word: str, allowed: Iterable[str]) -> str:
    """A hint such as ``" (did you mean 'rewards'?)"``, or an empty string where nothing is close."""
    matches = difflib.get_close_matches(word, list(allowed), n=1)
    return f" (did you mean {matches[0]!r}?)" if matches else ""
