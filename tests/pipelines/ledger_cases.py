"""Small frames and ledgers of pushes over them, for what is made of ledgers."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from connectors.tencent_push.ledger import Ledger, Sent, Settled
from connectors.tencent_push.protocol import Command

Set = Mapping[str, str]
Call = tuple[Command, Sequence[int], Sequence[int] | None, Sequence[int]]  # command, sent, acknowledged, maybe written

NAMES = pa.list_(pa.string())


def write_frame(path: Path, *changes: tuple[str, Set, Sequence[str]], names: Sequence[str] = ("city", "note")) -> Path:
    """A frame as `compute_frames` writes it: (account, what to set, what to remove) per row."""
    columns = {"account": pa.array([account for account, _, _ in changes], pa.string())}
    for name in names:
        columns[name] = pa.array([to_set.get(name) for _, to_set, _ in changes], pa.string())
    columns["changed"] = pa.array([[name for name in names if name in to_set] for _, to_set, _ in changes], NAMES)
    columns["removed"] = pa.array([list(removed) for _, _, removed in changes], NAMES)
    columns["source_file"] = pa.array(["profiles.parquet"] * len(changes), pa.string())
    columns["source_row"] = pa.array(range(len(changes)), pa.int64())
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def write_ledger(path: Path, frame_file: str, calls: Iterable[Call], *, frame: str) -> Path:
    """`acknowledged` None in a call means that it was still in flight when the push died."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(Ledger.open(path, {"frame": frame, "frame_file": frame_file})) as ledger:
        for command, sent, acknowledged, maybe_written in calls:
            batch = ledger.next_batch_id()
            ledger.record(sent=[Sent(batch, command, sent)])
            if acknowledged is not None:
                ledger.record(settled=[Settled(batch, command, acknowledged, maybe_written)])
    return path
