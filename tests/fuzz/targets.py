"""What a fuzzer calls: each target takes any bytes and raises only where the code is at fault.

An input that is wrong must end in the error or the fault that its reader is to see, on one line that can be
printed; everything else (another exception, a row without a trace, a grade off its scale) is a finding. How
inputs are made is in ``fuzz`` (by coverage) and ``test_targets`` (by Hypothesis); what was found once is in
``found`` and tried again by every run of the tests.
"""

from __future__ import annotations

import functools
import math
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from curation.errors import CurationError, InputError, RecipeError

__all__ = ["TARGETS"]

FORMATS: Final = (".jsonl", ".json", ".csv", ".parquet", ".jsonl.gz", ".csv.gz")
AS_SOURCE: Final = 128
LOW, HIGH = 1, 5


@functools.cache
def folder() -> Path:
    """In memory where that can be: a fuzzer writes thousands of files a second."""
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    kept = tempfile.TemporaryDirectory(prefix="fuzz-", dir=place)
    folder.kept = kept  # type: ignore[attr-defined]
    return Path(kept.name)


def printable(error: CurationError) -> None:
    """An error of ours is one line, not without end, that every terminal can encode."""
    text = str(error)
    text.encode()
    assert text
    assert "\n" not in text
    assert len(text) < 2_000, len(text)


def readers(data: bytes) -> None:
    """A file of any format, by its first byte; from 128 on as the source of a recipe."""
    if data:
        path = folder() / f"input{FORMATS[data[0] % len(FORMATS)]}"
        path.write_bytes(data[1:])
        (_source if data[0] >= AS_SOURCE else _file)(path)


def _file(path: Path) -> None:
    """Every row of a file is in a frame or a reject, in order, or the file is refused."""
    from curation.files import ROW, open_input

    try:
        source = open_input(path)
        source.head()
        frames = list(source.chunks(3))
    except InputError as error:
        printable(error)
        return
    rows = [row for frame in frames for row in frame[ROW].to_list()]
    rejected = [reject.row for reject in source.rejects]
    assert rows == sorted(set(rows))
    assert sorted({*rows, *rejected}) == list(range(len(rows) + len(rejected)))
    for frame in frames:
        assert set(frame.columns) == {ROW, *source.schema}


def _source(path: Path) -> None:
    """Every row of a source is an input or a reject."""
    from curation.prompts.sources import read_source

    try:
        found = read_source(str(path), name="fuzz")
    except InputError as error:
        printable(error)
        return
    seen = {*found.rows["row"].to_list(), *found.rejects["row"].to_list()}
    assert seen == set(range(found.rows_read))
    for text in found.rejects["reason"]:
        text.encode()


def recipe(data: bytes) -> None:
    """A recipe, or, where the word ``categories`` is in it, a taxonomy."""
    (_taxonomy if b"categories" in data else _recipe)(data)


def _recipe(data: bytes) -> None:
    """A recipe is read and can be recorded and read again, or it is refused."""
    from curation.recipe import load_recipe

    path = folder() / "recipe.yaml"
    path.write_bytes(data)
    try:
        found = load_recipe(path)
    except RecipeError as error:
        printable(error)
        return
    assert type(found).model_validate_json(found.model_dump_json()) == found
    assert found.content_hash.isalnum()
    assert "/" not in found.name


def _taxonomy(data: bytes) -> None:
    """A taxonomy is read, or it is refused."""
    from curation.refusals.taxonomy import open_taxonomy, taxonomy_fingerprint

    path = folder() / "taxonomy.yaml"
    path.write_bytes(data)
    try:
        assert open_taxonomy(path).categories
        taxonomy_fingerprint(path).encode()
    except InputError as error:
        printable(error)


def replies(data: bytes) -> None:
    """What a judge and a server say has a meaning, or none; it never breaks the run."""
    from curation.models.chat.protocol import ChatAnswer
    from curation.models.chat.replies import Broken, answer_in, meaning_of_status, retry_after
    from curation.models.refusal_judge import read_verdict
    from curation.models.rewards.judge_parsing import parse_choice, parse_score, score_fault

    text = data.decode("utf-8", "replace")
    for tokens in ((), _tokens(data)):
        verdict = read_verdict(ChatAnswer(text, "stop", 0, 0, None, tokens))
        assert verdict is None or 0.0 <= verdict[0] <= 1.0
    score = parse_score(text, low=LOW, high=HIGH)
    assert score is None or (type(score) is int and LOW <= score <= HIGH)
    if score is None:
        fault = score_fault(text, low=LOW, high=HIGH)
        assert len(fault.value) < 100
    assert parse_choice(text) in {None, "A", "B", "C"}
    try:
        answer = answer_in(data)
    except Broken as broken:
        rule = str(broken)
    else:
        rule = "broken_json"
        answer.text.encode()
        answer.finish_reason.encode()
        assert answer.prompt_tokens >= 0
        assert answer.completion_tokens >= 0
        for token in answer.tokens:
            token.token.encode()
            assert all(not math.isnan(p) for _, p in token.alternatives)
        read_verdict(answer)
    assert rule in {"broken_json", "missing_choice", "broken_off", "invalid_unicode_answer"}
    status = 400 + (data[0] if data else 0) % 200
    meaning_of_status(status, data, {}, model="m", key_variable="KEY", has_key=True)
    head = text[:200]
    for name in ("retry-after", "retry-after-ms"):
        assert 0.0 <= retry_after({name: head}) <= 600.0


def _tokens(data: bytes) -> Any:
    """Log-probabilities as far as the bytes spell some: ``A``, ``B`` and ``C`` with anything from -inf to 0."""
    from curation.models.chat.protocol import TokenProbabilities

    spread = tuple(("ABC"[byte % 3], -math.inf if byte > 250 else -float(byte)) for byte in data[:8])
    return tuple(TokenProbabilities(letter, spread) for letter in "ABC")


@functools.cache
def _tokenizer() -> Any:
    from transformers import AutoTokenizer

    import curation.embedded

    return AutoTokenizer.from_pretrained(Path(curation.embedded.__file__).parent / "policy")


def templates(data: bytes) -> None:
    """A model's chat template, a NUL and a text; or, after a NUL, a text in templates of ours."""
    if data.startswith(b"\x00"):
        _texts(data[1:])
    else:
        _chat_template(data)


def _chat_template(data: bytes) -> None:
    """Prompts and answers rendered by a template, or a fault that says why not."""
    from curation.models.policy.rendering import Renderer
    from curation.models.prompt_encoding import PromptEncoder
    from curation.models.protocols import Fault
    from curation.publish.card import escape_markdown

    head, _, rest = data.decode("utf-8", "replace").partition("\x00")
    tokenizer = _tokenizer()
    kept = tokenizer.chat_template
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": rest or "Hello"}]
    try:
        tokenizer.chat_template = head or kept
        encoder = PromptEncoder(tokenizer, context=512, max_new_tokens=8, system_prompt=None)
        encoded = encoder.encode(messages)
        assert isinstance(encoded, Fault) or len(encoded) + 8 <= 512
        for raw in (False, True):
            renderer = Renderer(tokenizer, raw=raw, max_length=512)
            (rendered,) = renderer.render([messages[1:]], [[rest, "Good day."]])
            if not isinstance(rendered, Fault):
                assert sorted([*rendered.candidates, *rendered.faults]) == [0, 1]
                assert all(len(rendered.prompt) + len(answer) <= 512 for answer in rendered.answers)
    finally:
        tokenizer.chat_template = kept
    escaped = escape_markdown(rest)
    assert "<" not in escaped
    assert "\n" not in escaped


def _texts(data: bytes) -> None:
    """Any text through the mutations, the judges' questions and the card's template."""
    from curation.models.refusal_judge import verdict_messages
    from curation.models.rewards.judge_parsing import RUBRICS, pair_messages, score_messages
    from curation.prompts.mutations.rules import RULE_MUTATIONS, mutate

    text = data.decode("utf-8", "replace")
    prompt = [{"role": "user", "content": text}]
    for name in RULE_MUTATIONS:
        changed = mutate(text, name)
        assert changed is None or changed.strip() != text.strip()
        assert changed == mutate(text, name)
    half = len(text) // 2
    rubric = next(iter(RUBRICS))
    asked = [
        score_messages(prompt, text, rubric=rubric),
        pair_messages(prompt, text[:half], text[half:], rubric=rubric),
        verdict_messages(text, text),
    ]
    for system, user in asked:
        mark = system["content"].split("marker ")[1][:16]
        assert mark not in text
        assert user["content"].count(f"[{mark} REQUEST BEGINS]") == 1
    _card_template(text)


def _card_template(text: str) -> None:
    import polars as pl

    from curation.publish.card import CardData, render_card

    waterfall = pl.DataFrame(
        schema={"position": pl.Int64, "rule": pl.String, "removed": pl.Int64, "left": pl.Int64}
    )
    data = CardData(
        dataset="preference", name="n", license="mit", splits={"train": 1}, languages=("en",), waterfall=waterfall
    )
    try:
        render_card(data, template=text, template_path="card.jinja")
    except InputError as error:
        printable(error)


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "readers": readers,
    "recipe": recipe,
    "replies": replies,
    "templates": templates,
}
