"""The guards of a sync, measured on a frame before anything is sent: which of them the run breaks, and by how much.

Each fraction is of one account type:

    max_changed_fraction   changed accounts / all valid accounts, changed and unchanged; departed accounts that are to
                           be cleared (`departed: remove`) are among the changed, so that a source that lost half its
                           users is seen
    max_failed_fraction    profiles with an error of validation (no notice) / all profiles of the source

Nothing is stopped here; see checks.py. While it pushes, the sink applies `max_failed_fraction` once more, to the share
of its changes that were rejected or errored (connectors/tencent_push/stop_rules.py).
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from connectors.tencent_push.protocol import AccountType
from pipelines.engine import Engine
from pipelines.frames import Counts
from pipelines.mapping import Guards
from pipelines.reasons import Severity


@dataclass(frozen=True, slots=True)
class Measured:
    """What the guards of one account type look at. Only `min_profiles` applies to a first run."""

    counts: Counts
    failed_profiles: int
    is_first_run: bool

    @property
    def accounts(self) -> int:
        """Valid accounts of the source, and departed ones that would be cleared."""
        return self.counts.changed + self.counts.unchanged

    @property
    def changed_fraction(self) -> float:
        return self.counts.changed / self.accounts if self.accounts else 0.0

    @property
    def failed_fraction(self) -> float:
        return self.failed_profiles / self.counts.profiles if self.counts.profiles else 0.0

    def facts(self, guards: Guards) -> dict[str, int | float | bool]:
        """The numbers beside the limits that are set, for metadata."""
        limits = {name: limit for name, limit in guards.model_dump().items() if limit is not None}
        return {
            "first_run": self.is_first_run,
            "profiles": self.counts.profiles,
            "failed_profiles": self.failed_profiles,
            "accounts": self.accounts,
            "changed": self.counts.changed,
            "departed": self.counts.departed,
            "changed_fraction": round(self.changed_fraction, 6),
            "failed_fraction": round(self.failed_fraction, 6),
            **limits,
        }

    def broken(self, guards: Guards) -> Iterator[str]:
        """A sentence for every guard that is passed; at its limit none is."""
        profiles, least = self.counts.profiles, guards.min_profiles
        if least is not None and profiles < least:
            yield f"The source has {profiles:,} profiles; guards.min_profiles asks for {least:,}."
        if self.is_first_run:
            return
        limit = guards.max_changed_fraction
        if limit is not None and self.changed_fraction > limit:
            gone = self.counts.departed
            departed = f", {gone:,} of them since no profile has them any more" if gone else ""
            yield (
                f"{self.counts.changed:,} of {self.accounts:,} accounts would change{departed}, a share of "
                f"{self.changed_fraction:.4g}; guards.max_changed_fraction allows {limit:g}."
            )
        limit = guards.max_failed_fraction
        if limit is not None and self.failed_fraction > limit:
            yield (
                f"{self.failed_profiles:,} of {profiles:,} profiles have an error, a share of "
                f"{self.failed_fraction:.4g}; guards.max_failed_fraction allows {limit:g}."
            )


def count_failed_profiles(engine: Engine, invalid_rows: Path, kinds: Iterable[AccountType]) -> dict[AccountType, int]:
    """Profiles with at least one error of the type, or of no type at all (no account, one that both types claim)."""
    rows = engine.parquet("guarded_invalid_rows", invalid_rows)
    errors = rows.filter(rows.severity == Severity.ERROR.value)
    counted: dict[AccountType, int] = {}
    for kind in kinds:
        mine = errors.filter((errors.account_type == kind.value) | errors.account_type.isnull())
        profiles = mine.select("source_file", "source_row").distinct()
        counted[kind] = int(engine.rows(profiles.aggregate(profiles=profiles.count()))[0]["profiles"])
    return counted


def measured(
    counts: Counts, kind: AccountType, *, failed_profiles: Mapping[AccountType, int], generation: int
) -> Measured:
    """`generation` is what was acknowledged before the run; 0 is nothing, so that the run is a first one."""
    return Measured(counts, failed_profiles.get(kind, 0), is_first_run=generation == 0)
