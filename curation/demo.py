"""Where the quickstart is: the recipe that ``make demo`` and ``curation demo`` run."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from curation.errors import InputError

__all__ = ["DEFAULT_WORKSPACE", "quickstart_recipe"]

DEFAULT_WORKSPACE: Final = "workspaces/quickstart"


def quickstart_recipe() -> Path:
    """The quickstart recipe of this checkout.

    Raises:
        InputError: when the package was installed without its examples.
    """
    recipe = Path(__file__).resolve().parent.parent / "examples" / "quickstart.yaml"
    if not recipe.is_file():
        raise InputError("the examples are not installed with the package: run this from a clone, or name a recipe")
    return recipe
