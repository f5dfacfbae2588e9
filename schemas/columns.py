"""Columns that several tables share. No table is defined here."""

from __future__ import annotations

from typing import Any, Final

import dataframely as dy

__all__ = [
    "EXPECTED_BEHAVIOURS",
    "ORIGINS",
    "ROLES",
    "SPLITS",
    "identifier",
    "messages",
    "probability",
    "reference",
]

ROLES: Final = ("system", "user", "assistant", "tool")
EXPECTED_BEHAVIOURS: Final = ("comply", "refuse")
ORIGINS: Final = ("provided", "generated", "edited", "borrowed", "template")
SPLITS: Final = ("train", "validation", "test")

_HEX: Final = r"^[0-9a-f]{32}$"


def identifier(**options: Any) -> dy.String:
    """The content hash that names a row of this table."""
    return dy.String(regex=_HEX, primary_key=True, **options)


def reference(*, nullable: bool = False, primary_key: bool = False) -> dy.String:
    """The content hash of a row of another table."""
    return dy.String(regex=_HEX, nullable=nullable, primary_key=primary_key)


def messages(*, nullable: bool = False) -> dy.List:
    """Chat turns, at least one, in order; every role is known and every content is there."""
    turn = dy.Struct({"role": dy.String(check={"role_known": lambda c: c.is_in(ROLES)}), "content": dy.String()})
    return dy.List(turn, min_length=1, nullable=nullable)


def probability(*, nullable: bool = False) -> dy.Float64:
    """A probability."""
    return dy.Float64(min=0.0, max=1.0, nullable=nullable)
