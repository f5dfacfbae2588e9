"""Held-out bits per byte of the bundled policy, beside a byte-level Kneser-Ney n-gram on the same text.

    .venv/bin/python benchmarks/embedded_policy.py [--data ../shared/data]

Both models learn from the same turns and are asked for the same turns of dialogues that neither has seen,
with everything before as context; the end of a turn is paid for but is not a byte. The n-gram's order is
the best of five on the development part. The second table says how often greedy answers refuse.
"""

from __future__ import annotations

import argparse
import math
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import transformers
from _figures import FIGURES, shared_data

from curation.embedded._policy_data import Dialogue, read_dialogues
from curation.embedded._policy_filters import is_refusal
from curation.embedded.make_policy import REAL_SOURCES, SEED, bits_per_byte, learned_bytes
from curation.models.generator import open_generator
from curation.models.identity import EMBEDDED_DIR, resolve_model
from curation.models.policy.transformers_backend import load_model, load_tokenizer
from curation.models.protocols import Generation

ROLES = {"system": chr(256), "user": chr(257), "assistant": chr(258)}
END = chr(259)
ALPHABET = 260
ORDERS = (5, 6, 7, 8, 9)
REFUSAL_PROMPTS = {
    "to be refused": ("templates/catqa", "templates/xstest"),
    "to be answered": ("tulu1_human_eval", "self_instruct", "pandalm"),
}


class KneserNey:
    """Interpolated Kneser-Ney over symbols; discounts n1 / (n1 + 2 n2); uniform at the bottom."""

    def __init__(self, order: int, texts: Sequence[tuple[str, list[bool]]]) -> None:
        counts: list[dict[str, dict[str, int]]] = [defaultdict(lambda: defaultdict(int)) for _ in range(order)]
        top = counts[-1]
        for text, learned in texts:
            for i, wanted in enumerate(learned):
                if wanted:
                    top[text[max(0, i - order + 1) : i]][text[i]] += 1
        for k in range(order - 1, 0, -1):
            for context, following in counts[k].items():
                if len(context) == k:
                    shorter = counts[k - 1][context[1:]]
                    for symbol in following:
                        shorter[symbol] += 1
        self.order = order
        self.levels = [self._level(level) for level in counts]

    @staticmethod
    def _level(counts: dict[str, dict[str, int]]) -> dict[str, tuple[dict[str, float], float]]:
        """For each context, the discounted probabilities and the weight of the shorter context."""
        ones = sum(c == 1 for f in counts.values() for c in f.values())
        twos = sum(c == 2 for f in counts.values() for c in f.values())
        discount = ones / (ones + 2 * twos) if ones and twos else 0.5
        level = {}
        for context, following in counts.items():
            total = sum(following.values())
            kept = {symbol: (count - discount) / total for symbol, count in following.items()}
            level[context] = (kept, discount * len(following) / total)
        return level

    def probability(self, history: str, symbol: str) -> float:
        """P(symbol | the last order - 1 symbols of history)."""
        p = 1 / ALPHABET
        for k, level in enumerate(self.levels):
            found = level.get(history[len(history) - k :] if k else "")
            if k <= len(history) and found is not None:
                kept, rest = found
                p = kept.get(symbol, 0.0) + rest * p
        return p

    def bits(self, text: str, learned: list[bool]) -> float:
        """Bits for the learned symbols of a text."""
        width = self.order - 1
        return -sum(
            math.log2(self.probability(text[max(0, i - width) : i], text[i]))
            for i, wanted in enumerate(learned)
            if wanted
        )


def symbols(dialogue: Dialogue) -> tuple[str, list[bool]]:
    """A dialogue as one symbol a byte, with symbols for roles and ends, and which ones are learned."""
    text, learned = "", []
    for message, target in zip(dialogue.messages, dialogue.targets, strict=True):
        turn = ROLES[message["role"]] + message["content"].encode().decode("latin-1") + END
        text += turn
        learned += [False] + [target] * (len(turn) - 1)
    return text, learned


def ngram_bits_per_byte(model: KneserNey, dialogues: Sequence[Dialogue]) -> float:
    bits = sum(model.bits(*symbols(d)) for d in dialogues)
    return bits / sum(map(learned_bytes, dialogues))


def scores(dialogues: Sequence[Dialogue]) -> Iterator[str]:
    """The rows of the first table."""
    training = [symbols(d) for d in dialogues if d.split == "train"]
    dev = [d for d in dialogues if d.split == "dev" and d.source in REAL_SOURCES]
    tried = [KneserNey(order, training) for order in ORDERS]
    ngram = min(tried, key=lambda model: ngram_bits_per_byte(model, dev))
    ref = resolve_model("embedded", embedded="policy")
    model, tokenizer = load_model(ref, dtype="float32"), load_tokenizer(ref)
    yield f"| held-out text | bytes | policy, bits/byte | {ngram.order}-gram, bits/byte | policy / n-gram |"
    yield "|---|---:|---:|---:|---:|"
    for name, sources in [("all", REAL_SOURCES), *((s, (s,)) for s in REAL_SOURCES)]:
        held_out = [d for d in dialogues if d.split == "test" and d.source in sources]
        size = sum(map(learned_bytes, held_out))
        ours, theirs = bits_per_byte(model, tokenizer, held_out), ngram_bits_per_byte(ngram, held_out)
        yield f"| {name} | {size:,} | {ours:.3f} | {theirs:.3f} | {ours / theirs:.3f} |"
        if name == "all":
            FIGURES.add(
                "bundled policy, held-out text", ours, "bits/byte", peer=f"byte {ngram.order}-gram",
                peer_value=theirs, better="lower", conditions=f"{size:,} bytes",
            )  # fmt: skip
            summary = f"Perplexity per byte: policy {2**ours:.3f}, {ngram.order}-gram {2**theirs:.3f}."
    yield ""
    yield summary


def refusals(dialogues: Sequence[Dialogue]) -> Iterator[str]:
    """The rows of the second table: greedy answers of 64 tokens to held-out requests."""
    generator = open_generator("embedded", max_new_tokens=64, temperature=0.0, top_p=1.0, seed=SEED)
    yield "| held-out requests | n | refusing answers | tokens/s |"
    yield "|---|---:|---:|---:|"
    for name, sources in REFUSAL_PROMPTS.items():
        asked = [d.messages[:-1] for d in dialogues if d.split != "train" and d.source in sources]
        asked = [list(p) for p in dict.fromkeys(tuple(m["content"] for m in p) for p in asked)]
        prompts = [[{"role": "user", "content": text} for text in p] for p in asked]
        started = time.perf_counter()
        answers = [a for a in generator.generate(prompts, [0] * len(prompts)) if isinstance(a, Generation)]
        took = time.perf_counter() - started
        share = sum(is_refusal(a.text) for a in answers) / len(answers)
        speed = sum(a.completion_tokens for a in answers) / took
        yield f"| {name} ({', '.join(sources)}) | {len(answers)} | {share:.1%} | {speed:,.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    data = shared_data(parser.parse_args().data)
    FIGURES.packages.append("transformers")
    torch.set_num_threads(1)
    size = sum(p.stat().st_size for p in (EMBEDDED_DIR / "policy").iterdir()) / 1e6
    print(
        f"torch {torch.__version__}, transformers {transformers.__version__}, "
        f"1 thread; the model's folder has {size:.1f} MB\n"
    )
    dialogues = read_dialogues(data, seed=SEED)
    for line in scores(dialogues):
        print(line, flush=True)
    print()
    for line in refusals(dialogues):
        print(line, flush=True)


if __name__ == "__main__":
    main()
    FIGURES.write()
