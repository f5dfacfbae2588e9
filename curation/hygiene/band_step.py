"""Band keys of MinHash signatures as a step that workers elsewhere can take. What they are for is in ``near``."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from curation.engine import Batch, Worker, failures_frame
from curation.hygiene.bands import Bands, band_keys

__all__ = ["BandStep"]


@dataclass(frozen=True)
class BandStep:
    """Text to one key a band. It has no ledger: reading keys would take as long as making them."""

    plan: Bands
    n: int
    seed: int
    batch_rows: int

    @property
    def name(self) -> str:
        return "minhash"

    def open(self) -> Worker:
        return self._keys

    def _keys(self, batch: pl.DataFrame) -> Batch:
        keys = band_keys(batch["text"], plan=self.plan, n=self.n, seed=self.seed)
        found = pl.Series("keys", keys, dtype=pl.Array(pl.UInt64, self.plan.bands))
        return Batch(found.to_frame(), failures_frame([]))
