import signal
import threading
from collections.abc import Generator, Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from connectors.profiles.warehouses import connection, drivers
from connectors.profiles.warehouses.sql_text import TableName
from connectors.profiles.warehouses.warehouse import extract


class Shelf:
    """A warehouse of two fixed batches: what a new driver must do, and nothing more."""

    def __init__(self) -> None:
        self.closed = False

    def all_of(self, table: TableName) -> str:
        return " ".join(table.parts)

    def describe(self, query: str) -> pa.Schema:
        fields = {"a": pa.int64(), "b": pa.large_string()}
        return pa.schema([(name, fields[name]) for name in query.split()])

    def select(self, query: str, fields: Sequence[pa.Field]) -> str:
        return " ".join(field.name for field in fields)

    def read(self, query: str) -> Generator[pa.RecordBatch, None, None]:
        yield pa.record_batch([pa.array(["x", "y"], pa.large_string())], schema=self.describe(query))
        yield pa.record_batch([pa.array(["z"], pa.large_string())], schema=self.describe(query))

    def cancel(self) -> None:
        raise AssertionError("nothing was interrupted")

    def close(self) -> None:
        self.closed = True


def test_a_new_driver_is_one_class_and_one_row_of_the_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shelf = Shelf()
    monkeypatch.setattr(drivers, "DRIVERS", {**drivers.DRIVERS, "shelf": lambda uri, settings: shelf})
    manifest = extract("shelf:any", "a b", tmp_path / "out", columns=["b"])
    assert (manifest.rows, manifest.schema) == (3, pa.schema([("b", pa.string())]))
    assert shelf.closed


class Interrupted(Shelf):
    """Its rows never come, and its caller is interrupted while it waits for them."""

    def __init__(self, *, obeys: bool) -> None:
        super().__init__()
        self.obeys = obeys
        self.ended = threading.Event()

    def read(self, query: str) -> Generator[pa.RecordBatch, None, None]:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        self.ended.wait(30)
        yield from super().read(query)

    def cancel(self) -> None:
        if self.obeys:
            self.ended.set()


@pytest.mark.parametrize("obeys", [True, False])
def test_a_connection_is_closed_after_an_interrupt_but_never_under_a_step_that_still_runs(
    obeys: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shelf = Interrupted(obeys=obeys)
    monkeypatch.setattr(drivers, "DRIVERS", {"shelf": lambda uri, settings: shelf})
    if not obeys:
        monkeypatch.setattr(connection, "_CANCEL_WAIT_SECONDS", 0)
    with pytest.raises(KeyboardInterrupt):
        extract("shelf:any", "a b", tmp_path / "out")
    assert shelf.closed == obeys
    assert list(tmp_path.iterdir()) == []
    shelf.ended.set()


@pytest.mark.parametrize("in_time", [True, False])
def test_an_interrupt_while_connecting_is_passed_on_and_a_connection_that_still_comes_is_closed(
    in_time: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shelf, let_in = Shelf(), threading.Event()

    def connect(uri: str, settings: drivers.OpenSettings) -> Shelf:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        let_in.wait(0.2 if in_time else 30)
        return shelf

    monkeypatch.setattr(drivers, "DRIVERS", {"shelf": connect})
    monkeypatch.setattr(connection, "_CANCEL_WAIT_SECONDS", 30 if in_time else 0)
    with pytest.raises(KeyboardInterrupt):
        extract("shelf:any", "a b", tmp_path / "out")
    assert shelf.closed == in_time
    assert list(tmp_path.iterdir()) == []
    let_in.set()
