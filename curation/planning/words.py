"""A plan in words, a line for each step."""

from __future__ import annotations

from curation.planning.plan import Plan
from curation.planning.requests import Planned

__all__ = ["plan_lines"]

_MODEL = 60


def plan_lines(found: Plan) -> list[str]:
    """The lines to print."""
    remote = [step for step in found.steps if step.is_remote]
    local = [step for step in found.steps if not step.is_remote]
    lines = ["A plan: no model was asked, and nothing was written."]
    for title, steps in (("servers", remote), ("models in this process, or on the cluster", local)):
        if steps:
            lines += ["", title, *(f"  {line}" for step in steps for line in _step(step, found.currency))]
    if found.notes:
        lines += ["", "not known before a run", *(f"  {note}" for note in found.notes)]
    if remote:
        lines += ["", *_money(found, remote)]
    return lines


def _step(step: Planned, currency: str) -> list[str]:
    model = step.model if len(step.model) <= _MODEL else f"{step.model[: _MODEL - 1]}…"
    most = "at most " if step.at_most and step.to_ask else ""
    failed = f" ({step.failed:,} of them failed, and are tried again by --retry-failed)" if step.failed else ""
    lines = [f"{step.stage}, {model}: {most}{step.to_ask:,} of {step.rows:,} to ask, {step.kept:,} kept{failed}"]
    if step.requests:
        prompt, completion, _ = step.tokens
        cost = "no price" if step.cost is None else f"{step.cost:.4g} {currency}"
        lines.append(
            f"  {step.requests:,} requests; at most {prompt:,} tokens read, {completion:,} written: {cost}"
        )
    return lines


def _money(found: Plan, remote: list[Planned]) -> list[str]:
    unpriced = [step for step in remote if step.to_ask and step.cost is None]
    whole = f"cost: at most {found.cost:.4g} {found.currency}, with {found.spent:.4g} spent before."
    lines = [
        f"{whole} An estimate: a token for each byte that is sent (a text has about four bytes a token), replies "
        f"as long as they may be, no request sent twice"
    ]
    if unpriced:
        lines.append(f"  without a price, and not in it: {', '.join(sorted({step.model for step in unpriced}))}")
    if found.max_cost is None:
        return [*lines, "max_cost is not set: nothing stops a run that costs more"]
    if found.spent + found.cost > found.max_cost:
        return [*lines, f"max_cost {found.max_cost:g} {found.currency} can stop the run before its end"]
    return [
        *lines,
        f"max_cost {found.max_cost:g} {found.currency} does not stop it, unless many requests break off",
    ]
