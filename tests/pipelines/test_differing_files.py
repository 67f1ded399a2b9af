"""Files of one source that differ in their columns and types give what the plain rules give, row by row."""

import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import ibis
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.profiles.parquet import read_manifest
from pipelines.engine import Engine
from pipelines.source_rows import FILE, ROW, numbered_profiles
from tests.pipelines.frame_cases import compute, expected, require_agreement, sync_of
from tests.running import make_sync, run, write_profiles

SYNC: dict[str, Any] = {
    "updated_at": "moment",
    "accounts": {
        "user_id": {
            "column": "user",
            "attributes": {
                "city": {"column": "city", "too_long": "truncate"},
                "level": "level",
                "price": "price",
                "score": {"column": "score", "decimals": 2},
                "until": "until",
            },
        },
        "registration_id": {"column": "device", "attributes": {"device_city": "city", "seen": "moment"}},
    },
}
# column -> the types that it may have beside each other, and values that fit into all of them
COLUMNS: Mapping[str, tuple[Sequence[pa.DataType | None], Sequence[Any]]] = {
    "user": (
        [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string()), None],
        ["u1", "u2", "u3", "ü", " ", None, "u\t1"],
    ),
    "device": ([pa.string(), pa.string_view(), None], ["d1", "u2", "", None, "d" * 37]),
    "city": ([pa.string(), pa.null(), pa.large_string(), None], ["上海", "กรุงเทพ", "", None, "х" * 26, "a\nb"]),
    "level": ([pa.int8(), pa.uint8(), pa.int64(), pa.uint32(), pa.null(), None], [0, 1, 127, None]),
    "price": ([pa.decimal128(5, 2), pa.decimal256(38, 2), pa.decimal32(6, 2), None], [Decimal("0.50"), None]),
    "score": ([pa.float32(), pa.float64(), pa.float16(), None], [0.5, -0.0, float("nan"), float("inf"), None]),
    "until": (
        [pa.timestamp("ns"), pa.timestamp("us"), pa.timestamp("ms"), None],
        [datetime(1969, 12, 31, 23, 59, 59, 999_000), datetime(2024, 2, 29), None],
    ),
    "moment": (
        [pa.timestamp("ns", "UTC"), pa.timestamp("us", "Asia/Shanghai"), pa.timestamp("ms", "UTC"), pa.null()],
        [datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, microsecond=1000, tzinfo=UTC), None],
    ),
}
_schemas = st.fixed_dictionaries({name: st.sampled_from(types) for name, (types, _) in COLUMNS.items()}).filter(
    lambda types: types["user"] is not None or types["device"] is not None
)
_rows = st.lists(st.fixed_dictionaries({name: st.sampled_from(values) for name, (_, values) in COLUMNS.items()}))


def write(path: Path, types: Mapping[str, pa.DataType | None], rows: Sequence[Mapping[str, Any]]) -> Path:
    """A file of the columns that have a type, and one that no other file has."""
    columns = {
        name: pa.nulls(len(rows)) if pa.types.is_null(kind) else pa.array([row.get(name) for row in rows], kind)
        for name, kind in types.items()
        if kind is not None
    }
    pq.write_table(pa.table({f"new_{path.stem}": pa.array(range(len(rows))), **columns}), path)
    return path


WHOLE = {name: types[0] for name, (types, _) in COLUMNS.items()}


@settings(max_examples=8, deadline=None)
@given(files=st.lists(st.tuples(_schemas, _rows), min_size=1, max_size=4))
def test_files_of_any_widths_give_the_references_frames(
    engine: Engine, files: list[tuple[dict[str, pa.DataType | None], list[dict[str, Any]]]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths = [write(Path(folder) / "whole.parquet", WHOLE, [])]
        paths += [write(Path(folder) / f"{number}.parquet", *each) for number, each in enumerate(files)]
        known = {"u1": {"level": "1", "city": "上海"}, "d1": {"seen": "2026-01-01T00:00:00Z"}}
        computed = compute(engine, paths, SYNC, acknowledged=known)
        require_agreement(computed, expected(paths, SYNC, acknowledged=known))


@settings(max_examples=20, deadline=None)
@given(files=st.lists(_schemas, min_size=1, max_size=5))
def test_the_engine_reads_the_types_that_the_manifest_promises(
    engine: Engine, files: list[dict[str, pa.DataType | None]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths = [write(Path(folder) / "whole.parquet", WHOLE, [])]
        paths += [write(Path(folder) / f"{number}.parquet", types, [{}]) for number, types in enumerate(files)]
        mapping = sync_of(SYNC)
        manifest = read_manifest([str(path) for path in paths], columns=mapping.columns(), base=Path("/"))
        table = numbered_profiles(engine, manifest, mapping)
        for name in ("user", "device", "city", "level", "price"):
            promised = ibis.Schema.from_pyarrow(pa.schema([manifest.schema.field(name)]))[name]
            read = table[name].type()
            assert read == promised.copy(nullable=True) or (read.is_string() and promised.is_string())
        units = {name: manifest.schema.field(name).type.unit for name in ("until", "moment")}
        assert {name: table[name].type().scale == 9 for name in units} == {n: u == "ns" for n, u in units.items()}
        assert table.score.type().is_float64() == (manifest.schema.field("score").type == pa.float64())


def test_rows_keep_the_number_of_their_file_and_their_place_in_it(engine: Engine, tmp_path: Path) -> None:
    """Also where files that are alike stand apart from each other."""
    paths = []
    for number in range(7):
        types = {**WHOLE, "level": (pa.int8(), pa.int64(), None)[number % 3]}
        rows = [{"user": f"u{number}-{row}", "level": row % 100} for row in range(300)]
        paths.append(write(tmp_path / f"{number}.parquet", types, rows))
    manifest = read_manifest([str(path) for path in paths], columns=sync_of(SYNC).columns(), base=Path("/"))
    table = numbered_profiles(engine, manifest, sync_of(SYNC))
    found = engine.rows(table.select("user", "level", file=table[FILE], row=table[ROW]))
    assert len(found) == 7 * 300
    for row in found:
        assert row["user"] == f"u{row['file']}-{row['row']}"
        assert row["level"] == (None if row["file"] % 3 == 2 else row["row"] % 100)


def test_nanoseconds_beside_microseconds_are_cut_and_never_rounded(engine: Engine, tmp_path: Path) -> None:
    """A cast of the engine would make the next second of it, and fail for a year that nanoseconds do not reach."""
    fine = pa.array([1_999_999_999, -1, 1_000_000_000], pa.timestamp("ns"))
    coarse = pa.array([datetime(9999, 12, 31, 23, 59, 59)], pa.timestamp("us"))
    for zone in (None, "UTC"):
        files = []
        for name, until in (("fine", fine), ("coarse", coarse)):
            users = pa.array([f"{name}{number}" for number in range(len(until))])
            path = tmp_path / f"{name}-{zone}.parquet"
            pq.write_table(pa.table({"user": users, "until": until.cast(pa.timestamp(until.type.unit, zone))}), path)
            files.append(path)
        sync = {"accounts": {"user_id": {"column": "user", "attributes": {"until": "until"}}}}
        computed = compute(engine, files, sync, folder=tmp_path / f"frames-{zone}")
        assert {account: change.set["until"] for account, change in computed.changes["user_id"].items()} == {
            "fine0": "1970-01-01T00:00:01Z",
            "fine1": "1969-12-31T23:59:59Z",
            "fine2": "1970-01-01T00:00:01Z",
            "coarse0": "9999-12-31T23:59:59Z",
        }


def test_the_newest_of_one_account_is_found_over_files_of_other_units(engine: Engine, tmp_path: Path) -> None:
    moments = {"ns": 1_500_001_999, "us": 1_500_001, "ms": 1_500}
    paths = [
        write(
            tmp_path / f"{unit}.parquet",
            {**WHOLE, "moment": pa.timestamp(unit, "UTC")},
            [{"user": "u1", "city": unit, "moment": moments[unit]}],
        )
        for unit in ("us", "ns", "ms")
    ]
    computed = compute(engine, paths, SYNC)
    assert computed.changes["user_id"]["u1"].set["city"] == "ns", "the same microsecond, and a later file"
    require_agreement(computed, expected(paths, SYNC))
    computed = compute(engine, list(reversed(paths)), SYNC)
    assert computed.changes["user_id"]["u1"].set["city"] == "us"


def test_a_run_says_which_columns_some_files_lack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTRIBUTE_SYNC_DATA", str(tmp_path / "data"))
    users = {"user": ["u1", "u2"], "town": ["上海", "北京"]}
    write_profiles(tmp_path / "profiles" / "a.parquet", users)
    write_profiles(tmp_path / "profiles" / "b.parquet", {"device": ["d1"], "town": ["大阪"], "on": [True]})
    accounts = {
        "user_id": {"column": "user", "attributes": {"city": "town", "old": {"column": "user", "null": "remove"}}},
        "registration_id": {"column": "device", "where": {"on": True}, "attributes": {"device_city": "town"}},
    }
    attributes = {"source": {"parquet": "profiles/*.parquet"}, "accounts": accounts}
    ran = run(make_sync(tmp_path, attributes))
    assert ran.succeeded, ran.failure
    first, second = (str(tmp_path / "profiles" / f"{name}.parquet") for name in ("a", "b"))
    assert ran.metadata("user_profiles")["missing_columns"] == {
        "user": {"files": 1, "profiles": 1, "first_file": second},
        "device": {"files": 1, "profiles": 2, "first_file": first},
        "on": {"files": 1, "profiles": 2, "first_file": first},
    }
    assert [ran.metadata(f"{kind}_attributes")["changed"] for kind in ("user_id", "registration_id")] == [2, 1]
