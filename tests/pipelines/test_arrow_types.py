"""Every Arrow type as a column of a Parquet file: sent as the plain rules say, or refused before a row is read."""

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.engine import Engine
from pipelines.errors import ConfigurationError
from pipelines.extraction import extract_profiles
from tests.pipelines.frame_cases import compute, expected, require_agreement
from tests.running import make_sync

MOMENT = datetime(2024, 2, 29, 23, 59, 59, 999_000)
TEXTS = ["上海", "x" * 51, "a\tb", "", None, "กรุงเทพ"]
DECIMALS = [Decimal("-0.05"), Decimal("99.90"), Decimal("0.00"), None, Decimal("1.50"), Decimal("0.01")]
DAYS = [date(1, 1, 1), date(1969, 12, 31), date(2024, 2, 29), None, date(9999, 12, 31), date(1970, 1, 1)]
MOMENTS = [MOMENT, None, datetime(1969, 12, 31, 23, 59, 59, 999_000), datetime(1970, 1, 1), MOMENT, MOMENT]
INTEGERS = [getattr(pa, f"{sign}int{bits}")() for sign in ("", "u") for bits in (8, 16, 32, 64)]

SENT: list[pa.Array] = [
    *(pa.array(TEXTS, kind) for kind in (pa.string(), pa.large_string(), pa.string_view())),
    *(pa.array(TEXTS, pa.string()).cast(pa.dictionary(index, pa.string())) for index in (pa.int8(), pa.uint32())),
    pa.array(TEXTS, pa.large_string()).dictionary_encode(),
    pa.array([True, False, None, True, True, False]),
    pa.nulls(6),
    *(pa.array([0, 1, 127, None, 7, 42], kind) for kind in INTEGERS),
    pa.array([0, 1, 127, None, 7, 42], pa.int32()).dictionary_encode(),
    *(pa.array(DECIMALS, kind(4, 2)) for kind in (pa.decimal32, pa.decimal64, pa.decimal128, pa.decimal256)),
    pa.array(DECIMALS, pa.decimal256(38, 2)),
    *(
        pa.array([0.5, -0.0, float("nan"), float("inf"), None, -2.125], f())
        for f in (pa.float16, pa.float32, pa.float64)
    ),
    *(pa.array(DAYS, kind) for kind in (pa.date32(), pa.date64())),
    *(
        pa.array(MOMENTS, pa.timestamp("us")).cast(pa.timestamp(unit), safe=False).cast(pa.timestamp(unit, zone))
        for unit in ("s", "ms", "us", "ns")
        for zone in (None, "UTC", "Asia/Shanghai", "-03:30")
    ),
]
REFUSED: list[pa.Array] = [
    *(pa.array([b"x"], kind) for kind in (pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(1))),
    *(pa.array([time(1, 2, 3)], kind) for kind in (pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns"))),
    *(pa.array([timedelta(1)], pa.duration(unit)) for unit in ("s", "ms", "us", "ns")),
    pa.array([["x"]], pa.list_(pa.string())),
    pa.array([["x"]], pa.large_list(pa.string())),
    pa.array([["x"]], pa.list_(pa.string(), 1)),
    pa.array([{"x": 1}], pa.struct([("x", pa.int8())])),
    pa.array([[("x", 1)]], pa.map_(pa.string(), pa.int8())),
    pa.array([Decimal("1.5")], pa.decimal256(39, 2)),
    pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0123456789abcdef"], pa.binary(16))),
    pa.ExtensionArray.from_storage(pa.json_(), pa.array(['{"x": 1}'])),
]


def sync_over(*columns: pa.Array) -> dict[str, Any]:
    """An attribute for each of at most ten columns, value_0 and so on."""
    attributes: dict[str, Any] = {}
    for number, column in enumerate(columns):
        attributes[f"value_{number}"] = {"column": f"value_{number}", "too_long": "truncate"}
        if pa.types.is_floating(column.type):
            attributes[f"value_{number}"]["decimals"] = 2
    return {"accounts": {"user_id": {"column": "user", "attributes": attributes}}}


def write(path: Path, *values: pa.Array, **columns: pa.Array) -> Path:
    columns |= {f"value_{number}": column for number, column in enumerate(values)}
    pq.write_table(pa.table({"user": [f"u{number}" for number in range(len(values[0]))], **columns}), path)
    return path


def extract(folder: Path, path: Path, attributes: dict[str, Any]) -> None:
    sync = make_sync(folder, {"source": {"parquet": str(path)}, **attributes})
    extract_profiles(
        sync.mapping,
        base=folder,
        destination=folder / "unused",
        yaml_file=sync.yaml_file,
        memory_limit="500MB",
        on_rows=lambda _rows: None,
    )


@pytest.mark.parametrize("first", range(0, len(SENT), 10))
def test_a_column_of_such_a_type_is_sent_as_the_plain_rules_say(engine: Engine, tmp_path: Path, first: int) -> None:
    columns = SENT[first : first + 10]
    path = write(tmp_path / "p.parquet", *columns)
    attributes = sync_over(*columns)
    extract(tmp_path, path, attributes)
    computed = compute(engine, [path], attributes)
    require_agreement(computed, expected([path], attributes))
    sent = {name for change in computed.changes["user_id"].values() for name in change.set}
    assert sent == {f"value_{number}" for number, each in enumerate(columns) if each.null_count < len(each)}


@pytest.mark.parametrize("column", REFUSED, ids=lambda column: str(column.type))
def test_a_column_of_this_type_is_refused_with_its_name_and_line(tmp_path: Path, column: pa.Array) -> None:
    path = write(tmp_path / "p.parquet", column)
    with pytest.raises(
        ConfigurationError, match=r"defs\.yaml:\d+: column 'value_0' is .*, which has no canonical text"
    ):
        extract(tmp_path, path, sync_over(column))


ORDERED = [
    column
    for column in SENT
    if column.type
    in (
        *(pa.string(), pa.dictionary(pa.int8(), pa.string()), pa.int8(), pa.uint64(), pa.decimal256(38, 2)),
        *(pa.float16(), pa.float32(), pa.float64(), pa.date32(), pa.timestamp("ms"), pa.timestamp("ns")),
        *(pa.timestamp(unit, "Asia/Shanghai") for unit in ("us", "ns")),
    )
]


@pytest.mark.parametrize("column", ORDERED, ids=lambda column: str(column.type))
def test_a_column_of_this_type_tells_the_newest(engine: Engine, tmp_path: Path, column: pa.Array) -> None:
    """Every two values in both orders, null among them; neither NaN nor infinity is newer than a number."""
    values = column.to_pylist()
    pairs = [(one, other) for one in range(len(values)) for other in range(len(values))]
    accounts = [f"u{number}" for number in range(len(pairs)) for _ in range(2)]
    moments = pa.array([values[place] for pair in pairs for place in pair], column.type)
    path = tmp_path / "p.parquet"
    numbers = pa.array(range(len(accounts)))
    pq.write_table(pa.table({"user": accounts, "value_0": numbers, "moment": moments}), path)
    sync = {**sync_over(numbers), "updated_at": "moment"}
    require_agreement(compute(engine, [path], sync), expected([path], sync))


def test_one_moment_in_two_zones_is_one_time_and_the_later_row_wins(engine: Engine, tmp_path: Path) -> None:
    instants = [datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, 0, 0, 1, tzinfo=UTC), None]
    paths = []
    for zone in ("Asia/Shanghai", "America/New_York", "UTC"):
        moments = pa.array(instants, pa.timestamp("us", zone))
        value = pa.array([zone] * 3)
        path = tmp_path / f"{zone.replace('/', '-')}.parquet"
        paths.append(write(path, value, moment=moments))
    sync = {**sync_over(pa.array(["x"])), "updated_at": "moment"}
    for files in (paths, paths[::-1]):
        computed = compute(engine, files, sync)
        last = pq.read_table(files[-1])["value_0"][0].as_py()
        assert {change.set["value_0"] for change in computed.changes["user_id"].values()} == {last}
        require_agreement(computed, expected(files, sync))
