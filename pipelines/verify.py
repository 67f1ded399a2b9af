"""Reads back from Tencent what a sync takes for acknowledged: a sample of the accounts, or all of them.

Which accounts differ stands in one Parquet file of the data folder, and nowhere else.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ibis
import pyarrow as pa
import pyarrow.parquet as pq

from connectors.tencent_push.errors import TargetUnreachableError
from connectors.tencent_push.pacing import Pacer, Quota
from connectors.tencent_push.protocol import AccountType, Command
from pipelines.acknowledged import certainly_held
from pipelines.adopt import adopted_at
from pipelines.engine import Engine
from pipelines.push import Push
from pipelines.read_back import CONFIDENCE, ReadBack, ReadingClient, read_back, upper_bound
from pipelines.store import whole_file

SAMPLE_ACCOUNTS = 10_000  # a second at the documented quota; without a difference, at most 0.03 % of all differ
CHUNK_ACCOUNTS = 50_000  # in memory at most
READINGS = 5  # of a chunk, while the target cannot be reached
PAUSE_SECONDS = 10.0

SCHEMA = pa.schema(
    [
        ("account", pa.string()),
        ("account_type", pa.string()),
        ("attribute", pa.string()),
        ("acknowledged", pa.string()),
        ("held", pa.string()),  # null where the app holds nothing
        ("verified_at", pa.timestamp("us", "UTC")),
    ]
)


@dataclass(frozen=True, slots=True)
class Verified:
    """Of the `acknowledged` accounts, `read` were read back, and `matching` of them hold what was acknowledged."""

    sync: str
    target: str
    acknowledged: int
    read: int
    matching: int
    differences: Path
    differences_address: str  # for people; elsewhere than the file where the data folder is in object storage
    adopted_at: str | None

    @property
    def differing(self) -> int:
        return self.read - self.matching

    @property
    def differing_share_bound(self) -> float:
        """With 95 % confidence, at most this share of all acknowledged accounts differs; exact when all were read."""
        if self.read == self.acknowledged:
            return self.differing / self.read if self.read else 0.0
        return upper_bound(self.differing, self.read)

    @property
    def text(self) -> str:
        return "\n".join(_lines(self))


def verify(
    push: Push,
    client: ReadingClient,
    engine: Engine,
    *,
    folder: Path,
    everyone: bool,
    wait: Callable[[float], object] = time.sleep,
    on_read: Callable[[int], None] = lambda _: None,
) -> Verified:
    """For the holder of the app's lock, so that nothing changes meanwhile. `on_read` hears the accounts so far.

    Raises TargetUnreachableError and CallRefusedError; then the file of differences is not there.
    """
    pacer = Quota(push.target.calls_per_second).pacer(Command.GET_ATTR)
    counts = _acknowledged_counts(push, engine)
    path = push.store.differences_of(push.sync, push.run_started_at.date(), push.run_id)
    read = matching = 0
    with ExitStack() as opened:
        beside = opened.enter_context(whole_file(path))
        writer = opened.enter_context(pq.ParquetWriter(beside, SCHEMA))
        for kind in counts:
            drawn = None if everyone else max(1, SAMPLE_ACCOUNTS * counts[kind] // sum(counts.values()))
            file = _expected_file(push, engine, kind, folder=folder, drawn=drawn)
            for expected in _chunks(file):
                found = _read_patiently(client, expected, pacer=pacer, wait=wait)
                writer.write_table(_differences(found, expected, kind))
                read, matching = read + found.sampled, matching + found.matching
                on_read(read)
    push.store.publish(path)
    adopted = [moment for kind in counts if (moment := adopted_at(push.acknowledged(kind)))]
    return Verified(
        sync=push.sync,
        target=push.target.title,
        acknowledged=sum(counts.values()),
        read=read,
        matching=matching,
        differences=path,
        differences_address=push.store.address(path),
        adopted_at=max(adopted, default=None),
    )


def _acknowledged_counts(push: Push, engine: Engine) -> dict[AccountType, int]:
    """Accounts whose every attribute is known for certain, and that hold one at least, where there are any."""
    counts = {}
    for kind, mine in push.mapping.account_types().items():
        known = push.acknowledged(kind).table(engine)
        if known is not None:
            certain = certainly_held(known, mine.attributes)
            counts[kind] = int(engine.rows(certain.aggregate(accounts=certain.count()))[0]["accounts"])
    return {kind: count for kind, count in counts.items() if count}


def _expected_file(push: Push, engine: Engine, kind: AccountType, *, folder: Path, drawn: int | None) -> Path:
    """The accounts to read with what they must hold; `drawn` at random, or all."""
    known = push.acknowledged(kind).table(engine)
    if known is None:
        raise RuntimeError(f"what was acknowledged of {kind} is gone")
    certain = certainly_held(known, push.mapping.account_types()[kind].attributes)
    file = folder / f"expected-{kind}.parquet"
    engine.write_parquet(certain if drawn is None else certain.order_by(ibis.random()).limit(drawn), file)
    return file


def _chunks(file: Path) -> Iterator[dict[str, dict[str, str | None]]]:
    with pq.ParquetFile(file) as opened:
        for batch in opened.iter_batches(batch_size=CHUNK_ACCOUNTS):
            yield {
                row.pop("account"): {name: value for name, value in row.items() if value is not None}
                for row in batch.to_pylist()
            }


def _read_patiently(
    client: ReadingClient,
    expected: Mapping[str, Mapping[str, str | None]],
    *,
    pacer: Pacer,
    wait: Callable[[float], object],
) -> ReadBack:
    """Reading changes nothing, so that a chunk can be read again when the network failed in it."""
    for _ in range(READINGS - 1):
        try:
            return read_back(client, expected, pacer=pacer, wait=wait)
        except TargetUnreachableError:
            wait(PAUSE_SECONDS)
    return read_back(client, expected, pacer=pacer, wait=wait)


def _differences(found: ReadBack, expected: Mapping[str, Mapping[str, str | None]], kind: AccountType) -> pa.Table:
    moment = datetime.now(UTC)
    rows: list[dict[str, Any]] = []
    for account, held in found.differing.items():
        for name, value in expected[account].items():
            now = None if held is None else held.get(name)
            if now != value:
                rows.append(
                    {
                        "account": account,
                        "account_type": kind.value,
                        "attribute": name,
                        "acknowledged": value,
                        "held": now,
                        "verified_at": moment,
                    }
                )
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def _lines(verified: Verified) -> Iterator[str]:
    yield f"Verified sync {verified.sync} by reading back from {verified.target}"
    if not verified.read:
        yield "  nothing is acknowledged yet"
        return
    yield (
        f"  {verified.matching:,} of {verified.read:,} accounts ({verified.matching / verified.read:.2%}) hold the "
        "values that were acknowledged"
    )
    if verified.read < verified.acknowledged:
        yield (
            f"  with {CONFIDENCE:.0%} confidence at most {verified.differing_share_bound:.2%} of all "
            f"{verified.acknowledged:,} differ; `--all` reads every one"
        )
    if verified.adopted_at:
        yield f"  adopted {verified.adopted_at}: what no run has sent is known from that alone"
    if verified.differing:
        yield f"  differing       {verified.differences_address}"
        yield (
            "  Something else changes the app, its data were reset, or what was adopted was not there. To send "
            "everything, remove this sync's folder in the data folder's acknowledged/target=..., then run again"
        )
