"""The benchmark's own parts: every warehouse holds the same profiles, and no run that failed becomes a figure."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from connectors.profiles.warehouses.warehouse import extract
from tests.benchmarks.extract.__main__ import _OURS, Measured, WayError, measure, table
from tests.benchmarks.extract.filling import fill_duckdb, fill_mariadb, fill_postgresql, fill_sqlite
from tests.benchmarks.extract.ways import QUERY
from tests.mariadb_server import MariaDBServer

ROWS = 500


def test_every_warehouse_holds_the_same_profiles(tmp_path: Path, postgres_uri: str, mariadb: MariaDBServer) -> None:
    fill_postgresql(postgres_uri, ROWS)
    fill_mariadb(mariadb, ROWS)
    fill_duckdb(tmp_path / "a.duckdb", ROWS)
    fill_sqlite(tmp_path / "a.sqlite", ROWS)
    found = {}
    for name, uri in (
        ("postgresql", postgres_uri), ("mariadb", mariadb.uri), ("duckdb", f"duckdb://{tmp_path}/a.duckdb"),
        ("sqlite", f"sqlite://{tmp_path}/a.sqlite"),
    ):  # fmt: skip
        manifest = extract(uri, QUERY, tmp_path / name)
        rows = pq.read_table(manifest.files[0].path)
        rows = rows.drop_columns(["signed_up_at", "updated_at"])  # SQLite's have whole seconds and no zone
        found[name] = [{**row, "score": round(row["score"], 9)} for row in rows.to_pylist()]
    assert len(found["postgresql"]) == ROWS
    for name, profiles in found.items():
        assert sorted(profiles, key=str) == sorted(found["postgresql"], key=str), name


def test_a_way_is_measured_in_a_process_of_its_own_and_its_failure_is_no_figure(tmp_path: Path) -> None:
    fill_duckdb(tmp_path / "a.duckdb", ROWS)
    address = f"duckdb://{tmp_path}/a.duckdb"
    found = measure(_OURS, address, rows=ROWS, repeat=1)
    assert found.rows == ROWS
    assert found.seconds > 0
    assert found.peak_mb is not None
    assert found.peak_mb > 10
    with pytest.raises(WayError, match="it read 500 rows"):
        measure(_OURS, address, rows=ROWS + 1, repeat=1)
    with pytest.raises(WayError, match="WarehouseUnreachableError"):
        measure(_OURS, f"duckdb://{tmp_path}/b.duckdb", rows=ROWS, repeat=1)


def test_the_table_says_what_could_not_be_measured() -> None:
    shown = table([("MariaDB", "ours", Measured(2.0, 1_000_000, 150.4)), ("MariaDB", "theirs", "not there")])
    assert "| MariaDB | ours | 2.0 | 500,000 | 150 MB |" in shown
    assert "| MariaDB | theirs | not there | | |" in shown
