"""Random numbers of the sample profiles: one for every (seed, name, index), independent of all others.

Counting instead of a running generator makes a row the same whatever part or chunk it is made in, and no number depends
on the NumPy release. Not for secrets. Knows nothing of profiles.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Indexes = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # the step and the two factors of SplitMix64
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


@dataclass(frozen=True, slots=True)
class Draws:
    """The numbers of the given indexes under one seed; the same `name` always means the same numbers."""

    seed: int
    indexes: Indexes

    def bits(self, name: str) -> Indexes:
        """64 random bits for each index."""
        key = hashlib.blake2b(f"{self.seed}:{name}".encode(), digest_size=8).digest()
        bits = self.indexes * _GOLDEN + np.uint64(int.from_bytes(key, "little"))
        bits = (bits ^ (bits >> np.uint64(30))) * _FIRST
        bits = (bits ^ (bits >> np.uint64(27))) * _SECOND
        mixed: Indexes = bits ^ (bits >> np.uint64(31))
        return mixed

    def uniform(self, name: str) -> npt.NDArray[np.float64]:
        """From 0 (included) to 1 (excluded)."""
        return (self.bits(name) >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def below(self, name: str, limit: npt.NDArray[np.int64] | int) -> npt.NDArray[np.int64]:
        """Whole numbers from 0 to `limit - 1`; the limit may differ for each index."""
        return (self.uniform(name) * limit).astype(np.int64)

    def chance(self, name: str, share: float) -> Mask:
        """True for about `share` of the indexes."""
        return self.uniform(name) < share

    def kind(self, name: str, shares: Sequence[float]) -> npt.NDArray[np.int64]:
        """The number of the share that was hit; `len(shares)` for what the shares leave over."""
        return np.searchsorted(np.cumsum(shares), self.uniform(name), side="right").astype(np.int64)
