"""Chat-template leakage: special tokens, and turns of a dialogue that the model went on writing by itself.

An answer *about* templates is not a leak. So code is not looked at, a marker that the prompt holds itself is the
topic, and a marker in the middle of a sentence is a quotation; a leak stands where a template puts it: at an
end of the answer or of a line.
"""

from __future__ import annotations

import re
from typing import Final

import polars as pl

__all__ = ["SPECIAL_TOKENS", "template_leakage"]

SPECIAL_TOKENS: Final = (
    "<|im_start|>", "<|im_end|>", "<|im_sep|>", "<|endoftext|>", "<|eot_id|>", "<|eom_id|>", "<|begin_of_text|>",
    "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|user|>", "<|assistant|>", "<|system|>",
    "<|end|>", "<|start|>", "<|message|>", "<|channel|>", "<|return|>", "<|python_tag|>", "<|eot|>",
    "<|header_start|>",
    "<|header_end|>", "<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>",
    "<start_of_turn>", "<end_of_turn>", "<｜User｜>", "<｜Assistant｜>", "<｜begin▁of▁sentence｜>",
    "<｜end▁of▁sentence｜>", "[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]",
    "[TOOL_CALLS]", "<bos>", "<eos>", "<pad>", "[|endofturn|]", "[|assistant|]", "[|user|]", "<s>", "</s>",
)  # fmt: skip
"""Of ChatML, Llama 2 to 4, Gemma, Mistral, DeepSeek, Command R, Phi, gpt-oss, EXAONE and Zephyr."""

_CODE: Final = r"(?s)```.*?(?:```|$)|~~~.*?(?:~~~|$)|`[^`\n]*`"
_HTML: Final = frozenset({"<s>", "</s>"})
_TURN: Final = r"(?:\n\s*\n|\n)(?:Human|User|USER|### ?(?:Instruction|Input|Human|User)|<human>|\[User\]) ?:"
_TALK: Final = (
    r"(?i)\b(?:dialog(?:ue)?s?|conversations?|transcripts?|scripts?|screenplays?|interviews?|chats?|role.?play"
    r"|skits?|scenes?|q ?& ?a|faq|chat ?bots?|exchange)\b|(?:^|\n)(?:Human|User|USER|### ?Instruction) ?:"
)
_FEWEST_BEFORE: Final = 1


def template_leakage(responses: pl.Series, prompts: pl.Series | None = None) -> pl.Series:
    """The marker of a chat template that leaked into each answer, or null.

    Args:
        responses: n texts, no nulls.
        prompts: the n prompts as text; what one mentions is not a leak in its answer.

    Returns:
        (n,) String: the special token, or ``turn`` where the model went on with the user's next turn.
    """
    asked = pl.lit("") if prompts is None else prompts.cast(pl.String)
    frame = pl.DataFrame({"answer": responses.cast(pl.String)}).with_columns(prompt=asked)
    # Most answers hold nothing that could be a marker; only the others are read closely.
    suspect = r"<[|｜a-z/<s]|\[/?[A-Z|_]+|(?:Human|User|USER|human|Instruction|Input) ?[:\]]"
    rows = frame.with_row_index("row").filter(pl.col("answer").str.contains(suspect))
    if rows.is_empty():
        return pl.Series("leak", [None] * frame.height, dtype=pl.String)
    plain = rows.with_columns(plain=pl.col("answer").str.replace_all(_CODE, " code "))
    found = plain.select("row", leak=pl.coalesce(*(_leaked(token) for token in SPECIAL_TOKENS), _next_turn()))
    return frame.with_row_index("row").join(found, on="row", how="left", maintain_order="left")["leak"]


def _leaked(token: str) -> pl.Expr:
    """The token, where it stands at an end of the answer or of a line and the prompt does not speak of it."""
    escaped = _escaped(token)
    at_an_end = rf"(?m)^[ \t]*{escaped}|{escaped}[ \t]*\r?$"
    if token in _HTML:
        # Struck-through text in HTML is <s>…</s>: a leak stands alone at the very end or beginning of the answer.
        at_an_end = rf"^\s*{escaped}|[^>\s]\s*{escaped}\s*$" if token == "</s>" else rf"^\s*{escaped}\s*\S"
    leaked = pl.col("plain").str.contains(at_an_end)
    if token in _HTML:
        both = pl.col("plain").str.contains("<s>", literal=True) & pl.col("plain").str.contains(
            "</s>", literal=True
        )
        leaked = leaked & ~both
    return pl.when(leaked & ~pl.col("prompt").str.contains(token, literal=True)).then(pl.lit(token))


def _next_turn() -> pl.Expr:
    """A user's turn after an answer that is no dialogue and was not announced as one."""
    before = pl.col("plain").str.extract(rf"(?s)^(.*?){_TURN}", 1).str.strip_chars()
    talk = pl.col("prompt").str.contains(_TALK) | before.str.contains(_TALK) | before.str.ends_with(":")
    # A dialogue begins with a speaker: "Guide: Welcome."
    speaks = before.str.contains(r"(?m)^\s*(?:\*\*)?[A-Z][\w .'-]{0,30}(?:\*\*)? ?:")
    return pl.when(before.str.len_chars() >= _FEWEST_BEFORE, ~talk & ~speaks).then(pl.lit("turn"))


def _escaped(token: str) -> str:
    return re.sub(r"([\\.+*?()|\[\]{}^$#&\-~])", r"\\\1", token)
