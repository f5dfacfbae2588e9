"""The lines of a file, packed or not, and what to say of one that is torn or no UTF-8."""

from __future__ import annotations

import contextlib
import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

from curation.errors import InputError

__all__ = ["decoded", "lines_of", "open_binary"]

_BOM: Final = b"\xef\xbb\xbf"
_CONVERT: Final = "convert the file to UTF-8 (iconv -t utf-8)"
_OTHERS: Final = {
    b"\x1f\x8b": "the file is gzip: let its name end in .gz",
    b"\x28\xb5\x2f\xfd": "the file is zstd: unpack it (zstd -d)",
    b"\xff\xfe": "the file is UTF-16: convert it (iconv -f utf-16 -t utf-8)",
    b"\xfe\xff": "the file is UTF-16: convert it (iconv -f utf-16 -t utf-8)",
}
"""How files of other kinds begin, and what to do with one whose name says otherwise."""


@contextlib.contextmanager
def open_binary(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of a file, unpacked when its name ends in ``.gz``."""
    try:
        # Closed by the with statement below; opening is apart from it, to tell its errors from the others.
        file: IO[bytes] = gzip.open(path) if path.suffix == ".gz" else path.open("rb")  # type: ignore[assignment]  # noqa: SIM115
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    with file:
        yield file


def lines_of(path: Path, file: IO[bytes]) -> Iterator[bytes]:
    """The lines of an open file, without the mark that some of UTF-8 begin with.

    Raises:
        InputError: when it is packed and torn, or cannot be read to its end.
    """
    number = 0
    try:
        for number, line in enumerate(file, start=1):
            yield line.removeprefix(_BOM) if number == 1 else line
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path}: not whole gzip after line {number} ({error}); fetch it again") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read after line {number}: {error.strerror or error}") from error


def decoded(line: bytes, place: str) -> str:
    """A line as text.

    Raises:
        InputError: when it is no UTF-8.
    """
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        other = next((said for start, said in _OTHERS.items() if line.startswith(start)), _CONVERT)
        raise InputError(
            f"{place} is not UTF-8: byte 0x{line[error.start]:02x} at position {error.start}; {other}"
        ) from error
