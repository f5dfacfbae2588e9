"""Where the quickstart is: the recipe that ``make demo`` and ``curation demo`` run."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from curation.errors import InputError

__all__ = ["DEFAULT_WORKSPACE", "quickstart_recipe"]

DEFAULT_WORKSPACE: Final = "workspaces/quickstart"


def quickstart_recipe() -> Path:
    """The quickstart recipe: of the checkout, or as it was installed with the package.

    Raises:
        InputError: when neither has it.
    """
    package = Path(__file__).resolve().parent
    for folder in (package.parent, package):
        recipe = folder / "examples" / "quickstart.yaml"
        if recipe.is_file():
            return recipe
    raise InputError(f"no examples/quickstart.yaml in {package}: install the package again, or name a recipe")
