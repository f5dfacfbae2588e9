"""How a server is reached: its address, and how patiently. No call is made here."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from curation.errors import InputError

__all__ = ["DEFAULT_KEY_VARIABLE", "Address", "Connection", "address_of", "is_address", "remote_judge"]

DEFAULT_KEY_VARIABLE: Final = "OPENAI_API_KEY"


@dataclass(frozen=True)
class Connection:
    """How a server is called. Nothing here changes an answer, so nothing here is in a fingerprint."""

    concurrency: int = 64
    """Requests that the server has at once."""
    timeout: float = 600.0
    """Seconds for one reply."""
    attempts: int = 8
    """How often one request is sent before it counts as failed."""
    patience: float = 600.0
    """Seconds that a server which answered before may stay out of reach."""
    first_patience: float = 30.0
    """Seconds to wait for a server that has not answered yet; ``patience`` where that is less."""
    key_variable: str = DEFAULT_KEY_VARIABLE
    """The environment variable with the key."""

    def key(self) -> str | None:
        """The key, or None where there is none.

        Raises:
            InputError: when a variable other than the usual one was named, and is not set.
        """
        found = os.environ.get(self.key_variable, "").strip()
        if not found and self.key_variable != DEFAULT_KEY_VARIABLE:
            raise InputError(f"the environment variable {self.key_variable} is not set: put the server's key in it")
        return found or None


class Address(NamedTuple):
    """A model behind a server."""

    url: str
    """Ends in the API's version, without a slash: ``http://host:port/v1``."""
    name: str


def is_address(model: str) -> bool:
    """Whether a MODEL is one behind a server."""
    return model.startswith(("http://", "https://"))


def remote_judge(model: str) -> str | None:
    """The chat model behind a server that a MODEL ``judge:…`` names, without its options; None for any other."""
    name = model.removeprefix("judge:").partition("?")[0]
    return name if model.startswith("judge:") and is_address(name) else None


def address_of(model: str) -> Address:
    """The server and the model's name there. The URL may end in ``/v1``, ``/v1/chat/completions``, or neither.

    Raises:
        InputError: when there is no host, or no ``#name``.
    """
    url, _, name = model.partition("#")
    parts = urlsplit(url)
    try:
        port_is_wrong = parts.port == 0
    except ValueError:
        port_is_wrong = True
    if not parts.hostname or not name or port_is_wrong or parts.query:
        raise InputError(f"model {_without_secret(model)!r}: expected http://host:port/v1#name-of-the-model")
    if parts.username or parts.password:
        raise InputError(f"model at {parts.hostname}: put no key into the URL; put it into {DEFAULT_KEY_VARIABLE}")
    path = parts.path.rstrip("/").removesuffix("/chat/completions").rstrip("/")
    return Address(f"{parts.scheme}://{parts.netloc.lower()}{path or '/v1'}", name)


def _without_secret(model: str) -> str:
    scheme, _, rest = model.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
