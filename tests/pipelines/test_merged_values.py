"""Values that truncation makes equal are counted by the texts that they became, attribute by attribute."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipelines.engine import Engine
from pipelines.merged_values import count_merged_values
from tests.pipelines.frame_cases import compute, write_source
from tests.running import make_sync, run, write_profiles

SCHEMA = pa.schema([("user", pa.string()), ("city", pa.string()), ("note", pa.string())])
ACCOUNTS: dict[str, Any] = {
    "user_id": {
        "column": "user",
        "attributes": {
            "city": {"column": "city", "too_long": "truncate"},
            "note": {"column": "note", "too_long": "truncate"},
            "same": "city",
        },
    }
}
LONG = "上海市浦东新区世纪大道一百号环球金"  # 51 bytes


def counted(engine: Engine, folder: Path, *cities: str, notes: tuple[str, ...] = ()) -> dict[str, int]:
    rows = [{"user": f"u{number}", "city": city} for number, city in enumerate(cities)]
    rows += [{"user": f"n{number}", "note": note} for number, note in enumerate(notes)]
    computed = compute(engine, write_source(folder, rows, schema=SCHEMA), {"accounts": ACCOUNTS})
    return count_merged_values(engine, computed.frames.invalid_rows)


def test_values_that_become_one_text_are_counted_once_per_text(engine: Engine, tmp_path: Path) -> None:
    assert len(LONG.encode()) == 51
    others = ("กรุงเทพมหานคร" * 3 + "a", "กรุงเทพมหานคร" * 3 + "b", "é" * 26, "é" * 27)
    assert counted(engine, tmp_path, LONG, LONG[:-1] + "融", LONG + "中心", *others) == {"city": 3}


def test_equal_values_and_values_of_other_attributes_are_not_merged(engine: Engine, tmp_path: Path) -> None:
    assert counted(engine, tmp_path, LONG, LONG, "x" * 60, notes=(LONG + "1", "x" * 61)) == {}


def test_a_superseded_value_merges_with_nothing(engine: Engine, tmp_path: Path) -> None:
    rows = [{"user": "u1", "city": LONG}, {"user": "u1", "city": LONG + "1"}]
    computed = compute(engine, write_source(tmp_path, rows, schema=SCHEMA), {"accounts": ACCOUNTS})
    assert count_merged_values(engine, computed.frames.invalid_rows) == {}


def test_a_run_tells_the_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTRIBUTE_SYNC_DATA", str(tmp_path / "data"))
    write_profiles(tmp_path / "p.parquet", {"user": ["u1", "u2"], "city": [LONG, LONG + "1"], "note": ["x" * 60, None]})
    ran = run(make_sync(tmp_path, {"source": {"parquet": "p.parquet"}, "accounts": ACCOUNTS}))
    assert ran.succeeded, ran.failure
    told = {name: value for name, value in ran.metadata("invalid_rows").items() if name.startswith("merged_")}
    assert told == {"merged_by_truncation_city": 1}
