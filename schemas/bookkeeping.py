"""``rejects``, ``failures``, ``waterfall`` and ``runs``: what was dropped, why, and who did what when."""

from __future__ import annotations

import dataframely as dy

__all__ = ["Failures", "Gates", "Rejects", "Runs", "Searches", "Waterfall"]


class Rejects(dy.Schema):
    """A row that was dropped, the rule that dropped it and the value that broke the rule."""

    table = dy.String(primary_key=True, description="the table that the row would have been in")
    row_id = dy.String(primary_key=True, description="its key there, or '<source>#<row>' for a source's row")
    rule = dy.String(primary_key=True)
    stage = dy.String(min_length=1)
    value = dy.String(nullable=True)
    threshold = dy.String(nullable=True)
    reason = dy.String(min_length=1)


class Failures(dy.Schema):
    """Ledger of rows that a model could not do; they are not tried again until the user asks for it."""

    step = dy.String(primary_key=True)
    row_id = dy.String(primary_key=True, description="the key of the ledger row that is missing")
    producer = dy.String(primary_key=True)
    item_id = dy.String(primary_key=True, description="the candidate, text or prompt that failed")
    rule = dy.String(min_length=1)
    value = dy.String(nullable=True)
    reason = dy.String(min_length=1)


class Waterfall(dy.Schema):
    """What each rule removed, in the order in which the rules ran."""

    dataset = dy.String(primary_key=True)
    position = dy.Int64(primary_key=True, min=0)
    stage = dy.String()
    rule = dy.String()
    removed = dy.Int64(min=0)
    left = dy.Int64(min=0)
    threshold = dy.Float64(nullable=True)
    anchors_short = dy.Int64(nullable=True, min=0, description="anchors with fewer candidates left than they need")
    next_threshold = dy.Float64(nullable=True, description="one step looser")
    next_left = dy.Int64(nullable=True, min=0, description="what all thresholds would leave with it")
    next_anchors_short = dy.Int64(nullable=True, min=0)


class Searches(dy.Schema):
    """How the nearest documents were searched for, and how many of them were found."""

    dataset = dy.String(primary_key=True)
    anchors = dy.Int64(min=0)
    documents = dy.Int64(min=0)
    method = dy.String()
    recall = dy.Float64(nullable=True, min=0.0, max=1.0, description="1 when exact; else measured on a sample")


class Gates(dy.Schema):
    """What the gates measured, the last time that they were asked."""

    name = dy.String(primary_key=True)
    dataset = dy.String(primary_key=True, description="'all' for a gate over all of them")
    value = dy.Float64(nullable=True)
    threshold = dy.Float64()
    passed = dy.Bool()
    blocking = dy.Bool()
    message = dy.String()


class Runs(dy.Schema):
    """One row a run: its recipe, and the table versions that it read and wrote (JSON)."""

    run_id = dy.String(primary_key=True)
    started_at = dy.Datetime(time_unit="us", time_zone="UTC")
    finished_at = dy.Datetime(time_unit="us", time_zone="UTC")
    status = dy.String(check={"status_known": lambda c: c.is_in(("done", "failed", "interrupted"))})
    package_version = dy.String()
    recipe_hash = dy.String()
    recipe = dy.String(description="the validated recipe as JSON")
    versions_read = dy.String()
    versions_written = dy.String()
    computed = dy.String(description="rows computed and reused by step (JSON)")
