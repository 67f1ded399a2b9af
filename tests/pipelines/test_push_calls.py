"""The file of a run's calls: a row per call, whole however the push ended, and in constant memory."""

import tracemalloc
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectors.tencent_push.client import Fault
from connectors.tencent_push.protocol import AccountType, Command
from connectors.tencent_push.report import PushCall
from pipelines import push_calls
from pipelines.errors import DataFolderError
from pipelines.push_calls import CHUNK_ROWS, SCHEMA, SCHEMA_VERSION, PushCallWriter

USER, DEVICE = AccountType.USER_ID, AccountType.REGISTRATION_ID
SENT_AT = datetime(2026, 11, 20, 2, 0, 0, 123_456, tzinfo=UTC)
CALL = PushCall(
    batch_id="b-1",
    command=Command.SET_ATTR,
    rows=100,
    attempt=1,
    sent_at=SENT_AT,
    latency_seconds=0.0521234,
    http_status=200,
    fault=None,
    code=0,
    refused_rows=2,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data/push_calls/sync=small/date=2026-11-20/run-1.parquet"


def writer(path: Path) -> PushCallWriter:
    return PushCallWriter(path, run_id="run-1", sync="small")


def test_every_call_is_a_row(path: Path) -> None:
    lost = replace(CALL, command=Command.REMOVE_ATTR, attempt=2, http_status=None, fault=Fault.TIMEOUT, code=None)
    with writer(path) as calls:
        calls.add(CALL, USER)
        calls.add(lost, DEVICE)
    assert calls.rows == 2
    first, second = pq.read_table(path, partitioning=None).to_pylist()
    assert first == {
        "run_id": "run-1",
        "sync": "small",
        "account_type": "user_id",
        "command": "set_attr",
        "batch_id": "b-1",
        "rows": 100,
        "attempt": 1,
        "sent_at": SENT_AT,
        "latency_ms": 52.123,
        "http_status": 200,
        "fault": None,
        "code": 0,
        "refused_rows": 2,
    }
    changed = {"account_type": "registration_id", "command": "remove_attr", "attempt": 2, "http_status": None}
    assert second == first | changed | {"fault": "timeout", "code": None}


def test_the_file_names_its_schema_and_its_run(path: Path) -> None:
    with writer(path):
        pass
    schema = pq.read_schema(path)
    assert schema.equals(SCHEMA)
    assert schema.metadata[b"schema_version"] == SCHEMA_VERSION.encode()
    assert (schema.metadata[b"run_id"], schema.metadata[b"sync"]) == (b"run-1", b"small")


def test_the_columns_of_this_version_stay_as_they_are() -> None:
    """Dashboards read them: a change that breaks this needs another SCHEMA_VERSION."""
    assert SCHEMA_VERSION == "1"
    assert {field.name: str(field.type) for field in SCHEMA} == {
        "run_id": "string",
        "sync": "string",
        "account_type": "string",
        "command": "string",
        "batch_id": "string",
        "rows": "int32",
        "attempt": "int32",
        "sent_at": "timestamp[us, tz=UTC]",
        "latency_ms": "double",
        "http_status": "int32",
        "fault": "string",
        "code": "int32",
        "refused_rows": "int32",
    }


def test_a_push_without_calls_leaves_an_empty_file(path: Path) -> None:
    with writer(path) as calls:
        pass
    assert (calls.rows, pq.read_table(path, partitioning=None).num_rows) == (0, 0)


def test_a_push_that_broke_leaves_its_calls(path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), writer(path) as calls:
        calls.add(CALL, USER)
        raise KeyboardInterrupt
    assert pq.read_table(path, partitioning=None).num_rows == 1


def test_the_name_stands_for_a_whole_file_only(path: Path) -> None:
    with writer(path) as calls:
        calls.add(CALL, USER)
        assert not path.exists()
    assert [file.name for file in path.parent.iterdir()] == ["run-1.parquet"]


@pytest.mark.parametrize("count", [CHUNK_ROWS - 1, CHUNK_ROWS, CHUNK_ROWS + 1, 2 * CHUNK_ROWS])
def test_no_call_is_lost_between_chunks(path: Path, count: int) -> None:
    with writer(path) as calls:
        for number in range(count):
            calls.add(replace(CALL, batch_id=f"b-{number}", sent_at=SENT_AT + timedelta(seconds=number)), USER)
    ids = pq.read_table(path, partitioning=None)["batch_id"].to_pylist()
    assert ids == [f"b-{number}" for number in range(count)]
    assert calls.rows == count


def _most_bytes(path: Path, count: int) -> int:
    tracemalloc.start()
    with writer(path) as calls:
        for number in range(count):
            calls.add(replace(CALL, batch_id=f"b-{number}"), USER)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


def test_memory_does_not_grow_with_the_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(push_calls, "CHUNK_ROWS", 500)
    _most_bytes(tmp_path / "warm.parquet", 500)
    few, many = _most_bytes(tmp_path / "few.parquet", 1_000), _most_bytes(tmp_path / "many.parquet", 10_000)
    assert many < 1.5 * few
    monkeypatch.setattr(push_calls, "CHUNK_ROWS", 10_000)
    assert _most_bytes(tmp_path / "kept.parquet", 10_000) > 3 * few, "the measure sees what is kept"


class FullDisk(pq.ParquetWriter):  # type: ignore[misc]  # pyarrow has no types
    def write_table(self, *_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")


def test_a_full_disk_is_told_with_its_remedy_and_leaves_no_half_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pq, "ParquetWriter", FullDisk)
    with pytest.raises(DataFolderError, match="free space"), writer(path) as calls:
        calls.add(CALL, USER)
    assert list(path.parent.iterdir()) == []


def test_a_full_disk_stops_at_the_call_that_it_cannot_hold(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pq, "ParquetWriter", FullDisk)
    monkeypatch.setattr(push_calls, "CHUNK_ROWS", 2)
    with pytest.raises(DataFolderError), writer(path) as calls:
        for _ in range(10):
            calls.add(CALL, USER)
    assert calls.rows == 2


def test_what_stopped_the_push_is_told_and_not_the_disk_after_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pq, "ParquetWriter", FullDisk)
    with pytest.raises(ValueError, match="the first error"), writer(path) as calls:
        calls.add(CALL, USER)
        raise ValueError("the first error")


def test_no_column_could_hold_an_account_or_a_value() -> None:
    assert not {"account", "value", "attribute", "error_info"} & set(SCHEMA.names)
    assert [field.name for field in SCHEMA if pa.types.is_string(field.type)] == [
        "run_id", "sync", "account_type", "command", "batch_id", "fault",
    ]  # fmt: skip
