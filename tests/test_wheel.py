"""What ``pip install .`` puts into a user's environment: the weights, templates and examples too."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the wheel's files, as ``site-packages`` would."""
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", out], cwd=ROOT, check=True, timeout=900
    )
    (wheel,) = out.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(out / "site")
    return out / "site"


@pytest.mark.parametrize("package", ["curation", "schemas", "assets"])
def test_the_wheel_holds_every_file_of_a_package(installed: Path, package: str) -> None:
    files = {path.relative_to(ROOT) for path in (ROOT / package).rglob("*") if path.is_file()}
    files = {path for path in files if "__pycache__" not in path.parts and path.name != ".gitignore"}
    assert files
    assert sorted(str(path) for path in files if not (installed / path).is_file()) == []


def test_the_quickstart_is_found_without_a_checkout(installed: Path, tmp_path: Path) -> None:
    code = (
        "from curation.demo import quickstart_recipe; from curation.recipe import load_recipe;"
        "path = quickstart_recipe(); print(path);"
        "print(*(source.path for source in load_recipe(path).sources), sep='\\n')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(installed)},
        capture_output=True, text=True, check=True, timeout=900,
    )  # fmt: skip
    recipe, *sources = (Path(line) for line in done.stdout.split())
    assert recipe == installed / "curation" / "examples" / "quickstart.yaml"
    assert sources
    assert all((recipe.parent / source).is_file() for source in sources)
