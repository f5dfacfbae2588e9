"""What the Hub's refusals mean: which pass by themselves, and one line for those that do not."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from curation.errors import CurationError, InputError, PushError

__all__ = ["check_repo_id", "is_of_the_hub", "passes_by_itself", "refusal", "wait_asked_for"]

_PASSING: Final = frozenset({408, 409, 412, 425, 429, 500, 502, 503, 504})
_PREFIX: Final = re.compile(r"^(?:https?://[^/]+/)?(datasets|models|spaces|buckets|kernels)/(.+)$")
_LONGEST_WAIT: Final = 120.0
_SAID_BY_THE_HUB: Final = ("Invalid metadata in README.md", "LFS batch API returned errors")
_STATUS_IN_WORDS: Final = re.compile(r"\((4\d\d) \w+")


def check_repo_id(given: str) -> str:
    """A repository's id, without what may stand before it.

    Raises:
        InputError: when it is not ``owner/name``, or is the address of something that is no dataset.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    prefixed = _PREFIX.match(given.rstrip("/"))
    kind, repo_id = prefixed.groups() if prefixed else ("datasets", given)
    if kind != "datasets":
        raise InputError(f"{given!r} is the address of one of the Hub's {kind}: give a dataset's id, owner/name")
    if repo_id.count("/") != 1:
        raise InputError(f"repository id {repo_id!r}: expected owner/name, such as my-team/my-pairs")
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise InputError(
            f"repository id {repo_id!r}: the Hub allows letters, digits, '-', '_' and '.' in owner/name, at most "
            f"96 of them, no '--' or '..', and none of '-' and '.' at the start or end"
        ) from error
    return repo_id


def is_of_the_hub(error: BaseException) -> bool:
    """Whether an error is the Hub's or the connection's, and not a fault of a program."""
    said = isinstance(error, ValueError) and str(error).startswith(_SAID_BY_THE_HUB)
    return said or _is_lost(error) or _is_garbled(error) or _status(error) is not None or _is_of_storage(error)


def passes_by_itself(error: BaseException) -> bool:
    """Whether it is worth trying again: a lost connection, a limit, or a commit of somebody else's.

    Not what the Hub's storage refuses: hf_xet has tried that again by itself, for minutes.
    """
    return _is_lost(error) or _is_garbled(error) or _status(error) in _PASSING


def wait_asked_for(error: BaseException) -> float | None:
    """Seconds that the server asks to wait, None where it does not say."""
    from huggingface_hub.utils import parse_ratelimit_headers  # type: ignore[attr-defined]

    response = _response(error)
    if response is None:
        return None
    asked = str(response.headers.get("Retry-After", ""))
    limit = parse_ratelimit_headers(response.headers)
    if not asked.isdecimal() and limit is not None and limit.remaining == 0:
        asked = str(limit.reset_in_seconds + 1)
    return min(float(asked), _LONGEST_WAIT) if asked.isdecimal() else None


def refusal(error: BaseException, *, repo_id: str, endpoint: str, doing: str) -> CurationError:
    """One line for what the Hub refused, and what to do.

    Args:
        error: of ``huggingface_hub`` or of the connection.
        repo_id: the repository.
        endpoint: the Hub's address.
        doing: such as "read the repository".
    """
    status = _status(error)
    if isinstance(error, ValueError) and str(error).startswith(_SAID_BY_THE_HUB):
        said = " ".join(str(error).split())
        header = "README.md" in said
        hint = "; see publish.license, publish.languages and publish.card_template of the recipe" if header else ""
        return PushError(f"{repo_id}: cannot {doing}: {said[:300]}{hint}")
    if status is None:
        return _unanswered(error, head=f"{repo_id}: cannot {doing}", endpoint=endpoint)
    head = f"{repo_id}: cannot {doing}: HTTP {status} from {endpoint}"
    if status == 401:
        return InputError(
            f"{head}: the token is not accepted; log in again with `hf auth login`, or set HF_TOKEN to a valid one"
        )
    said = _said(error)
    if status == 403:
        return InputError(
            f"{head}: {said}. Where the token has no write access there, make one with write access to "
            f"{repo_id.split('/', maxsplit=1)[0]}"
        )
    if status in _PASSING:
        return PushError(
            f"{head}, also after several tries ({said}): run the same command again later; uploads are kept"
        )
    return PushError(f"{head}: {said}")


def _unanswered(error: BaseException, *, head: str, endpoint: str) -> CurationError:
    """One line where the Hub answered nothing: a lost connection, or what hf_xet says of its storage in words."""
    kept = "Nothing was committed; what was uploaded is kept"
    if _is_lost(error):
        lost = f"{endpoint} cannot be reached ({type(_root(error)).__name__})"
        return PushError(f"{head}: {lost}. {kept}: run the same command again")
    if _is_garbled(error):
        return PushError(f"{head}: what {endpoint} answers is no JSON. {kept}: run the same command again later")
    said = re.sub(r"\?\S+", "", " ".join(str(error).split()))[:300]
    if _STATUS_IN_WORDS.search(said):
        return PushError(
            f"{head}: the Hub's storage refuses: {said}. {kept}. Look whether the token has write access, and "
            f"on the Hub's billing page whether storage is left"
        )
    return PushError(
        f"{head}: the Hub's storage cannot be reached: {said}. {kept}: run the same command again, with "
        f"HF_HUB_DISABLE_XET=1 where that does not help"
    )


def _root(error: BaseException) -> BaseException:
    """What an error that was raised while uploading came from: the first in its chain that is of HTTP."""
    import httpx2

    found: BaseException | None = error
    while found is not None and _own_response(found) is None and not isinstance(found, httpx2.TransportError):
        found = found.__cause__
    return found or error


def _is_lost(error: BaseException) -> bool:
    import httpx2

    return isinstance(_root(error), httpx2.TransportError)


def _is_garbled(error: BaseException) -> bool:
    """Whether an answer was a page for people, as of an overloaded Hub: the client does not always look first."""
    return isinstance(error, json.JSONDecodeError)


def _is_of_storage(error: BaseException) -> bool:
    """Whether hf_xet raised it, by which large files are uploaded: Python's own errors, without a cause."""
    if not isinstance(error, ConnectionError | PermissionError | TimeoutError | RuntimeError) or error.__cause__:
        return False
    where = error.__traceback__
    while where is not None and where.tb_next is not None:
        where = where.tb_next
    return where is not None and "xet" in where.tb_frame.f_code.co_name


def _own_response(error: BaseException) -> Any:
    return getattr(error, "response", None)


def _response(error: BaseException) -> Any:
    return _own_response(_root(error))


def _status(error: BaseException) -> int | None:
    response = _response(error)
    return None if response is None else int(response.status_code)


def _said(error: BaseException) -> str:
    message = getattr(_root(error), "server_message", None)
    return str(message or "no reason was given")[:200]
