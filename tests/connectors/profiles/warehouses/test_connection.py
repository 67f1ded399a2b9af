"""Connecting is tried again where that can help, a bounded number of times, and no step outlives its time."""

import threading
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from connectors.profiles.errors import WarehouseTimeoutError, WarehouseUnreachableError
from connectors.profiles.warehouses import connection, drivers
from connectors.profiles.warehouses.connection import Connection
from connectors.profiles.warehouses.warehouse import extract

RunSql = Callable[..., list[tuple[object, ...]]]


def failing(times: int, *, is_passing: bool, attempts: list[int]) -> Callable[[], drivers.Warehouse]:
    class Nothing:
        def cancel(self) -> None: ...

        def close(self) -> None: ...

    def connect() -> drivers.Warehouse:
        attempts.append(1)
        if len(attempts) <= times:
            raise WarehouseUnreachableError("gone for now", is_passing=is_passing)
        return Nothing()  # type: ignore[return-value]  # no driver is asked

    return connect


def test_a_connection_is_tried_again_until_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    paused: list[float] = []
    monkeypatch.setattr(connection, "CONNECT_PAUSES_SECONDS", (1.0, 4.0, 10.0))
    monkeypatch.setattr("connectors.profiles.warehouses.connection.time.sleep", paused.append)
    attempts: list[int] = []
    with Connection(failing(2, is_passing=True, attempts=attempts), where="here", timeout_seconds=60):
        assert len(attempts) == 3
    assert paused == [1.0, 4.0]


def test_the_tries_are_bounded_and_the_last_error_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts: list[int] = []
    with (
        pytest.raises(WarehouseUnreachableError, match="gone for now"),
        Connection(failing(99, is_passing=True, attempts=attempts), where="here", timeout_seconds=60),
    ):
        pass
    assert len(attempts) == len(connection.CONNECT_PAUSES_SECONDS) + 1 == 5


def test_what_will_not_pass_is_told_at_once() -> None:
    attempts: list[int] = []
    with (
        pytest.raises(WarehouseUnreachableError),
        Connection(failing(99, is_passing=False, attempts=attempts), where="here", timeout_seconds=60),
    ):
        pass
    assert len(attempts) == 1


def test_a_time_out_of_the_step_s_own_is_not_taken_for_the_deadline() -> None:
    def fail(_: drivers.Warehouse) -> None:
        raise TimeoutError("the step's own")

    with (
        pytest.raises(TimeoutError, match="the step's own"),
        Connection(failing(0, is_passing=False, attempts=[]), where="here", timeout_seconds=60) as opened,
    ):
        opened.run(fail)


def test_the_time_runs_over_all_steps_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_CANCEL_ATTEMPTS", 0)
    release = threading.Event()
    with (
        pytest.raises(WarehouseTimeoutError, match="in here did not end"),
        Connection(failing(0, is_passing=False, attempts=[]), where="here", timeout_seconds=0.3) as opened,
    ):
        for _ in range(100):
            opened.run(lambda _: release.wait(0.05))
        raise AssertionError("a hundred steps of 50 ms fitted into 0.3 s")
    release.set()


@pytest.mark.parametrize(
    ("limit", "is_passing"),
    [("ALTER ROLE crowded CONNECTION LIMIT 0", True), ("ALTER ROLE crowded NOLOGIN", False)],
)
def test_postgresql_s_reasons_are_told_apart(
    limit: str, *, is_passing: bool, postgres_uri: str, postgres_sql: RunSql, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    postgres_sql("DROP ROLE IF EXISTS crowded", "CREATE ROLE crowded LOGIN", limit)
    uri = postgres_uri.replace("postgres:@", "crowded:@")
    with pytest.raises(WarehouseUnreachableError) as caught:
        extract(uri, "SELECT 1 AS a", tmp_path / "out")
    assert caught.value.is_passing is is_passing
    monkeypatch.setattr(connection, "CONNECT_PAUSES_SECONDS", (0.0,))
    monkeypatch.setattr(
        "connectors.profiles.warehouses.connection.time.sleep",
        lambda _: postgres_sql("ALTER ROLE crowded CONNECTION LIMIT -1 LOGIN"),
    )
    if is_passing:
        assert extract(uri, "SELECT 1 AS a", tmp_path / "out").rows == 1


def test_postgresql_ends_a_query_that_takes_too_long_and_keeps_a_lower_limit_of_its_own(
    postgres_uri: str, postgres_sql: RunSql, tmp_path: Path
) -> None:
    with pytest.raises(WarehouseTimeoutError, match=r"did not end within 0\.01.* minutes"):
        extract(postgres_uri, "SELECT 1 AS a FROM (SELECT pg_sleep(60)) AS s", tmp_path / "out", timeout_seconds=1)
    assert list(tmp_path.iterdir()) == []
    setting = (
        "SELECT setting FROM pg_settings WHERE name IN ('statement_timeout', 'transaction_isolation') ORDER BY name"
    )
    for options, expected in (("", "160000"), ("&options=-c%20statement_timeout%3D5000", "5000")):
        manifest = extract(postgres_uri + options, setting, tmp_path / "out", timeout_seconds=100)
        assert pq.read_table(manifest.files[0].path)["setting"].to_pylist() == [expected, "repeatable read"]


def test_a_query_of_postgresql_sees_one_state_also_in_the_functions_that_it_calls(
    postgres_uri: str, postgres_sql: RunSql, tmp_path: Path
) -> None:
    postgres_sql(
        "CREATE TABLE moving AS SELECT i, 1 AS state FROM generate_series(1, 60000) AS s(i)",
        "CREATE FUNCTION moving_state() RETURNS int LANGUAGE plpgsql VOLATILE AS "
        "'BEGIN RETURN (SELECT state FROM moving LIMIT 1); END'",
    )
    changed: list[int] = []

    def change(_rows: int) -> None:
        if not changed:
            postgres_sql("UPDATE moving SET state = 2")
            changed.append(1)

    query = "SELECT state, moving_state() AS inner_state, repeat('x', 900) AS pad FROM moving"
    manifest = extract(postgres_uri, query, tmp_path / "out", rows_per_file=1_000, on_rows=change)
    assert changed
    for file in manifest.files:
        rows = pq.read_table(file.path, columns=["state", "inner_state"])
        assert set(rows["state"].to_pylist()) | set(rows["inner_state"].to_pylist()) == {1}


def test_duckdb_ends_a_query_that_takes_too_long(tmp_path: Path) -> None:
    duckdb.connect(str(tmp_path / "a.duckdb")).close()
    query = "SELECT hash(a.range * b.range) AS a FROM range(1000000) a, range(100000) b ORDER BY 1"
    with pytest.raises(WarehouseTimeoutError, match=r"in duckdb:.*a\.duckdb did not end within"):
        extract(f"duckdb://{tmp_path}/a.duckdb", query, tmp_path / "out", timeout_seconds=0.5, memory_limit="200MB")
    assert [path.name for path in tmp_path.iterdir()] == ["a.duckdb"]
