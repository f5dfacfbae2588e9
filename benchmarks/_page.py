"""Figures as pages: ``docs/figures.md`` and the table of the README, both from ``benchmarks/figures.json``.

What is measured is in the scripts, how they are run in ``_all.py``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from _figures import ROOT

__all__ = ["END", "README", "START", "figures_page", "number", "readme_table", "with_table", "write_pages"]

START: Final = "<!-- figures: written by make bench -->"
END: Final = "<!-- end of figures -->"

# What the README says: what it is, the page, and the figures by script and the beginning of their names.
README: Final[tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...]] = (
    ("hh-rlhf harmless end to end, then run again", "hh_harmless.md",
     (("hh_harmless", "hh-rlhf harmless end to end"), ("hh_harmless", "a second run of it"))),
    ("generation, beside distilabel: requests a second; sent again after kill -9; prompts left without an answer",
     "benchmarks/generation.md",
     (("generation_distilabel", "requests, with start and end"),
      ("generation_distilabel", "answered requests sent again after kill -9"),
      ("generation_distilabel", "prompts without an answer"))),
    ("building pairs, beside distilabel", "benchmarks/publish.md", (("publish_scale", "building pairs"),)),
    ("tables of scored answers to published datasets", "benchmarks/publish.md",
     (("publish_scale", "tables to published datasets"), ("publish_scale", "peak memory of it"))),
    ("1,000,000 prompts × 4 answers through every stage that calls no model (seconds: on a busy machine)",
     "benchmarks/scale.md",
     (("scale", "all stages, 1,000,000 prompts × 4 answers (tables)"),
      ("scale", "peak memory, 1,000,000 prompts × 4 answers (tables)"))),
    ("CHES, beside a loop that forwards each pair separately", "benchmarks/ches.md",
     (("ches_cost", "policy statistics for one pair"),
      ("ches_cost", "policy statistics for all 12 ordered pairs of four answers"))),
    ("hard negatives, beside sentence-transformers", "benchmarks/negatives.md",
     (("negatives_speed", "hard negatives"),
      ("negatives_speed", "recall@50 of the search"))),
    ("near-duplicates, beside datasketch and rensa", "benchmarks/hygiene.md",
     (("dedup", "near-duplicates beside rensa"), ("dedup", "near-duplicates beside datasketch"),
      ("dedup", "recall of near-duplicates"))),
    ("a ledger of 1,000,000 rows with nothing missing", "benchmarks/ledger.md",
     (("ledger", "a ledger of 1,000,000 rows with nothing missing"), ("ledger", "peak memory of it"))),
    ("preference strength of 1,000,000 pairs × 10 models", "benchmarks/strength.md",
     (("strength_scale", "preference strength"), ("strength_scale", "peak memory of preference strength"))),
    ("finding flipped labels in UltraFeedback (20 % flipped), beside length alone", "benchmarks/label_noise.md",
     (("label_noise", "finding flipped labels, 20 % flipped"),)),
    ("the bundled refusal detector, published test split", "benchmarks/refusals.md",
     (("refusals", "refusal detector, published test split"),)),
    ("the same, fitted without each fold's prompts, agreement with people on XSTest's completions",
     "benchmarks/refusals.md",
     (("refusals", "refusals held out by prompt, xstest_"),)),
    ("requests: to refuse or to answer, 5 folds by prompt; CoCoNot's to refuse, its contrast, XSTest",
     "benchmarks/refusals.md",
     (("refusals", "requests: refuse or answer, coconot_eval"),
      ("refusals", "requests: refuse or answer, coconot_contrast"),
      ("refusals", "requests: refuse or answer, xstest"))),
    ("the bundled policy, beside a byte n-gram", "benchmarks/embedded_policy.md",
     (("embedded_policy", "bundled policy, held-out text"),)),
)  # fmt: skip


def write_pages(told: dict[str, Any], longer: list[dict[str, Any]]) -> None:
    """Write the record, the page and the README's table."""
    told = told | {"longer": longer}
    docs = ROOT / "docs"
    (ROOT / "benchmarks" / "figures.json").write_text(json.dumps(told, indent=1, sort_keys=True) + "\n")
    (docs / "figures.md").write_text(figures_page(told))
    readme = ROOT / "README.md"
    readme.write_text(with_table(readme.read_text(), readme_table(told)))


def with_table(text: str, table: str) -> str:
    """A text with what stands between the two marks replaced."""
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    if not rest or not after:
        raise SystemExit(f"the README lacks {START} or {END}")
    return f"{before}{START}\n{table}{END}{after}"


def readme_table(told: dict[str, Any]) -> str:
    """The README's figures. Those of the last ``make bench`` go before those of longer runs of the same name."""
    lines = ["| what | figure | page |", "|---|---|---|"]
    for label, page, wanted in README:
        said = [text for script, start in wanted for text in _said(told, script, start)]
        if said:
            lines.append(f"| {label} | {'; '.join(said)} | [{page.rpartition('/')[2][:-3]}](docs/{page}) |")
    return "\n".join(lines) + "\n"


def _said(told: dict[str, Any], script: str, start: str) -> Iterator[str]:
    found: dict[tuple[str, str | None], str] = {}
    for one in [*told.get("results", []), *told.get("longer", [])]:
        if one["script"] != f"{script}.py":
            continue
        for figure in one["figures"]:
            if figure["name"].startswith(start):
                rest = figure["name"][len(start) :].strip(" ,")
                found.setdefault((figure["name"], figure["peer"]), _in_words(figure, rest))
    yield from found.values()


def _in_words(figure: dict[str, Any], rest: str) -> str:
    said = f"{number(figure['value'])} {figure['unit']}"
    said = f"{rest}: {said}" if rest else said
    if figure["peer"]:
        said += f" ({figure['peer']}: {number(figure['peer_value'])}"
        said += f", {number(figure['ratio'])}×)" if figure["ratio"] is not None else ")"
    if figure["reached"] is False:
        said += f", the goal was {figure['goal']}"
    return said


def figures_page(told: dict[str, Any]) -> str:
    """The whole page."""
    place, versions = told["machine"], told["versions"]
    minutes = f", {told['seconds'] / 60:.0f} minutes in all" if told.get("seconds") else ""
    lines = [
        "# Figures", "",
        "Written by `make bench`, which runs every script of `benchmarks/` in a process of its own, one after the "
        "other, at the sizes of the commands below. The README quotes from here alone. Ratios say how many times "
        "better than the peer, in the same run on the same rows: above 1 is in our favour.", "",
        f"{place['processor']}, {place['cores']} cores, {place['memory']}, {place['system']}, Python "
        f"{place['python']}; {', '.join(f'{name} {v}' for name, v in sorted(versions.items()))}; {told['date']}"
        f"{minutes}.", "",
        *_table(told["results"]), "",
    ]  # fmt: skip
    if told.get("longer"):
        lines += [
            "## Longer runs", "",
            "Sizes that do not fit into `make bench`. Each was measured with the command beside it; what else the "
            "machine did then is said under conditions, or on the page of its topic in `docs/benchmarks/`.", "",
            *_table(told["longer"], commands=True), "",
        ]  # fmt: skip
    lines += ["## Runs", "", "| command | status | seconds |", "|---|---|---:|"]
    for command, run in told["runs"].items():
        status = run["status"] + (f": {_cell(run['note'])}" if run["note"] else "")
        lines.append(f"| `{command}` | {status} | {run['seconds']:.0f} |")
    return "\n".join(lines) + "\n"


def _table(results: list[dict[str, Any]], *, commands: bool = False) -> Iterator[str]:
    last = "command" if commands else "versions"
    yield f"| script | what | value | unit | peer | peer's value | ratio | goal | reached | conditions | {last} |"
    yield "|---|---|---:|---|---|---:|---:|---|---|---|---|"
    for one in results:
        own = ", ".join(f"{name} {v}" for name, v in one["versions"].items())
        for figure in one["figures"]:
            cells = [
                one["script"].removesuffix(".py"), figure["name"], number(figure["value"]), figure["unit"],
                figure["peer"] or "", number(figure["peer_value"]), number(figure["ratio"]), figure["goal"] or "",
                {True: "yes", False: "no", None: ""}[figure["reached"]], figure["conditions"],
                f"`{one['command']}`" if commands else own,
            ]  # fmt: skip
            yield "| " + " | ".join(_cell(cell) for cell in cells) + " |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def number(value: float | None) -> str:
    """A number with about three digits, as pages show it; nothing for none."""
    if value is None:
        return ""
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) >= 100:
        return f"{value:.0f}"
    if abs(value) < 0.01:
        return f"{value:.1e}"
    return f"{value:.3g}" if abs(value) >= 1 else f"{value:.3f}"
