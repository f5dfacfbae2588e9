"""Notices that are no answers, and answers that begin with the same words."""

from __future__ import annotations

import pytest

from curation.refusals.notices import is_empty_or_filtered


@pytest.mark.parametrize(
    "answer",
    [
        "404 Not Found means that the server has no such page.",
        "Error 404 is a status code: the page is not there.",
        "Error 404 Not Found is what a server says of a page that it does not have.",
        "Status 404 tells the browser that nothing is there.",
        "Redacted documents have parts blacked out.",
        "Content filtering is the use of software to keep pages away.",
        "Context length is the number of tokens that a model reads.",
        "No output is printed, because the loop never runs.",
        "No response is needed.",
        "Rate limit your requests with a token bucket.",
        "Connection refused means that nothing listens on the port.",
        "Text filtered through grep keeps the lines that match.",
    ],
)
def test_an_answer_about_a_notice_is_an_answer(answer: str) -> None:
    assert not is_empty_or_filtered(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "[REDACTED]",
        "(no output)",
        "No response from server",
        "**No output**",
        "content_filter",
        "Content filter triggered",
        "This response was blocked due to our policy",
        "Content has been flagged for review",
        "Blocked by our content policy",
        "Removed by moderator",
        "429 Too Many Requests",
        "502 Bad Gateway\nnginx",
        "Error code: 400 - {'error': 1}",
        "Error 429: Rate limit exceeded",
        "HTTP Error 404 Not Found",
        "Rate limit reached for this model",
        "Request timed out.",
        "Connection reset by peer",
        "Context length exceeded",
    ],
)
def test_a_notice_is_no_answer(answer: str) -> None:
    assert is_empty_or_filtered(answer)
