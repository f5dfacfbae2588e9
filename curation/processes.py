"""Whether a process of this machine is alive. Who holds what is in ``curation.lease`` and ``curation.journal``."""

from __future__ import annotations

import os

__all__ = ["is_alive"]


def is_alive(process: int) -> bool:
    """Whether there is a process of this number, ours or another user's."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
