"""Loading without the libraries' own progress bars: ours is the one that a person should see."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["no_progress_bar"]


@contextmanager
def no_progress_bar() -> Iterator[None]:
    """Turn transformers' progress bars off inside the block."""
    from transformers.utils import logging as module

    logging: Any = module
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
