"""What every section of a recipe is."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, model_validator

__all__ = ["Section"]


class Section(BaseModel):
    """Keys that are not known and numbers that are not finite are errors, and nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _none_is_null(cls, given: Any) -> Any:
        """The reference says ``none`` where a key may be null; in YAML that is a text, and would be used as one."""
        if not isinstance(given, dict):
            return given
        return {key: None if value == "none" and cls._may_be_null(key) else value for key, value in given.items()}

    @classmethod
    def _may_be_null(cls, key: Any) -> bool:
        field = cls.model_fields.get(key)
        return field is not None and type(None) in get_args(field.annotation)
