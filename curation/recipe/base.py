"""What every section of a recipe is."""

from __future__ import annotations

import re
from typing import Any, Final, get_args

from pydantic import BaseModel, ConfigDict, field_validator, model_validator

__all__ = ["Section"]

_NO_SCHEME: Final = re.compile(r"(judge:)?((?:localhost|[\w.-]+:\d+)(?:[/#?].*)?|[\w-]+(?:\.[\w-]+)+/v\d+\S*#.+)")
"""An address without its ``http://``: the name of this machine, a port, or a path of an API and a model's name."""


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

    @field_validator("model", check_fields=False)
    @classmethod
    def _says_its_scheme(cls, model: Any) -> Any:
        """Else it would be looked for as a folder or on the Hub, once the run has begun."""
        found = _NO_SCHEME.fullmatch(model) if isinstance(model, str) else None
        if found is not None:
            example = f"{found[1] or ''}http://{found[2]}"
            raise ValueError(f"it looks like an address without http:// or https://: write {example}")
        return model

    @classmethod
    def _may_be_null(cls, key: Any) -> bool:
        field = cls.model_fields.get(key)
        return field is not None and type(None) in get_args(field.annotation)
