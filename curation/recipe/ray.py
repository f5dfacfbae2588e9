"""Recipe section ``ray``: the cluster that ``engine: ray`` runs on, and how many workers each step has there."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from curation.recipe.base import Section

__all__ = ["Ray", "RayStep", "RayWorkers"]

RayStep = Literal[
    "generations", "embeddings", "rewards", "cross-encoder", "refusals", "requests", "judgements", "policy_stats",
    "minhash",
]  # fmt: skip


class RayWorkers(Section):
    """The workers of a step: each is a process that loads the model once."""

    min: int = Field(default=1, ge=1, description="workers that are started at once")
    max: int | None = Field(
        default=None,
        ge=1,
        description="most workers; by default as many as fit, with one CPU left over",
    )
    cpus: float = Field(default=1.0, ge=0.0, description="CPUs of a worker, also its threads")
    gpus: float = Field(default=0.0, ge=0.0, description="GPUs of a worker; 0.5 puts two workers on one GPU")
    memory_gb: float | None = Field(
        default=None, gt=0.0, description="memory that a node must have free for a worker, in GB"
    )

    @model_validator(mode="after")
    def _consistent(self) -> RayWorkers:
        if self.max is not None and self.max < self.min:
            raise ValueError(f"min is {self.min} and max {self.max}: max may not be less")
        if self.cpus == 0 and self.gpus == 0:
            raise ValueError("cpus and gpus are both 0: a worker needs some of one, or no limit would hold")
        if self.gpus > 1 and self.gpus != int(self.gpus):
            raise ValueError(f"gpus is {self.gpus:g}: above 1 it must be a whole number")
        return self


class Ray(Section):
    """Where ``engine: ray`` runs. Nothing here changes a result."""

    address: str | None = Field(
        default=None,
        min_length=1,
        description="host:port of a cluster, or auto for the one that this machine belongs to; by default Ray is "
        "started here for the run",
    )
    workers: RayWorkers = Field(default=RayWorkers(), description="of every step that steps does not name")
    steps: dict[RayStep, RayWorkers] = Field(default_factory=dict, description="a step → its workers")
    cpus: int | None = Field(default=None, ge=1, description="CPUs of a Ray started here; by default all")
    object_store_gb: float | None = Field(
        default=None, ge=0.08, description="shared memory of a Ray started here, in GB; by default Ray's own choice"
    )
    wait_seconds: float = Field(
        default=300.0, gt=0, description="how long to wait for room for the first worker before giving up"
    )
    retries: int = Field(
        default=3, ge=0, description="how often a batch is given to another worker when one dies on it"
    )

    def workers_of(self, step: str) -> RayWorkers:
        """The workers of a step."""
        return {str(name): workers for name, workers in self.steps.items()}.get(step, self.workers)
