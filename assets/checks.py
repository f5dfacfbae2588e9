"""Checks: what the gates measured, on the asset that it is about. They report; the publishing assets refuse."""

from collections.abc import Iterator

import dagster as dg
import polars as pl

from assets.resources import CurationResource
from curation.recipe import DATASETS

__all__ = ["gate_checks"]

_GATES = {
    "preference": (
        "min_rows",
        "max_tie_rate",
        "max_duplicate_rate",
        "min_chosen_refusal_rate",
        "max_chosen_refusal_rate",
        "max_reward_length_correlation",
    ),
    "preference_unpaired": ("min_rows", "max_duplicate_rate"),
    "refusal": ("min_rows", "max_duplicate_rate"),
    "retrieval": ("min_rows", "max_duplicate_rate"),
    "all": ("max_leaking_prompts", "max_empty_categories"),
}


def gate_checks() -> list[dg.AssetChecksDefinition]:
    """One check for each gate of each dataset. All are on ``gates``, where they are measured."""
    return [_checks()]


def _checks() -> dg.AssetChecksDefinition:
    names = {f"{dataset}_{gate}": (dataset, gate) for dataset in (*DATASETS, "all") for gate in _GATES[dataset]}

    @dg.multi_asset_check(
        name="gates_hold",
        specs=[dg.AssetCheckSpec(name=name, asset="gates") for name in names],
        description="Each gate of the recipe against its threshold.",
    )
    def gates_hold(curation: CurationResource) -> Iterator[dg.AssetCheckResult]:
        measured = curation.open_workspace().read("gates")
        for name, (dataset, gate) in names.items():
            row = measured.filter((pl.col("dataset") == dataset) & (pl.col("name") == gate)).to_dicts()
            if not row:
                yield dg.AssetCheckResult(
                    check_name=name, asset_key="gates", passed=True, metadata={"measured": "nothing to measure"}
                )
                continue
            found = row[0]
            yield dg.AssetCheckResult(
                check_name=name,
                asset_key="gates",
                passed=found["passed"],
                severity=dg.AssetCheckSeverity.ERROR if found["blocking"] else dg.AssetCheckSeverity.WARN,
                description=found["message"],
                metadata={"value": -1.0 if found["value"] is None else found["value"], "threshold": found["threshold"]},
            )

    return gates_hold
