"""What examples are worth to a taxonomy: ``python benchmarks/refusal_categories.py [--data DIR]``.

CatQA's questions are sorted into its eleven categories, whose titles are the prototypes, with so many examples of
each from four fifths of the questions, tested on the fifth left out; five folds. Everyday requests (self-instruct's
seed tasks) should go nowhere. No question is printed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from _figures import FIGURES, shared_data

from curation.models.encoder import SentenceEncoder, open_encoder
from curation.models.protocols import Encoded
from curation.refusals.sorting import CategoryAssigner
from curation.refusals.taxonomy import MIN_SIMILARITY, Taxonomy, TaxonomyCategory

EXAMPLES = (0, 1, 3, 5, 10, 40)
FOLDS = 5


class Remembering:
    """The encoder, so that a text is encoded once."""

    def __init__(self, encoder: SentenceEncoder) -> None:
        self.encoder, self.fingerprint, self.dimension = encoder, encoder.fingerprint, encoder.dimension
        self.known: dict[str, np.ndarray] = {}

    def encode(self, texts: Sequence[str]) -> Encoded:
        new = [text for text in dict.fromkeys(texts) if text not in self.known]
        if new:
            self.known.update(zip(new, self.encoder.encode(new).vectors, strict=True))
        vectors = np.array([self.known[text] for text in texts], dtype=np.float32).reshape(-1, self.dimension)
        return Encoded(vectors, np.zeros(len(texts), dtype=bool))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    data = shared_data(parser.parse_args().data)
    tree = json.loads((data / "catqa" / "catqa_english.json").read_text(encoding="utf-8"))
    rows = [(text, title) for title, below in tree.items() for some in below.values() for text in some]
    (seeds,) = (data / "self_instruct").glob("*seed*.jsonl")
    everyday = [json.loads(line)["instruction"] for line in seeds.read_text(encoding="utf-8").splitlines()]
    taxonomy = Taxonomy("catqa", "", tuple(TaxonomyCategory(t, t, prototypes=(t,)) for t in tree))
    encoder = Remembering(open_encoder("embedded", device="cpu", max_length=64))
    order = np.random.default_rng(0).permutation(len(rows))
    print(f"least similarity {MIN_SIMILARITY}; {len(rows)} questions, {len(everyday)} everyday requests\n")
    print(
        "| examples a category | sorted rightly % | into none % | everyday requests sorted % |\n|---|---|---|---|"
    )
    for count in EXAMPLES:
        right, none, wrongly = [], [], []
        for fold in range(FOLDS):
            test = [rows[i] for i in order[fold::FOLDS]]
            seen = [rows[i] for other in range(FOLDS) if other != fold for i in order[other::FOLDS]]
            examples = [row for title in tree for row in [r for r in seen if r[1] == title][:count]]
            assigner = CategoryAssigner(taxonomy, encoder, examples=examples)
            found = assigner.assign([text for text, _ in test]).category
            right += [name == title for name, (_, title) in zip(found, test, strict=True)]
            none += [name is None for name in found]
            wrongly += [name is not None for name in assigner.assign(everyday).category]
        print(
            f"| {count} | {100 * np.mean(right):.1f} | {100 * np.mean(none):.1f} | {100 * np.mean(wrongly):.1f} |"
        )
        FIGURES.add(f"CatQA questions sorted rightly with {count} examples a category", 100 * float(np.mean(right)),
                    "%", conditions="11 categories, 550 questions, 5 folds")  # fmt: skip


if __name__ == "__main__":
    main()
    FIGURES.write()
