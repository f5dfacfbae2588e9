"""Checks: what the gates measured, on the asset that it is about. They report; the publishing assets refuse."""

from collections.abc import Iterator, Sequence
from typing import Final

import dagster as dg

from assets.resources import CurationResource
from curation.pipeline import run_stage, stage_named
from curation.publish.gates import ALL_DATASETS, GATES_OF, GateResult
from curation.recipe import DATASETS
from curation.recipe.gates import Gates

__all__ = ["gate_checks"]

# What is measured on all datasets together has no asset of its own.
_ASSET: Final = {dataset: dataset for dataset in DATASETS if dataset in GATES_OF} | {ALL_DATASETS: "gates"}


def gate_checks(*, prefix: Sequence[str] = ()) -> dg.AssetChecksDefinition:
    """One check for each gate of each dataset. It runs after ``gates``, which measures them."""
    gates = dg.AssetKey([*prefix, "gates"])
    specs = {
        (dataset, gate): dg.AssetCheckSpec(
            name=gate,
            asset=[*prefix, _ASSET[dataset]],
            additional_deps=[] if dataset == ALL_DATASETS else [gates],
            description=_description(gate, dataset),
        )
        for dataset in _ASSET
        for gate in GATES_OF[dataset]
    }

    @dg.multi_asset_check(name="gates_hold", specs=list(specs.values()), can_subset=True)
    def gates_hold(
        context: dg.AssetCheckExecutionContext, curation: CurationResource
    ) -> Iterator[dg.AssetCheckResult]:
        with curation.stage(context.log, "gates_hold") as opened:
            if not opened.gates_measured:
                # Somebody asks for a part of the graph: what the gates said last may be of other rows.
                run_stage(opened, stage_named("gates"))
            rows = opened.workspace.read("gates").select(GateResult._fields).iter_rows()
            measured = {(row.dataset, row.name): row for row in (GateResult(*values) for values in rows)}
        for key, spec in specs.items():
            if spec.key in context.selected_asset_check_keys:
                yield _result(spec, measured.get(key))

    return gates_hold


def _description(gate: str, dataset: str) -> str:
    bound = "At least" if gate.startswith("min_") else "At most"
    kept = "nothing" if dataset == ALL_DATASETS else "nothing that is made from it"
    return (
        f"{bound} gates.{gate} of the recipe: {Gates.model_fields[gate].description}. "
        f"Where it fails, {kept} is published, unless gates.warn_only names the gate: the publishing asset "
        f"refuses, so that Dagster itself need not block anything."
    )


def _result(spec: dg.AssetCheckSpec, found: GateResult | None) -> dg.AssetCheckResult:
    if found is None or found.value is None:
        return dg.AssetCheckResult(
            check_name=spec.name,
            asset_key=spec.asset_key,
            passed=True,
            description="nothing to measure" if found is None else found.message,
        )
    return dg.AssetCheckResult(
        check_name=spec.name,
        asset_key=spec.asset_key,
        passed=found.passed,
        severity=dg.AssetCheckSeverity.ERROR if found.blocking else dg.AssetCheckSeverity.WARN,
        description=found.message,
        metadata={"value": found.value, "threshold": found.threshold},
    )
