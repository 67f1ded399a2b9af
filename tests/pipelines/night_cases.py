"""Nights in a row over one data folder, with a push that has everything acknowledged: the state is the true one."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from connectors.profiles.parquet import read_manifest
from connectors.tencent_push.protocol import AccountType, Command
from pipelines.acknowledged import AcknowledgedAttributes, Owner
from pipelines.engine import Engine
from pipelines.frames import compute_frames
from tests.pipelines.frame_cases import METADATA, Computed, Row, as_computed, sync_of, write_source
from tests.pipelines.ledger_cases import Call, write_ledger


class Nights:
    """Nights in a row over one data folder: frames, a push that has everything acknowledged, its fold."""

    def __init__(self, engine: Engine, root: Path, *, schema: pa.Schema | None = None) -> None:
        self.engine = engine
        self.schema = schema
        self.root = root
        self.count = 0

    def state(self, kind: AccountType) -> AcknowledgedAttributes:
        return AcknowledgedAttributes(self.root / kind.value, Owner("host", 1, "sync", kind))

    def next_folder(self) -> Path:
        """An empty folder for the files of one more night."""
        self.count += 1
        folder = self.root / f"night-{self.count}"
        folder.mkdir()
        return folder

    def compute(self, rows: Sequence[Row], sync: Mapping[str, Any]) -> Computed:
        """A night over `rows`, parted into two files."""
        assert self.schema is not None
        self.files = write_source(self.next_folder(), rows[::2], rows[1::2], schema=self.schema)
        return self.compute_files(self.files, sync)

    def compute_files(self, files: Sequence[Path], sync: Mapping[str, Any]) -> Computed:
        mapping = sync_of(sync)
        states = {kind: self.state(kind) for kind in mapping.account_types()}
        generations = {kind: state.current() for kind, state in states.items()}
        found = compute_frames(
            self.engine,
            read_manifest([str(file) for file in files], columns=mapping.columns(), base=Path("/")),
            mapping=mapping,
            acknowledged={kind: state.table(self.engine) for kind, state in states.items()},
            folder=self.root / f"night-{self.count}" / "frames",
            metadata=METADATA,
        )
        for kind, state in states.items():
            state.learn(self.engine, found.learned[kind], since=generations[kind])
        return as_computed(found)

    def push(self, computed: Computed) -> None:
        for frame in computed.frames.frames:
            numbers = list(range(frame.rows))
            name = f"night-{self.count}"
            ledger = self.state(frame.account_type).ledger_file(name)
            path = str(frame.path.relative_to(self.root))
            calls: list[Call] = [(command, numbers, numbers, []) for command in (Command.SET_ATTR, Command.REMOVE_ATTR)]
            write_ledger(ledger, path, calls, frame=name)
            self.state(frame.account_type).fold(self.engine, ledger, root=self.root)
