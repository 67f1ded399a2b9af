"""How new the profiles are: the newest `updated_at` that the source holds, and whether `max_age` allows its age.

From the files' footers where they tell it, else by a look of the engine at that one column.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import ibis

from connectors.profiles.footers import newest_in_footers
from connectors.profiles.lake.lake_table import TableVersion
from connectors.profiles.parquet import Manifest
from pipelines.engine import Engine
from pipelines.errors import EngineError
from pipelines.extraction import explained
from pipelines.mapping import SyncMapping
from pipelines.preflight import may_be_time
from pipelines.source_options import MaxAge
from pipelines.source_rows import numbered_profiles

# Local times without a zone, and dates east of Greenwich, are ahead of UTC: no fault, and old in any case by then.
AHEAD = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Newest:
    """The newest `updated_at`, in UTC; None where there is none that is a time. `seen_at` is the clock's time.

    `future` profiles claim a time of more than a day ahead; they do not count. `is_scanned`: footers did not tell it.
    """

    updated_at: datetime | None
    seen_at: datetime
    future: int = 0
    is_scanned: bool = False

    @property
    def age(self) -> timedelta | None:
        return None if self.updated_at is None else max(timedelta(), self.seen_at - self.updated_at)


@dataclass(frozen=True, slots=True)
class Extraction:
    """What came of reading the source: in how many seconds, and how new it is."""

    manifest: Manifest
    seconds: float
    newest: Newest | None

    def told(self, allowed: MaxAge | None) -> Iterator[str]:
        """Lines for the log."""
        files, newest = len(self.manifest.files), self.newest
        if self.manifest.partition:
            yield f"partition {self.manifest.partition}"
        if self.manifest.table:
            yield told_of(self.manifest.table)
        for passed_over in self.manifest.passed_over:
            yield f"passed over {passed_over}"
        yield f"{self.manifest.rows:,} profiles in {files:,} {'file' if files == 1 else 'files'}"
        for missing in self.manifest.missing():
            yield (
                f"{missing.files:,} of {files:,} files have no column {missing.column!r}, the first of them "
                f"{missing.first_file}: it is null in their {missing.rows:,} profiles"
            )
        stale = allowed and stale_text(newest, allowed)
        if stale:
            yield stale


def newest_update(
    manifest: Manifest,
    mapping: SyncMapping,
    *,
    now: datetime,
    engine: Callable[[], AbstractContextManager[Engine]],
) -> Newest | None:
    """None for a sync whose `updated_at` is missing or no time at all. `engine` is opened only where it is needed."""
    column = mapping.updated_at
    if column is None or not may_be_time(manifest.schema.field(column).type):
        return None
    told = newest_in_footers(manifest, column)
    if told is not None and told <= now + AHEAD:
        return Newest(told, now)
    if not manifest.rows:
        return Newest(None, now)
    try:
        with engine() as opened:
            return _scanned(opened, manifest, mapping, column=column, now=now)
    except EngineError as error:
        raise explained(manifest) or error from None


def _scanned(engine: Engine, manifest: Manifest, mapping: SyncMapping, *, column: str, now: datetime) -> Newest:
    profiles = numbered_profiles(engine, manifest, mapping)
    moment = profiles[column].try_cast("timestamp('UTC')")
    latest = ibis.literal((now + AHEAD).astimezone(UTC))
    (found,) = engine.rows(
        profiles.aggregate(newest=moment.max(where=moment <= latest), future=(moment > latest).sum())
    )
    newest: datetime | None = found["newest"]
    return Newest(newest and newest.astimezone(UTC), now, future=int(found["future"] or 0), is_scanned=True)


def stale_text(found: Newest | None, allowed: MaxAge) -> str | None:
    """What is wrong and what to do; None where the profiles are new enough."""
    ahead = f" ({found.future:,} profiles claim to be of the future and do not count)" if found and found.future else ""
    if found is None or found.updated_at is None or found.age is None:
        return f"No `updated_at` of the source could be read as a time{ahead}; max_age allows {allowed.age}. {_REMEDY}"
    if found.age <= allowed.limit:
        return None
    return (
        f"The source's newest `updated_at` is {shown(found.updated_at)}, {hours(found.age):,.1f} hours ago{ahead}; "
        f"max_age allows {allowed.age}. {_REMEDY}"
    )


_REMEDY = "See whether the job that writes the source has run and ended well; if this age is right, raise `max_age`."


def shown(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def told_of(table: TableVersion) -> str:
    at = f" of {shown(table.committed_at)}" if table.committed_at else ""
    return f"{table}{at}"


def hours(age: timedelta) -> float:
    return age.total_seconds() / 3600
