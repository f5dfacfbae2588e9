"""Makes the bundled policy again: ``python -m curation.embedded.make_policy --data ../shared/data``.

Reads the data, trains the tokenizer and the model, and writes both. What may be learned is decided in
``_policy_data``; how, in ``_policy_training``; the score is measured by ``benchmarks/embedded_policy.py``.
The tokenizer that is in the folder is kept unless ``--new-tokenizer`` is given.
"""

from __future__ import annotations

import argparse
import logging
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch

from curation.embedded._policy_data import Dialogue, read_dialogues
from curation.embedded._policy_tokenizer import Example, encode_dialogue, save_tokenizer, train_tokenizer
from curation.embedded._policy_training import Plan, build_model, learned_loss, train
from curation.models.identity import EMBEDDED_DIR

__all__ = ["REAL_SOURCES", "bits_per_byte", "learned_bytes", "main", "make_policy"]

VOCABULARY: Final = 4096
SEED: Final = 0
STEPS: Final = (900, 600)
_REPEATS: Final = {"own": 4, "everyday": 6}
REAL_SOURCES: Final = (
    "chatgpt_refusals",
    "coconot",
    "hh_harmless",
    "pandalm",
    "self_instruct",
    "tulu1_human_eval",
    "xstest",
)
"""Sources of text that was not written by our own templates: what the score is measured on."""


def make_policy(
    data: Path,
    output: Path,
    *,
    seed: int = SEED,
    new_tokenizer: bool = False,
    resume: bool = False,
    threads: int = 1,
    steps: tuple[int, int] = STEPS,
    checkpoints: Path | None = None,
) -> None:
    """Trains on the sets under ``data`` and writes the model's folder ``output`` (about 6 MB).

    First on everything, then, from the weights that were written, with fewer refusals: the sets hold so
    many that the model would refuse most short questions. With one thread and one build of torch, the
    same arguments give the same bytes.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    dialogues = read_dialogues(data, seed=seed)
    first = [d for d in dialogues if d.split == "train" and d.source != "everyday"]
    if new_tokenizer:
        texts = (m["content"] for d in first for m in d.messages)
        save_tokenizer(train_tokenizer(texts, vocabulary=VOCABULARY), output)
    tokenizer: Any = AutoTokenizer.from_pretrained(output)
    held_out = [d for d in dialogues if d.split == "dev" and d.source in REAL_SOURCES]

    def run(model: Any, learned: Sequence[Dialogue], plan: Plan) -> None:
        train(
            model,
            [encode_dialogue(tokenizer, d) for d in learned for _ in range(_REPEATS.get(d.source, 1))],
            plan,
            dev=lambda: bits_per_byte(model, tokenizer, held_out),
            checkpoint=None if checkpoints is None else partial(_save_weights, checkpoints),
        )
        model.to(torch.bfloat16).save_pretrained(output)

    if not resume:
        run(build_model(tokenizer, seed=seed), first, Plan(steps=steps[0], seed=seed))
    start = AutoModelForCausalLM.from_pretrained(output, dtype=torch.float32)
    second = _fewer_refusals([d for d in dialogues if d.split == "train"])
    run(start, second, Plan(steps=steps[1], seed=seed + 1, rate=2.5e-3, cooldown=1.0))


def _fewer_refusals(dialogues: Sequence[Dialogue]) -> list[Dialogue]:
    """All answers, and every fourth refusal of those whose request is not a harmless one."""
    refusing = [d for d in dialogues if d.refuses and not d.targets[0]]
    return [d for d in dialogues if not d.refuses] + refusing[::4]


def _save_weights(folder: Path, step: int, average: Any) -> None:
    average.to(torch.bfloat16).save_pretrained(folder / f"step-{step}")


def bits_per_byte(model: Any, tokenizer: Any, dialogues: Sequence[Dialogue]) -> float:
    """Bits the model spends on each UTF-8 byte of the learned turns, end tokens paid for but not counted."""
    examples = [encode_dialogue(tokenizer, d) for d in dialogues]
    nats = sum(_nats(model, example) for example in examples)
    return nats / math.log(2) / sum(learned_bytes(d) for d in dialogues)


def learned_bytes(dialogue: Dialogue) -> int:
    """UTF-8 bytes of the turns that count."""
    turns = zip(dialogue.messages, dialogue.targets, strict=True)
    return sum(len(m["content"].encode()) for m, target in turns if target)


@torch.inference_mode()
def _nats(model: Any, example: Example) -> float:
    """Of one dialogue. One longer than the context is read half a context at a time, with what is before."""
    context = model.config.max_position_embeddings
    total, done = 0.0, 0
    while done < len(example.ids):
        start = max(0, min(done - context // 2, len(example.ids) - context))
        end = min(len(example.ids), start + context)
        labels = [
            i if keep and place >= done else -100
            for place, (i, keep) in enumerate(zip(example.ids[:end], example.learned[:end], strict=True))
        ]
        ids = torch.tensor([example.ids[start:end]])
        total += float(learned_loss(model, ids, torch.tensor([labels[start:]]), reduction="sum"))
        done = end
    return total


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train the bundled policy.")
    parser.add_argument("--data", type=Path, required=True, help="folder with the data sets")
    parser.add_argument("--output", type=Path, default=EMBEDDED_DIR / "policy")
    parser.add_argument("--steps", type=int, nargs=2, default=STEPS, help="of the first and the second part")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--checkpoints", type=Path, help="folder for averaged weights, every 100 steps")
    parser.add_argument("--resume", action="store_true", help="only the second part, from the output's weights")
    parser.add_argument("--new-tokenizer", action="store_true", help="train the tokenizer too")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    make_policy(
        options.data,
        options.output,
        seed=options.seed,
        new_tokenizer=options.new_tokenizer,
        resume=options.resume,
        threads=options.threads,
        steps=tuple(options.steps),
        checkpoints=options.checkpoints,
    )


if __name__ == "__main__":
    main()
