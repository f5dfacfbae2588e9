"""What a fuzzer starts from: small good inputs of every kind, made here so that none has to be kept."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Final

import polars as pl

from tests.fuzz.targets import AS_SOURCE, FORMATS

__all__ = ["WORDS", "seeds"]

EXAMPLES: Final = Path(__file__).resolve().parents[2] / "examples"
ROWS: Final = [
    {"prompt": "Say A", "chosen": "A", "rejected": "B", "score": 1.5, "n": 3, "tags": ["x"], "meta": {"k": 1}},
    {"prompt": "Say é", "chosen": "é", "rejected": None, "score": 2, "n": 2**53, "tags": [], "meta": {"k": None}},
]
FLAT: Final = [{k: row[k] for k in ("prompt", "chosen", "rejected", "score", "n")} for row in ROWS]
TEMPLATE: Final = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m.content | trim }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
REPLIES: Final = (
    '{"score": 3}',
    '```json\n{"score": 5}\n```',
    '{"better": "A"}',
    '{"verdict": "C", "kind": "safety"}',
    '{"score": [[[[1]]]]}',
    '{"error": {"code": "context_length_exceeded", "message": "context length"}}',
    "Wed, 21 Oct 2026 07:28:00 GMT",
    "120.5",
    json.dumps(
        {
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": "Hi", "reasoning": "r"},
                    "finish_reason": "stop",
                    "logprobs": {
                        "content": [
                            {"token": "A", "logprob": -0.1, "top_logprobs": [{"token": "B", "logprob": -3}]}
                        ]
                    },
                }
            ],
            "usage": {"prompt_tokens": 5, "completion_tokens": 7},
        }
    ),
)
TAXONOMY: Final = (
    "name: t\nversion: 1\ncategories:\n- {name: a, title: A, labels: [x], prototypes: ['Do a.']}\n"
    "- {name: b, parent: a}\n"
)

WORDS: Final[dict[str, tuple[str, ...]]] = {
    "readers": (
        "prompt", "chosen", "rejected", "messages", "role", "content", "responses", "scores", "label", "null",
        "\\ud800", "NaN", "1e999", "PAR1", '":{"', '"],["',
    ),
    "recipe": (
        "sources", "path", "generation", "publish", "datasets", "&a", "*a", "<<: ", "!!python/object", "2024-99-99",
        "categories", "parent", "labels", "prototypes",
    ),
    "replies": ("score", "better", "verdict", "kind", "choices", "message", "usage", "logprobs", "NaN"),
    "templates": (
        "{{", "}}", "{%", "%}", "messages", "range(", "raise_exception(", "__class__", "content", "eos_token",
        "{0}", "{}", "\\1", "data.", "header", "__globals__",
    ),
}  # fmt: skip
"""What is worth putting in, for each target."""


def seeds(target: str) -> list[bytes]:
    """Good inputs for a target."""
    if target == "readers":
        return _files()
    if target == "recipe":
        return [path.read_bytes() for path in sorted(EXAMPLES.glob("*.yaml"))] + [
            b"sources:\n- {path: a.jsonl, name: a}\nname: n\nseed: 3\n",
            b"base: &b {path: a.jsonl}\nsources: [{<<: *b, name: x}]\n",
            TAXONOMY.encode(),
        ]
    if target == "replies":
        return [text.encode() for text in REPLIES]
    return [
        TEMPLATE.encode() + b"\0Hello",
        b"{{ raise_exception('no') }}\0x",
        b"\0Please explain how bread is made.",
        "\0Tell me! What was {0}?\n\0é".encode(),
        b"\0---\n{{ header }}\n---\n# {{ data.name }}\n{% for row in waterfall %}{{ row.rule }}{% endfor %}",
    ]


def _files() -> list[bytes]:
    lines = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
    dialogue = b'{"messages": [{"role": "user", "content": "Hi"}], "responses": ["a", "b"], "scores": [1, 0.5]}\n'
    table = io.BytesIO()
    pl.DataFrame(ROWS).write_parquet(table, compression="uncompressed")
    packed = io.BytesIO()
    pl.DataFrame(FLAT).write_parquet(packed)
    comma = pl.DataFrame(FLAT).write_csv().encode()
    found = {
        ".jsonl": [lines, dialogue, b'{"prompt": "x", "a": {}}\n\n{"prompt": [1, "x"]}'],
        ".json": [json.dumps(ROWS).encode(), b'{"data": [{"prompt": "x"}]}', b'{"prompt": ["x"]}', lines],
        ".csv": [comma, b'prompt,chosen\n"a ""b""\nc",[1]\n'],
        ".parquet": [table.getvalue(), packed.getvalue()],
        ".jsonl.gz": [gzip.compress(lines, mtime=0)],
        ".csv.gz": [gzip.compress(comma, mtime=0)],
    }  # fmt: skip
    return [
        bytes([FORMATS.index(kind) + offset]) + data
        for kind, items in found.items()
        for data in items
        for offset in (0, AS_SOURCE - AS_SOURCE % len(FORMATS) + len(FORMATS))
    ]
