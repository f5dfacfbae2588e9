"""Duplicates: speed beside rensa's rivals, precision and recall against exact answers.

Documents are made of sentences of the data folder's sets, dealt anew, so that they share phrases as real
text does; one in ten is a copy of another with 0 to 24 words changed. Wall-clock and processor seconds are
both printed: on a machine that does other things, the second is the one to compare.

    .venv/bin/python benchmarks/dedup.py [--data DIR] [--documents 200000] [--peers 20000] [--repeats 3]
        [--only minhash|speed|semantic]

``speed`` is ``minhash`` without precision and recall, for a machine that can be had alone for a minute or two.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import re
import statistics
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import polars as pl
from _figures import FIGURES, shared_data

from curation.hygiene.duplicates import deduplicate
from curation.hygiene.semantic import encode_whole, look_alike_key, semantic_duplicates

THRESHOLD = 0.8
WORDS_PER_DOCUMENT = 100
DEFAULT_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"

_WORD = re.compile(r"[a-z0-9_\u00c0-\u07ff\u1000-\u1fff]+|[\u0800-\u0fff\u3000-\uffff\U00010000-\U0010ffff]")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--documents", type=int, default=200_000)
    parser.add_argument("--peers", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=["minhash", "speed", "semantic"])
    options = parser.parse_args()
    options.data = shared_data(options.data)
    FIGURES.packages.extend(["rensa", "datasketch"])
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}, ", end="")
    print(
        ", ".join(f"{name} {_version(name)}" for name in ("polars", "numpy", "rensa", "datasketch", "distilabel"))
    )
    if options.only != "semantic":
        texts = minhash(options.data, options.documents, options.peers, options.repeats)
        if options.only != "speed":
            quality(texts)
    if options.only in (None, "semantic"):
        semantic(options.data)


def minhash(data: Path, count: int, peers: int, repeats: int) -> list[str]:
    texts = make_documents(data, count)
    words = sum(text.count(" ") + 1 for text in texts) / count
    print(f"\n## MinHash: {count:,} documents of {words:.0f} words, threshold {THRESHOLD}\n")
    print("| method | documents | wall s | processor s | documents/s | per processor-second | removed |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    frame = pl.DataFrame({"text": texts})
    few = texts[:peers]
    _row("deduplicate, exact", count, repeats, lambda: _removed(frame, "exact"))
    all_rate = _row("deduplicate, minhash", count, repeats, lambda: _removed(frame, "minhash"))
    FIGURES.add("near-duplicates by MinHash", all_rate, "documents/s", conditions=f"{count:,} of {words:.0f} words")
    ours = _row("deduplicate, minhash", peers, repeats, lambda: _removed(frame[:peers], "minhash"))
    for name, run in (("rensa", _rensa), ("datasketch", _datasketch)):
        theirs = _row(f"{name}, word 3-grams", peers, 1, lambda run=run: run(few))
        FIGURES.add(
            f"near-duplicates beside {name}", ours, "documents/s", peer=name, peer_value=theirs, better="higher",
            conditions=f"{peers:,} documents of {words:.0f} words, word 3-grams",
        )  # fmt: skip
    if _version("distilabel") != "not installed":
        _row("distilabel's MinHashDedup, 5 characters", peers, 1, lambda: _distilabel(few))
    return texts


def quality(texts: list[str], sample: int = 10_000) -> None:
    """Precision of what was removed, and recall among a sample's true near-duplicates."""
    result = deduplicate(pl.DataFrame({"text": texts}), column="text", method="minhash", threshold=THRESHOLD)
    gone = set(result.rejects["row"].to_list())
    links = result.rejects.select("row", "duplicate_of").rows()
    chosen = random.Random(1).sample(range(len(texts)), min(sample, len(texts)))
    pairs = exact_pairs(texts, chosen)
    caught = [pair for pair in pairs if pair & gone]
    right = [similarity(texts[row], texts[kept]) >= THRESHOLD for row, kept in links]
    FIGURES.add("precision of near-duplicates removed", float(np.mean(right)), "share")
    FIGURES.add("recall of near-duplicates", len(caught) / max(1, len(pairs)), "share")
    print(
        f"\n{len(links):,} removed: precision {np.mean(right):.4f} (each against the row it duplicates). ",
        end="",
    )
    print(f"Recall {len(caught) / max(1, len(pairs)):.4f}: of {len(pairs):,} pairs with an exact Jaccard index of ")
    print(f"{THRESHOLD} or more that involve one of {len(chosen):,} sampled documents, those with one removed.")


def grams(text: str) -> frozenset[tuple[str, ...]]:
    """The definition of ``curation.hygiene.shingles``, in plain Python, over characters."""
    words = _WORD.findall(text.lower())
    return frozenset(zip(words, words[1:], words[2:], strict=False)) or frozenset([tuple(words)])


def similarity(a: str, b: str) -> float:
    x, y = grams(a), grams(b)
    return len(x & y) / len(x | y)


def exact_pairs(texts: list[str], chosen: list[int]) -> list[frozenset[int]]:
    """All pairs at the threshold that involve a chosen document, by counting shared 3-grams."""
    holders: dict[tuple[str, ...], list[int]] = {}
    sets = {row: grams(texts[row]) for row in chosen}
    for row in chosen:
        for gram in sets[row]:
            holders.setdefault(gram, []).append(row)
    pairs = set()
    for other, text in enumerate(texts):
        found = grams(text)
        shared: dict[int, int] = {}
        for gram in found:
            for row in holders.get(gram, ()):
                shared[row] = shared.get(row, 0) + 1
        for row, count in shared.items():
            if row != other and count / (len(found) + len(sets[row]) - count) >= THRESHOLD:
                pairs.add(frozenset({row, other}))
    return sorted(pairs, key=sorted)


def make_documents(data: Path, count: int) -> list[str]:
    """Documents of about 100 words, one in ten a copy with 0 to 24 words changed."""
    chance = random.Random(0)
    sentences = list(dict.fromkeys(_sentences(data)))
    vocabulary = [word for sentence in sentences[:5000] for word in sentence.split()]
    documents: list[str] = []
    while len(documents) < count:
        if documents and chance.random() < 0.1:
            words = chance.choice(documents).split()
            for _ in range(chance.randint(0, 24)):
                words[chance.randrange(len(words))] = chance.choice(vocabulary)
        else:
            words = []
            while len(words) < WORDS_PER_DOCUMENT - 10:
                words += chance.choice(sentences).split()[:WORDS_PER_DOCUMENT]
        documents.append(" ".join(words))
    return documents


def _sentences(data: Path) -> Iterator[str]:
    """Sentences of 5 to 40 words of every set of preference pairs and answers."""
    for name in ("ultrafeedback_noise/clean.jsonl", "coconot/coconot_pref.jsonl"):
        for row in map(json.loads, (data / name).open()):
            for column in ("prompt", "chosen", "rejected"):
                yield from (s for s in re.split(r"(?<=[.!?])\s+", row[column]) if 5 <= s.count(" ") < 40)
    for row in pl.read_csv(data / "dolly/databricks_dolly_15k.csv")["context"].drop_nulls():
        yield from (s for s in re.split(r"(?<=[.!?])\s+", row) if 5 <= s.count(" ") < 40)


def semantic(data: Path) -> None:
    """Paraphrases must go, look-alikes must stay."""
    prompts = _prompts(data)
    paraphrases = [(p, q) for p in prompts if (q := paraphrase(p)) is not None][:500]
    look_alikes = [(p, q) for p in prompts if (q := look_alike(p, prompts)) is not None][:500]
    pairs = [*paraphrases, *look_alikes]
    truth = np.array([True] * len(paraphrases) + [False] * len(look_alikes))
    from curation.models.encoder import open_encoder

    encoder = open_encoder("embedded")
    vectors = [encode_whole([pair[side] for pair in pairs], encoder)[0] for side in (0, 1)]
    cosine = (vectors[0] * vectors[1]).sum(axis=1)
    same = np.array([look_alike_key(a) == look_alike_key(b) for a, b in pairs])
    print(f"\n## Semantic: {len(paraphrases)} paraphrases, {len(look_alikes)} look-alikes\n")
    print("| threshold | precision | recall | precision without look-alike keys | recall without |")
    print("|--:|--:|--:|--:|--:|")
    for threshold in (0.8, 0.85, 0.9, 0.95):
        cells = []
        for mask in (same, np.ones_like(same)):
            found = (cosine >= threshold) & mask
            cells += [(found & truth).sum() / max(1, found.sum()), (found & truth).sum() / truth.sum()]
        print(f"| {threshold} | " + " | ".join(f"{cell:.3f}" for cell in cells) + " |")
        if threshold == 0.9:
            FIGURES.add(
                "semantic duplicates: precision", cells[0], "share", conditions="cosine 0.9, rule-made pairs"
            )
            FIGURES.add("semantic duplicates: recall", cells[1], "share", conditions="cosine 0.9, rule-made pairs")
    texts = [text for pair in paraphrases for text in pair]
    joined, _ = encode_whole(texts, encoder)
    links = semantic_duplicates(joined, threshold=0.9, order=np.arange(len(texts))).links
    kept = np.flatnonzero(links.kept_by < 0)
    lost = [
        row for row in range(len(texts)) if links.kept_by[row] >= 0 and links.kept_by[row] not in set(kept.tolist())
    ]
    print(
        f"\nOne of every cluster stays: {len(texts):,} texts, {len(kept):,} kept, "
        f"{len(lost)} removed with no kept one."
    )


_REWRITES: tuple[tuple[str, str], ...] = (
    (r"^What is ", "Tell me what is "),
    (r"^What are ", "Please list what are "),
    (r"^How do I ", "What is the way to "),
    (r"^How can I ", "What would be a good way to "),
    (r"^Can you ", "Could you please "),
    (r"^Write ", "Compose "),
    (r"^Give me ", "Provide me with "),
    (r"^Explain ", "Please give an explanation of "),
    (r"^Describe ", "Please provide a description of "),
    (r"^Why ", "For what reason "),
    (r"^Tell me ", "Let me know "),
    (r"^List ", "Enumerate "),
    (r"^Create ", "Produce "),
)
_OPPOSITES = {
    "increase": "decrease",
    "best": "worst",
    "first": "last",
    "before": "after",
    "add": "remove",
    "more": "less",
}


def paraphrase(prompt: str) -> str | None:
    """The same request in other words, by rule; None where no rule applies."""
    for pattern, words in _REWRITES:
        if re.match(pattern, prompt):
            return re.sub(pattern, words, prompt)
    return None


def look_alike(prompt: str, prompts: list[str]) -> str | None:
    """A different request in nearly the same words: a number, an opposite, a negation or a name changed."""
    number = re.search(r"\b\d+\b", prompt)
    if number:
        return prompt[: number.start()] + str(int(number[0]) + 3) + prompt[number.end() :]
    for word, opposite in _OPPOSITES.items():
        if re.search(rf"\b{word}\b", prompt):
            return re.sub(rf"\b{word}\b", opposite, prompt, count=1)
    verb = re.search(r"\b(is|are|do|does|can|should|will)\b", prompt)
    if verb:
        return f"{prompt[: verb.end()]} not{prompt[verb.end() :]}"
    return None


def _prompts(data: Path) -> list[str]:
    found: list[str] = []
    for name, column in (
        ("ultrafeedback_noise/clean.jsonl", "prompt"),
        ("coconot/coconot_pref.jsonl", "prompt"),
        ("self_instruct/user_oriented_instructions.jsonl", "instruction"),
        ("self_instruct/seed_tasks.jsonl", "instruction"),
        ("tulu1_human_eval/eval_instances_tulu_1.jsonl", "prompt"),
    ):
        found += [json.loads(line)[column] for line in (data / name).open()]
    found += pl.read_csv(data / "dolly/databricks_dolly_15k.csv")["instruction"].to_list()
    return [text for text in dict.fromkeys(found) if len(text) < 300]


def _removed(frame: pl.DataFrame, method: str) -> int:
    threshold = THRESHOLD if method == "minhash" else None
    return deduplicate(frame, column="text", method=method, threshold=threshold).rejects.height


def _rensa(texts: list[str]) -> int:
    from rensa import RMinHash, RMinHashDeduplicator

    found = RMinHashDeduplicator(threshold=THRESHOLD, num_perm=128, use_lsh=True, num_bands=16)
    sketches = RMinHash.from_token_sets([[" ".join(g) for g in grams(t)] for t in texts], num_perm=128, seed=42)
    return sum(not kept for kept in found.add_pairs((str(i), sketch) for i, sketch in enumerate(sketches)))


def _datasketch(texts: list[str]) -> int:
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(threshold=THRESHOLD, num_perm=128)
    removed = 0
    for row, text in enumerate(texts):
        sketch = MinHash(num_perm=128, seed=1)
        sketch.update_batch([" ".join(gram).encode() for gram in grams(text)])
        if index.query(sketch):
            removed += 1
        else:
            index.insert(str(row), sketch)
    return removed


def _distilabel(texts: list[str]) -> int:
    from distilabel.steps import MinHashDedup

    step = MinHashDedup(name="dedup", tokenizer="ngrams", n=5, threshold=THRESHOLD)
    step.load()
    rows = [{"text": text} for text in texts]
    return sum(not row["keep_row_after_minhash_filtering"] for batch in step.process(rows) for row in batch)


def _row(name: str, count: int, repeats: int, call: Callable[[], int]) -> float:
    """Prints a line; returns documents a second."""
    walls, processors, removed = [], [], 0
    for _ in range(repeats):
        wall, processor = time.perf_counter(), time.process_time()
        removed = call()
        walls.append(time.perf_counter() - wall)
        processors.append(time.process_time() - processor)
    wall, processor = statistics.median(walls), statistics.median(processors)
    speeds = f"{count / wall:,.0f} | {count / processor:,.0f}"
    print(f"| {name} | {count:,} | {wall:.2f} | {processor:.2f} | {speeds} | {removed:,} |", flush=True)
    return count / wall


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    main()
    FIGURES.write()
