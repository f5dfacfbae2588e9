"""What policy statistics cost, against a plain loop over ordered pairs, in one run on the same rows.

    python benchmarks/ches_cost.py --data ../shared/data [--rows 400] [--threads 2] [--policy embedded]

The loop forwards prompt + chosen and prompt + rejected separately with ``output_hidden_states=True`` for every
ordered pair, and takes states and log-probabilities from the model's own outputs. Both sides are given token
ids of the same texts and run in turns, slice by slice, so that whatever else the machine does hits both.
"""

from __future__ import annotations

import argparse
import copy
import gzip
import itertools
import json
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch
import transformers
from _figures import FIGURES, shared_data

from curation.models.policy import PolicyStats, open_policy
from curation.prompts.rows import normalise
from curation.prompts.shapes import resolve
from curation.scores.ches import pair_scores_from_stats

SLICE = 50


class Slice(NamedTuple):
    """Some prompts with k answers each."""

    prompts: list[Any]
    answers: list[list[str]]


class Timing(NamedTuple):
    """Seconds per slice, wall and processor time."""

    wall: list[float]
    cpu: list[float]


def read_pairs(data: Path, rows: int) -> pl.DataFrame:
    with gzip.open(data / "hh_harmless" / "test.jsonl.gz", "rt") as file:
        frame = pl.DataFrame([json.loads(line) for line in file])
    pairs, _ = normalise(frame, resolve(frame, name="hh_harmless", shapes=("pair",)))
    return pairs.head(rows)


def slices(pairs: pl.DataFrame, k: int) -> list[Slice]:
    """Rows with their own two answers; for k = 4 also the two answers of the row two further on."""
    prompts = pairs["prompt"].to_list()
    own = [list(two) for two in zip(pairs["chosen"], pairs["rejected"], strict=True)]
    answers = own if k == 2 else [a + own[(i + 2) % len(own)] for i, a in enumerate(own)]
    return [
        Slice(prompts[start : start + SLICE], answers[start : start + SLICE])
        for start in range(0, len(prompts), SLICE)
    ]


def token_ids(policy: Any, part: Slice) -> list[Any]:
    return [r for r in policy.renderer.render(part.prompts, part.answers) if hasattr(r, "answers")]


def plain_states(model: Any, prompt: np.ndarray, answer: np.ndarray) -> tuple[np.ndarray, float]:
    """S(y) and log π(y | x) of one answer, the plain way."""
    ids = torch.from_numpy(np.concatenate([prompt, answer]))[None].to(model.device)
    out = model(input_ids=ids, output_hidden_states=True)
    states = out.hidden_states[-1][0, len(prompt) - 1 : -1]
    logps = out.logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    total = logps.gather(1, ids[0, len(prompt) :, None]).sum()
    return states.double().sum(0).cpu().numpy(), float(total)


@torch.inference_mode()
def plain_loop(model: Any, rows: list[Any]) -> list[tuple[float, float]]:
    """(CHES, length-normalised CHES) of the ordered pairs: one for two answers, all twelve for four."""
    out = []
    for row in rows:
        k = len(row.answers)
        for i, j in [(0, 1)] if k == 2 else itertools.permutations(range(k), 2):
            chosen, _ = plain_states(model, row.prompt, row.answers[i])
            rejected, _ = plain_states(model, row.prompt, row.answers[j])
            n, m = len(row.answers[i]), len(row.answers[j])
            inner, norm = float(chosen @ rejected), float(chosen @ chosen)
            out.append((inner - norm, inner / (n * m) - norm / n**2))
    return out


def ours(policy: Any, part: Slice) -> list[PolicyStats]:
    return [s for s in policy.stats(part.prompts, part.answers) if isinstance(s, PolicyStats)]


def timed(timing: Timing, work: Any) -> Any:
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    timing.wall.append(time.perf_counter() - wall)
    timing.cpu.append(time.process_time() - cpu)
    return result


def scores_of(found: list[PolicyStats], k: int) -> list[tuple[float, float]]:
    """Ours, in the order of ``plain_loop``."""
    mine = []
    for stats in found:
        scores = pair_scores_from_stats(stats)
        take = [0] if k == 2 else range(len(scores.ches))
        mine += [(float(scores.ches[t]), float(scores.ln_ches[t])) for t in take]
    return mine


def exact_scores(model: Any, rows: list[Any]) -> list[tuple[float, float]]:
    """The definition over float64 states, each answer read alone; what both sides are held against."""
    out = []
    for row in rows:
        with torch.inference_mode():
            sums = [plain_states(model, row.prompt, answer)[0] for answer in row.answers]
        k = len(sums)
        for i, j in [(0, 1)] if k == 2 else itertools.permutations(range(k), 2):
            n, m = len(row.answers[i]), len(row.answers[j])
            inner, norm = float(sums[i] @ sums[j]), float(sums[i] @ sums[i])
            out.append((inner - norm, inner / (n * m) - norm / n**2))
    return out


def errors(found: list[tuple[float, float]], exact: list[tuple[float, float]]) -> list[float]:
    """Relative errors of both scores."""
    return [abs(a - b) / abs(b) for x, y in zip(found, exact, strict=True) for a, b in zip(x, y, strict=True)]


def needed_tokens(rows: list[Any]) -> int:
    """Tokens that differ in themselves or in what is before them, prompt by prompt: each has to be read once."""
    total = 0
    for row in rows:
        read = [np.concatenate([row.prompt, answer[:-1]]) for answer in row.answers]
        total += len({ids[:n].tobytes() for ids in read for n in range(1, len(ids) + 1)})
    return total


def needed_flops(model: Any, policy: Any, rows: list[Any], tokens: int) -> float:
    """Multiply-adds, times two: the layers' matrices, attention, and the output layer where it is needed."""
    config = model.config
    layers = sum(p.numel() for n, p in model.named_parameters() if ".layers." in n and p.dim() == 2)
    answer_rows = sum(len(answer) for row in rows for answer in row.answers)
    width = config.num_attention_heads * getattr(config, "head_dim", config.hidden_size)
    seen = 0.0
    for row in rows:
        p = len(row.prompt)
        seen += p * (p + 1) / 2 + sum((len(a) - 1) * (p + len(a) / 2) for a in row.answers)
    return 2.0 * (
        tokens * layers + answer_rows * policy.head.weight.numel() + 2 * seen * width * config.num_hidden_layers
    )


def matmul_rate(seconds: float = 1.0) -> float:
    """Float operations a second of a square product, the best of many."""
    # Small enough to end within one turn on a processor that others use as well.
    a, b = torch.randn(512, 512), torch.randn(512, 512)
    best, end = 1e9, time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - start)
    return 2 * 512**3 / best


def measure(policy: Any, model: Any, pairs: pl.DataFrame, k: int) -> dict[str, Any]:
    mine, theirs = Timing([], []), Timing([], [])
    own_errors: list[float] = []
    loop_errors: list[float] = []
    double = copy.deepcopy(model).double()
    rows: list[Any] = []
    shares: list[float] = []
    peak = matmul_rate()
    parts = slices(pairs, k)
    ours(policy, parts[0])
    policy.forwarded = policy.forwarded_twice = 0
    for part in parts:
        ids = token_ids(policy, part)
        rows += ids
        found = timed(mine, lambda part=part: ours(policy, part))
        plain = timed(theirs, lambda ids=ids: plain_loop(model, ids))
        peak = max(peak, matmul_rate(0.2))
        exact = exact_scores(double, ids)
        own_errors += errors(scores_of(found, k), exact)
        loop_errors += errors(plain, exact)
    needed = needed_tokens(rows)
    flops = needed_flops(model, policy, rows, needed)
    ratios = [b / a for a, b in zip(mine.wall, theirs.wall, strict=True)]
    cpu_ratios = [b / a for a, b in zip(mine.cpu, theirs.cpu, strict=True)]
    shares = [flops / sum(mine.wall) / peak, flops / (sum(mine.cpu) / torch.get_num_threads()) / peak]
    prompts, answers = sum(len(r.prompt) for r in rows), sum(len(a) for r in rows for a in r.answers)
    return {
        "k": k, "rows": len(rows), "prompt_tokens": prompts, "answer_tokens": answers,
        "ours": sum(mine.wall), "loop": sum(theirs.wall), "ours_cpu": sum(mine.cpu), "loop_cpu": sum(theirs.cpu),
        "ratio": statistics.median(ratios), "cpu_ratio": statistics.median(cpu_ratios),
        "total_ratio": sum(theirs.wall) / sum(mine.wall),
        "waste": policy.forwarded / needed - 1, "peak": peak, "share": shares[0], "cpu_share": shares[1],
        "worst": max(own_errors), "median_error": statistics.median(own_errors),
        "loop_worst": max(loop_errors), "loop_median": statistics.median(loop_errors),
        "twice": policy.forwarded_twice / needed,
    }  # fmt: skip


def wide_share(data: Path, batch_tokens: int) -> str:
    """The share of the matrix-product rate with a random Llama of 94 M parameters, over 40 pairs."""
    from curation.models.identity import resolve_model
    from curation.models.policy.transformers_backend import load_tokenizer

    config = transformers.LlamaConfig(
        vocab_size=4096, hidden_size=768, intermediate_size=2048, num_hidden_layers=12, num_attention_heads=12,
        max_position_embeddings=2048, tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        transformers.LlamaForCausalLM(config).save_pretrained(folder)
        load_tokenizer(resolve_model("embedded", embedded="policy")).save_pretrained(folder)
        policy: Any = open_policy(folder, batch_tokens=batch_tokens)
    part = slices(read_pairs(data, 40), 2)[0]
    rows = token_ids(policy, part)
    flops = needed_flops(policy.model, policy, rows, needed_tokens(rows))
    timing = Timing([], [])
    peak = matmul_rate()
    for _ in range(3):
        timed(timing, lambda: ours(policy, part))
        peak = max(peak, matmul_rate(0.2))
    parameters = sum(p.numel() for p in policy.model.parameters()) / 1e6
    share = flops / min(timing.wall) / peak
    return f"random Llama of {parameters:.0f} M parameters, 40 pairs: {share:.0%} of the matrix-product rate"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path)
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--rows-of-four", type=int, default=200)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--policy", default="embedded")
    parser.add_argument("--batch-tokens", type=int, default=2048)
    arguments = parser.parse_args()
    arguments.data = shared_data(arguments.data)
    FIGURES.packages.append("transformers")
    torch.set_num_threads(arguments.threads)
    policy: Any = open_policy(arguments.policy, batch_tokens=arguments.batch_tokens)
    plain: Any = open_policy(arguments.policy, batch_tokens=arguments.batch_tokens)
    model = plain.model
    model.set_attn_implementation("sdpa")
    results = [
        measure(policy, model, read_pairs(arguments.data, rows), k)
        for k, rows in ((2, arguments.rows), (4, arguments.rows_of_four))
    ]
    print(
        f"torch {torch.__version__}, transformers {transformers.__version__}, Python {platform.python_version()}, "
        f"{arguments.threads} threads, float32, method {policy.method}, batch_tokens {arguments.batch_tokens}\n"
    )
    print("| | k = 2, one pair | k = 4, 12 ordered pairs |\n|---|---|---|")
    lines = [
        ("rows of hh_harmless", "{rows}"), ("prompt / answer tokens", "{prompt_tokens} / {answer_tokens}"),
        ("plain loop, wall s (processor s)", "{loop:.1f} ({loop_cpu:.1f})"),
        ("ours, wall s (processor s)", "{ours:.1f} ({ours_cpu:.1f})"),
        ("times as fast, wall: median over slices of 50 rows", "{ratio:.2f}"),
        ("times as fast, wall: whole run", "{total_ratio:.2f}"),
        ("times as fast, processor time: median over slices", "{cpu_ratio:.2f}"),
        ("token-forwards beyond one reading a prompt (below 0: prompts share beginnings)", "{waste:.2%}"),
        ("share of the matrix-product rate, by wall (by processor time)", "{share:.0%} ({cpu_share:.0%})"),
        ("token-forwards in float64 for pairs that nearly cancel", "{twice:.1%}"),
        ("largest relative error against float64 states (the loop's)", "{worst:.1e} ({loop_worst:.1e})"),
        ("median relative error (the loop's)", "{median_error:.1e} ({loop_median:.1e})"),
    ]  # fmt: skip
    for result, pairs in zip(results, ("one pair", "all 12 ordered pairs of four answers"), strict=True):
        FIGURES.add(
            f"policy statistics for {pairs}", result["ours"], "s", peer="plain loop", peer_value=result["loop"],
            better="lower", conditions=f"{result['rows']} rows of hh_harmless, {arguments.threads} threads",
        )  # fmt: skip
        FIGURES.add(
            f"largest relative error of CHES, {pairs}", result["worst"], "relative", peer="plain loop",
            peer_value=result["loop_worst"], better="lower", conditions="against float64 states",
        )  # fmt: skip
    for label, form in lines:
        print(f"| {label} | " + " | ".join(form.format(**result) for result in results) + " |")
    print(f"\n{wide_share(arguments.data, arguments.batch_tokens)}")


if __name__ == "__main__":
    main()
    FIGURES.write()
