"""The bundled policy's tokenizer and chat template: byte-level BPE, one special token a role. No data.

A turn is ``<|role|>content<|end|>``, with nothing between turns, so that a rendered prompt is an exact
prefix, in characters and in tokens, of the same prompt followed by its answer. Nothing is added by the
tokenizer itself. A role's token inside a message's content is read as that role: text of untrusted
origin that may hold one has to be cleaned first.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from curation.embedded._policy_data import Dialogue

__all__ = ["CHAT_TEMPLATE", "CONTEXT", "Example", "encode_dialogue", "save_tokenizer", "train_tokenizer"]

PAD: Final = "<|pad|>"
END: Final = "<|end|>"
ROLE_TOKENS: Final = ("<|system|>", "<|user|>", "<|assistant|>")
CONTEXT: Final = 2048

CHAT_TEMPLATE: Final = (
    "{%- for message in messages -%}"
    "{%- if message['role'] not in ['system', 'user', 'assistant'] -%}"
    "{{- raise_exception('Unknown role: ' + message['role']) -}}"
    "{%- endif -%}"
    "{{- '<|' + message['role'] + '|>' + message['content'] + '<|end|>' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)

_PIECES: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""What no token reaches across: words with the space before them, single digits, punctuation, spaces."""


class Example(NamedTuple):
    """A dialogue as token ids; ``learned[i]`` says whether token i counts in the loss."""

    source: str
    ids: list[int]
    learned: list[bool]


def train_tokenizer(texts: Iterable[str], *, vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with ``vocabulary`` tokens, the special ones first."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, END, *ROLE_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=bpe,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=list(ROLE_TOKENS),
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Writes the tokenizer, its configuration in the keys that transformers 4 and 5 both read."""
    tokenizer.save_pretrained(folder)
    config = {
        "additional_special_tokens": list(ROLE_TOKENS),
        "clean_up_tokenization_spaces": False,
        "eos_token": END,
        "model_max_length": CONTEXT,
        "pad_token": PAD,
        "padding_side": "left",
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")


def encode_dialogue(tokenizer: Any, dialogue: Dialogue) -> Example:
    """A dialogue through the chat template; what is learned of a turn is its text and its end token."""
    ids: list[int] = []
    learned: list[bool] = []
    for message, target in zip(dialogue.messages, dialogue.targets, strict=True):
        turn: Sequence[int] = tokenizer.apply_chat_template([message], tokenize=True, return_dict=False)
        ids.extend(turn)
        learned.extend([False] + [target] * (len(turn) - 1))
    return Example(dialogue.source, ids, learned)
