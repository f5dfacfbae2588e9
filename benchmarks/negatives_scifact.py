"""SciFact: what each mining strategy picks, and what the encoder learns from it.

    .venv/bin/python benchmarks/negatives_scifact.py [--data ../shared/data] [--cache FILE.npz]
        [--encoder minilm|lexical] [--train [STRATEGY …]]

Mining: the miner is told one relevant abstract of each claim. Its other relevant abstracts (with evidence
for or against the claim) are hidden positives, and abstracts that were cited without evidence are near
misses; both are counted among the negatives. Claims without any evidence have no positive, so that
margins and guides do not touch their candidates. With ``--train``, MiniLM is fine-tuned on a CPU with the
negatives of three strategies, over three seeds, and nDCG@10 is measured on held-out claims.
"""

from __future__ import annotations

import argparse
import csv
import io
import re
import statistics
import time
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from _figures import FIGURES, shared_data

NEGATIVES = 5
MAX_TOKENS = 128
TRAIN_TOKENS = 64


class SciFact(NamedTuple):
    claims: list[str]
    split: list[str]
    evidence: list[list[int]]
    """Corpus rows with evidence for or against the claim: relevant."""
    cited: list[list[int]]
    """Corpus rows that were cited and hold no evidence."""
    documents: list[str]


def read_scifact(data: Path) -> SciFact:
    with zipfile.ZipFile(data / "scifact" / "scifact.zip") as archive:
        documents = _rows(archive, "corpus_train.csv")
        place = {row["doc_id"]: at for at, row in enumerate(documents)}
        texts = [f"{row['title']} {_abstract(row['abstract'])}" for row in documents]
        found: dict[str, dict[str, Any]] = {}
        for part in ("train", "validation"):
            for row in _rows(archive, f"claims_{part}.csv"):
                claim = found.setdefault(
                    row["id"], {"text": row["claim"], "split": part, "evidence": set(), "cited": set()}
                )
                claim["cited"] |= {place[d] for d in re.findall(r"\d+", row["cited_doc_ids"]) if d in place}
                if row["evidence_doc_id"] in place:
                    claim["evidence"].add(place[row["evidence_doc_id"]])
    kept = [claim for claim in found.values() if claim["cited"] | claim["evidence"]]
    return SciFact(
        [claim["text"] for claim in kept],
        [claim["split"] for claim in kept],
        [sorted(claim["evidence"]) for claim in kept],
        [sorted(claim["cited"] - claim["evidence"]) for claim in kept],
        texts,
    )


def _rows(archive: zipfile.ZipFile, name: str) -> list[dict[str, str]]:
    with archive.open(name) as file:
        return list(csv.DictReader(io.TextIOWrapper(file, "utf-8")))


def _abstract(cell: str) -> str:
    """The sentences of a printed list."""
    return re.sub(r"^\[['\"]|['\"]\]$", "", re.sub(r"['\"]\s*\n\s*['\"]", " ", cell.strip()))


def embed(data: SciFact, cache: Path | None) -> tuple[np.ndarray, np.ndarray]:
    if cache and cache.exists():
        stored = np.load(cache)
        if len(stored["claims"]) == len(data.claims) and len(stored["documents"]) == len(data.documents):
            return stored["claims"], stored["documents"]
    from curation.models.encoder import open_encoder

    encoder = open_encoder("embedded", max_length=MAX_TOKENS)
    claims, documents = encoder.encode(data.claims).vectors, encoder.encode(data.documents).vectors
    if cache:
        np.savez(cache, claims=claims, documents=documents)
    return claims, documents


def lexical(data: SciFact) -> tuple[np.ndarray, np.ndarray]:
    """TF-IDF vectors reduced to 256 dimensions: a guide that sees words, where MiniLM sees meaning."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.preprocessing import normalize

    terms = TfidfVectorizer(sublinear_tf=True, stop_words="english", min_df=2)
    matrix = terms.fit_transform(data.documents)
    reduce = TruncatedSVD(256, random_state=0).fit(matrix)
    return (
        normalize(reduce.transform(terms.transform(data.claims))).astype(np.float32),
        normalize(reduce.transform(matrix)).astype(np.float32),
    )


def strategies(data: SciFact, claims: np.ndarray, documents: np.ndarray) -> dict[str, np.ndarray]:
    """The negatives of each strategy, (claims, NEGATIVES); the miner knows the first relevant abstract only."""
    from curation.negatives.false_negatives import AgreementFilter, GuideFilter, NearPositiveFilter
    from curation.negatives.mining import mine_hard_negatives

    positives = [rows[:1] for rows in data.evidence]
    words = lexical(data)
    guides = [
        GuideFilter(anchor_embeddings=a, corpus_embeddings=d, positives=positives)
        for a, d in ((claims, documents), words)
    ]
    near = NearPositiveFilter(corpus_embeddings=documents, positives=positives, anchors=len(claims), threshold=0.7)
    options: dict[str, dict[str, Any]] = {
        "random of all": {"range_max": len(documents), "sampling": "random"},
        "top": {},
        "skip the first 5": {"range_min": 5},
        "random of top 100": {"range_max": 100, "sampling": "random"},
        "margin bins of top 100": {"range_max": 100, "sampling": "margin_bins"},
        "top, below the positive": {"absolute_margin": 0.0},
        "top, 95 % of the positive": {"relative_margin": 0.05},
        "top, 80 % of the positive": {"relative_margin": 0.2},
        "top, lexical guide": {"filters": [guides[1]]},
        "top, either guide": {"filters": [AgreementFilter(guides, votes=1)]},
        "top, near the positive removed": {"filters": [near]},
        "80 %, either guide, near removed": {
            "relative_margin": 0.2,
            "filters": [near, AgreementFilter(guides, votes=1)],
        },
    }
    mined = {}
    for name, settings in options.items():
        mined[name] = mine_hard_negatives(
            anchor_embeddings=claims,
            corpus_embeddings=documents,
            positives=positives,
            num_negatives=NEGATIVES,
            **{"range_max": 100 + settings.get("range_min", 0), **settings},
        ).negatives
    return mined


def count(mined: dict[str, np.ndarray], data: SciFact, claims: np.ndarray, documents: np.ndarray) -> None:
    """Prints the share of hidden positives and near misses among each strategy's negatives."""
    from curation.negatives.estimate import labelled_share

    hidden = {(at, row) for at, rows in enumerate(data.evidence) for row in rows[1:]}
    misses = {(at, row) for at, rows in enumerate(data.cited) for row in rows}
    print(
        f"{len(data.claims)} claims, {len(data.documents):,} abstracts, {NEGATIVES} negatives a claim; "
        f"{len(hidden)} hidden positives, {len(misses)} cited without evidence\n"
    )
    print(
        "| strategy | negatives | claims short | mean score | hidden positives | per 1,000 (95 %) "
        "| found of all hidden | cited without evidence | per 1,000 |\n|---|---|---|---|---|---|---|---|---|"
    )
    for name, rows in mined.items():
        pairs = [(at, int(row)) for at, line in enumerate(rows) for row in line if row >= 0]
        score = np.mean([claims[at] @ documents[row] for at, row in pairs])
        wrong, near = sum(pair in hidden for pair in pairs), sum(pair in misses for pair in pairs)
        share = labelled_share(wrong, len(pairs))
        FIGURES.add(
            f"hidden positives among negatives, {name}", 1000 * share.share, "per 1,000",
            conditions=f"{len(pairs):,} of SciFact, 95 % {1000 * share.low:.1f} to {1000 * share.high:.1f}",
        )  # fmt: skip
        print(
            f"| {name} | {len(pairs):,} | {int((rows[:, -1] < 0).sum())} | {score:.3f} | {wrong} "
            f"| {1000 * share.share:.1f} ({1000 * share.low:.1f}–{1000 * share.high:.1f}) "
            f"| {wrong / len(hidden):.0%} | {near} | {1000 * near / len(pairs):.1f} |"
        )


TRAINED = ("random of all", "top", "80 %, either guide, near removed")


def train(
    data: SciFact,
    mined: dict[str, np.ndarray],
    *,
    names: list[str],
    seeds: int,
    claims_used: int,
    documents_used: int,
) -> None:
    """Fine-tunes MiniLM per strategy and seed; prints nDCG@10 on the claims of the validation split."""
    held = [at for at, part in enumerate(data.split) if part == "validation" and data.evidence[at]]
    used = [at for at, part in enumerate(data.split) if part == "train" and data.evidence[at]][:claims_used]
    relevant = {row for at in held for row in data.evidence[at]}
    others = [row for row in range(len(data.documents)) if row not in relevant]
    rng = np.random.default_rng(0)
    pool = sorted(relevant | set(rng.choice(others, min(len(others), documents_used), replace=False).tolist()))
    print(f"\ntrained on {len(used)} claims, tested on {len(held)} over {len(pool):,} abstracts\n")
    print("| negatives | nDCG@10 per seed | mean | std | seconds a run |\n|---|---|---|---|---|")
    if list(names) == list(TRAINED):
        print(f"| none (not fine-tuned) | | {_ndcg(_model(), data, held, pool):.4f} | | |", flush=True)
    for name in names:
        results, start = [], time.perf_counter()
        for seed in range(seeds):
            model = _fine_tuned(data, used, mined[name], seed)
            results.append(_ndcg(model, data, held, pool))
        spread = statistics.stdev(results) if seeds > 1 else 0.0
        given = f"{seeds} seeds, sd {spread:.4f}; {len(used)} claims"
        FIGURES.add(
            f"nDCG@10 after training, negatives: {name}", statistics.mean(results), "nDCG", conditions=given
        )
        print(
            f"| {name} | {', '.join(f'{r:.4f}' for r in results)} | **{statistics.mean(results):.4f}** "
            f"| {spread:.4f} | {(time.perf_counter() - start) / seeds:.0f} |",
            flush=True,
        )


def _model() -> Any:
    from curation.models.encoder import open_encoder

    return open_encoder("embedded", max_length=TRAIN_TOKENS)._model


def _fine_tuned(data: SciFact, used: list[int], negatives: np.ndarray, seed: int) -> Any:
    """One epoch of the in-batch softmax loss with one mined negative a claim (a plain loop: AdamW, 2e-5)."""
    import torch

    torch.manual_seed(seed)
    model, rng = _model(), np.random.default_rng(seed)
    model.train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-5)
    triples = [
        (at, data.evidence[at][0], int(rng.choice(negatives[at][negatives[at] >= 0])))
        for at in used
        if (negatives[at] >= 0).any()
    ]
    rng.shuffle(triples)
    for start in range(0, len(triples), 16):
        batch = triples[start : start + 16]
        texts = [data.claims[a] for a, _, _ in batch]
        texts += [data.documents[p] for _, p, _ in batch] + [data.documents[n] for _, _, n in batch]
        features = model.preprocess(texts) if hasattr(model, "preprocess") else model.tokenize(texts)
        vectors = torch.nn.functional.normalize(model(features)["sentence_embedding"], dim=1)
        queries, candidates = vectors[: len(batch)], vectors[len(batch) :]
        loss = torch.nn.functional.cross_entropy(20 * queries @ candidates.T, torch.arange(len(batch)))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    model.eval()
    return model


def _ndcg(model: Any, data: SciFact, held: list[int], pool: list[int]) -> float:
    options = {"normalize_embeddings": True, "show_progress_bar": False, "batch_size": 64}
    queries = model.encode([data.claims[at] for at in held], **options)
    documents = model.encode([data.documents[row] for row in pool], **options)
    order = np.argsort(-(queries @ documents.T), axis=1, kind="stable")[:, :10]
    discount = 1 / np.log2(np.arange(2, 12))
    gains = []
    for at, best in zip(held, order, strict=True):
        right = np.isin(np.asarray(pool)[best], data.evidence[at])
        gains.append((right * discount).sum() / discount[: min(10, len(data.evidence[at]))].sum())
    return float(np.mean(gains))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path)
    parser.add_argument("--cache", type=Path, help="an .npz file for the embeddings")
    parser.add_argument("--encoder", choices=["minilm", "lexical"], default="minilm")
    parser.add_argument("--train", nargs="*", metavar="STRATEGY", help="all three of TRAINED, or those named")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--train-claims", type=int, default=400)
    parser.add_argument("--test-documents", type=int, default=1_000)
    arguments = parser.parse_args()
    FIGURES.packages.extend(["sentence-transformers", "scikit-learn"])
    data = read_scifact(shared_data(arguments.data))
    claims, documents = lexical(data) if arguments.encoder == "lexical" else embed(data, arguments.cache)
    packages = ("sentence-transformers", "torch", "scikit-learn", "numpy")
    print(", ".join(f"{name} {version(name)}" for name in packages) + "\n")
    mined = strategies(data, claims, documents)
    count(mined, data, claims, documents)
    if arguments.train is not None:
        train(
            data,
            mined,
            names=arguments.train or list(TRAINED),
            seeds=arguments.seeds,
            claims_used=arguments.train_claims,
            documents_used=arguments.test_documents,
        )


if __name__ == "__main__":
    main()
    FIGURES.write()
