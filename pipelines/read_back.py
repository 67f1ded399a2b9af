"""Reads a sample of what was acknowledged back from Tencent, and says what share can be trusted.

No page says how soon a write shows, so that an account that differs is read again before it counts as a mismatch.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from connectors.tencent_push.pacing import Pacer
from connectors.tencent_push.protocol import MAX_ACCOUNTS_PER_CALL

SAMPLE_ACCOUNTS = 300
WAITS_SECONDS = (1.0, 3.0)
CONFIDENCE = 0.95


class ReadingClient(Protocol):
    """What is needed of client.Client."""

    def get_attr(self, accounts: Sequence[str]) -> tuple[Mapping[str, dict[str, str]], object]: ...


@dataclass(frozen=True, slots=True)
class ReadBack:
    """How many accounts were read, and how many of them hold all the values that were acknowledged.

    `differing` are the others, with what they hold; None for an account that could not be read.
    """

    sampled: int
    matching: int
    differing: Mapping[str, Mapping[str, str] | None] = field(default_factory=dict, compare=False, repr=False)

    @property
    def mismatched(self) -> int:
        return self.sampled - self.matching

    @property
    def mismatch_share_bound(self) -> float:
        """With 95 % confidence, at most this share of all acknowledged accounts differs (exact binomial bound)."""
        return upper_bound(self.mismatched, self.sampled)


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads within the quota: a call leaves when the pacer lets it. `clock` is the pacer's."""

    client: ReadingClient
    pacer: Pacer
    wait: Callable[[float], object]
    clock: Callable[[], float]

    def read(self, accounts: Sequence[str]) -> dict[str, dict[str, str]]:
        found: dict[str, dict[str, str]] = {}
        for batch in _batches(accounts):
            with self._permitted():
                attributes, _ = self.client.get_attr(batch)
            found |= attributes
        return found

    @contextmanager
    def _permitted(self) -> Iterator[None]:
        while (permit := self.pacer.take()) is None:
            self.wait(max(0.0, self.pacer.ready_at() - self.clock()))
        try:
            yield
        finally:
            self.pacer.answered(permit)


def read_back(
    client: ReadingClient,
    expected: Mapping[str, Mapping[str, str | None]],
    *,
    pacer: Pacer,
    wait: Callable[[float], object],
    clock: Callable[[], float] = time.monotonic,
) -> ReadBack:
    """Compare `expected` (account -> attribute -> value, None for one that must be gone) with what Tencent holds.

    `pacer` is the app's for get_attr: nothing else of this process may read past it. Raises TargetUnreachableError and
    CallRefusedError; then nothing is known.
    """
    reader = _Reader(client, pacer, wait, clock)
    open_accounts = _differing(reader, expected, list(expected))
    for seconds in WAITS_SECONDS:
        if not open_accounts:
            break
        wait(seconds)
        open_accounts = _differing(reader, expected, list(open_accounts))
    return ReadBack(len(expected), len(expected) - len(open_accounts), open_accounts)


def _differing(
    reader: _Reader, expected: Mapping[str, Mapping[str, str | None]], accounts: Sequence[str]
) -> dict[str, Mapping[str, str] | None]:
    """The accounts that do not hold what is expected, with what they hold."""
    found = reader.read(accounts)
    return {
        account: found.get(account)
        for account in accounts
        if account not in found or any(found[account].get(name) != value for name, value in expected[account].items())
    }


def _batches(accounts: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(accounts), MAX_ACCOUNTS_PER_CALL):
        yield accounts[start : start + MAX_ACCOUNTS_PER_CALL]


def upper_bound(hits: int, drawn: int, *, confidence: float = CONFIDENCE) -> float:
    """Clopper and Pearson's upper bound of a share of which `hits` of `drawn` were seen."""
    if drawn == 0 or hits >= drawn:
        return 1.0
    low, high = hits / drawn, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        chance = math.fsum(math.exp(_log_chance(k, drawn, share=middle)) for k in range(hits + 1))
        low, high = (middle, high) if chance > 1 - confidence else (low, middle)
    return high


def _log_chance(hits: int, drawn: int, *, share: float) -> float:
    """Logarithm of the binomial probability: the coefficients of large samples are beyond any float."""
    ways = math.lgamma(drawn + 1) - math.lgamma(hits + 1) - math.lgamma(drawn - hits + 1)
    return ways + hits * math.log(share) + (drawn - hits) * math.log1p(-share)
