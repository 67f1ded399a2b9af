"""What the engine makes of a column's values is what the plain rules say: canonical text, limits, truncation."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import ibis
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.engine import Engine
from pipelines.mapping import AttributeMapping
from pipelines.values import orderable, value_expressions
from tests.pipelines.value_texts import ALIKE, CLUSTERS, CONTROL, TOO_LARGE, texts
from tests.reference_values import sendable

LIMIT_BYTES = 50
ENGINE_CALLS = settings(max_examples=25, deadline=None)


@dataclass(frozen=True, slots=True)
class Value:
    """One attribute of one row, as the engine gives it."""

    text: str | None
    value: str | None
    reason: str | None
    is_absent: bool


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("values")


def through_engine(engine: Engine, folder: Path, column: pa.Array, **policies: Any) -> list[Value]:
    """Read from a Parquet file, since the engine's optimizer looks at its statistics."""
    file = folder / "values.parquet"
    pq.write_table(pa.table({"row": pa.array(range(len(column)), pa.int64()), "value": column}), file)
    table = engine.parquet("values", file)
    found = value_expressions(table.value, AttributeMapping(column="value", **policies))
    rows = engine.rows(
        table.select(
            "row", text=found.text, value=found.value, reason=found.reason, is_absent=found.is_absent
        ).order_by("row")
    )
    return [Value(row["text"], row["value"], row["reason"], row["is_absent"]) for row in rows]


def by_the_rules(values: Sequence[Any], **policies: Any) -> list[Value]:
    result = []
    for value in values:
        if value is None or value == "":
            result.append(Value(value, None, None, True))
            continue
        sent, problem = sendable(value, **policies)
        result.append(Value(problem.get("value", sent), sent, problem.get("reason"), False))
    return result


def require_agreement(engine: Engine, folder: Path, column: pa.Array, **policies: Any) -> None:
    assert through_engine(engine, folder, column, **policies) == by_the_rules(column.to_pylist(), **policies)


def truncated(engine: Engine, folder: Path, values: Sequence[str]) -> list[str | None]:
    return [found.value for found in through_engine(engine, folder, pa.array(values), too_long="truncate")]


# Text ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("too_long", ["reject", "truncate"])
@ENGINE_CALLS
@given(values=st.lists(st.one_of(st.none(), texts), min_size=1, max_size=80))
def test_text_of_any_script_is_as_the_rules_say(
    engine: Engine, folder: Path, too_long: str, values: list[str | None]
) -> None:
    require_agreement(engine, folder, pa.array(values, pa.string()), too_long=too_long)


@pytest.mark.parametrize("too_long", ["reject", "truncate"])
def test_every_cluster_is_cut_before_or_after_at_every_byte_around_the_limit(
    engine: Engine, folder: Path, too_long: str
) -> None:
    values = [
        "x" * before + cluster + after
        for cluster in (*CLUSTERS, TOO_LARGE)
        for before in range(LIMIT_BYTES + 3)
        for after in ("", "y", cluster)
    ]
    require_agreement(engine, folder, pa.array(values), too_long=too_long)


@ENGINE_CALLS
@given(values=st.lists(texts.filter(bool), min_size=1, max_size=80))
def test_truncation_gives_a_prefix_within_the_limit_and_changes_nothing_a_second_time(
    engine: Engine, folder: Path, values: list[str]
) -> None:
    once = truncated(engine, folder, values)
    kept = [text for text in once if text is not None]
    assert all(0 < len(text.encode()) <= LIMIT_BYTES for text in kept)
    assert all(text is None or value.startswith(text) for value, text in zip(values, once, strict=True))
    assert truncated(engine, folder, kept or ["x"]) == (kept or ["x"])


FILLERS = ("x", "é", "上", "ก", "น้ำ", "ب", "مَّ", "क्षि", "😀", "👍🏽", "👩‍🚀", "🇹🇭", "e\u0301")


@pytest.mark.parametrize("filler", FILLERS)
def test_at_every_byte_of_every_script_the_cut_is_the_last_boundary_that_fits(
    engine: Engine, folder: Path, filler: str
) -> None:
    """By `regex` alone: every length around the limit, a cluster of every kind across it, and more behind it."""
    ends = [filler * count + "x" * odd for count in range(1, 60) for odd in range(len(filler.encode()))]
    ends = [end for end in ends if len(end.encode()) <= LIMIT_BYTES + 3]
    values = [end + cluster + behind for end in ends for cluster in CLUSTERS for behind in ("", filler)]
    for value, cut in zip(values, truncated(engine, folder, values), strict=True):
        if len(value.encode()) <= LIMIT_BYTES:
            assert cut == value
            continue
        assert cut is not None
        boundaries = [match.end() for match in regex.finditer(r"\X", value)]
        assert len(cut) in boundaries
        assert value.startswith(cut)
        following = boundaries[boundaries.index(len(cut)) + 1]
        assert len(cut.encode()) <= LIMIT_BYTES < len(value[:following].encode())


def test_a_value_of_which_not_one_cluster_fits_is_left_out_and_is_no_removal(engine: Engine, folder: Path) -> None:
    (found,) = through_engine(engine, folder, pa.array([TOO_LARGE + "abc"]), too_long="truncate")
    assert (found.value, found.reason, found.is_absent) == (None, "value_too_long", False)


def test_text_stays_as_it_is(engine: Engine, folder: Path) -> None:
    """No trimming, no normalization, no change of case."""
    values = [" a ", "\u00e9", "e\u0301", "ΣΑΣ", "\u3000", "NULL", "true"]
    assert [found.value for found in through_engine(engine, folder, pa.array(values))] == values


def test_each_control_character_spoils_its_value_and_nothing_alike_does(engine: Engine, folder: Path) -> None:
    controls = [chr(code) for code in (*range(0x20), *range(0x7F, 0xA0))]
    found = through_engine(engine, folder, pa.array([f"a{char}b" for char in controls]))
    assert {(each.value, each.reason, each.is_absent) for each in found} == {(None, "value_invalid", False)}
    assert set(CONTROL) <= set(controls)
    fine = [f"a{char}b" for char in (*ALIKE, " ", "\u00a0", "~")]
    assert [each.value for each in through_engine(engine, folder, pa.array(fine))] == fine


def test_a_control_character_counts_before_the_length(engine: Engine, folder: Path) -> None:
    (found,) = through_engine(engine, folder, pa.array(["x" * 60 + "\n"]), too_long="truncate")
    assert (found.value, found.reason) == (None, "value_invalid")


@pytest.mark.parametrize("kind", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())], ids=str)
def test_text_in_every_layout_is_the_same_text(engine: Engine, folder: Path, kind: pa.DataType) -> None:
    values = ["上海", None, "", "上海", "x" * 51, "a\tb"]
    require_agreement(engine, folder, pa.array(values, pa.string()).cast(kind))


# Numbers, dates, times ----------------------------------------------------------------------------------------------

WIDTHS = [getattr(pa, f"{sign}int{bits}")() for sign in ("", "u") for bits in (8, 16, 32, 64)]


@pytest.mark.parametrize("kind", WIDTHS, ids=str)
def test_a_whole_number_of_any_width_is_decimal(engine: Engine, folder: Path, kind: pa.DataType) -> None:
    bits = kind.bit_width
    edges = (0, 2**bits - 1) if str(kind).startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    require_agreement(engine, folder, pa.array([*edges, 0, 7, None], kind))


def test_booleans_are_true_and_false(engine: Engine, folder: Path) -> None:
    assert [each.value for each in through_engine(engine, folder, pa.array([True, False, None]))] == [
        "true",
        "false",
        None,
    ]


@pytest.mark.parametrize(("precision", "scale"), [(3, 0), (4, 4), (12, 2), (18, 18), (38, 0), (38, 38), (38, 10)])
@settings(max_examples=5, deadline=None)
@given(data=st.data())
def test_a_decimal_has_its_columns_scale_and_no_exponent(
    engine: Engine, folder: Path, precision: int, scale: int, data: st.DataObject
) -> None:
    most = 10**precision - 1
    whole = data.draw(st.lists(st.integers(-most, most), max_size=30))
    values = [Decimal(f"{number}E-{scale}") for number in (*whole, 0, 1, -1, most, -most)]
    require_agreement(engine, folder, pa.array(values, pa.decimal128(precision, scale)))


@pytest.mark.parametrize("decimals", [0, 1, 2, 9, 15])
@settings(max_examples=8, deadline=None)
@given(numbers=st.lists(st.one_of(st.floats(-1e27, 1e27), st.floats(-1e6, 1e6), st.just(math.nan)), max_size=60))
def test_a_float_has_the_digits_that_the_yaml_asks_for(
    engine: Engine, folder: Path, decimals: int, numbers: list[float]
) -> None:
    column = pa.array([*numbers, -0.0, 0.5, 2.5, -0.04, 1e15, None], pa.float64())
    require_agreement(engine, folder, column, decimals=decimals)


def test_a_float_of_too_many_digits_is_too_long_like_any_text(engine: Engine, folder: Path) -> None:
    found = through_engine(engine, folder, pa.array([2e49, -2e49, 2e50, 1.7e308]), decimals=0)
    assert [each.reason for each in found] == [None, "value_too_long", "value_too_long", "value_too_long"]
    assert [each.value is None for each in found] == [False, True, True, True]
    found = through_engine(engine, folder, pa.array([9e29, 9e33, -9e32, -9e33, 1e33]), decimals=15)
    assert [each.reason for each in found] == [None, None, None, "value_too_long", None]


def test_floats_of_less_width_are_exact_too(engine: Engine, folder: Path) -> None:
    require_agreement(engine, folder, pa.array([0.1, -0.0, 16777216.0, math.nan, None], pa.float32()), decimals=3)


def test_what_is_no_number_is_found_though_the_files_statistics_leave_it_out(engine: Engine, folder: Path) -> None:
    column = pa.array([1.0, math.nan, 2.0, math.inf, -math.inf, None] * 3)
    found = through_engine(engine, folder, column, decimals=1)
    statistics = pq.read_metadata(folder / "values.parquet").row_group(0).column(1).statistics
    assert statistics is None or not math.isnan(statistics.max)
    assert [each.reason for each in found[:6]] == [None, "value_invalid", None, "value_invalid", "value_invalid", None]
    assert [each.value for each in found[:6]] == ["1.0", None, "2.0", None, None, None]
    assert [each.is_absent for each in found[:6]] == [False] * 5 + [True]


@settings(max_examples=10, deadline=None)
@given(days=st.lists(st.dates(), min_size=1, max_size=60))
def test_a_date_is_iso_8601(engine: Engine, folder: Path, days: list[date]) -> None:
    require_agreement(engine, folder, pa.array([*days, date(1, 1, 1), date(1969, 12, 31), None], pa.date32()))
    require_agreement(engine, folder, pa.array([*days, None], pa.date64()))


@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Shanghai", "America/New_York", "+05:30"])
@pytest.mark.parametrize("unit", ["ms", "us"])
@settings(max_examples=4, deadline=None)
@given(moments=st.lists(st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1)), max_size=40))
def test_a_time_is_utc_and_cut_to_the_second(
    engine: Engine, folder: Path, unit: str, zone: str | None, moments: list[datetime]
) -> None:
    values = [*moments, datetime(1969, 12, 31, 23, 59, 59, 999_000), datetime(2024, 2, 29, 12, 0, 0, 1_000)]
    cut = [each.replace(microsecond=each.microsecond // 1000 * 1000) for each in values]
    column = pa.array([each.replace(tzinfo=UTC if zone else None) for each in cut], pa.timestamp(unit, zone))
    expected = by_the_rules([each.replace(tzinfo=UTC) if zone else each for each in cut])
    assert through_engine(engine, folder, column) == expected


def test_nanoseconds_and_zones_give_the_moment_in_utc(engine: Engine, folder: Path) -> None:
    shanghai = timezone(timedelta(hours=8))
    column = pa.array([datetime(2026, 1, 1, 7, 59, 59, 999_999, tzinfo=shanghai)], pa.timestamp("ns", "Asia/Shanghai"))
    assert [each.value for each in through_engine(engine, folder, column)] == ["2025-12-31T23:59:59Z"]
    naive = pa.array([-1, 0], pa.timestamp("ns"))
    assert [each.value for each in through_engine(engine, folder, naive)] == [
        "1969-12-31T23:59:59Z",
        "1970-01-01T00:00:00Z",
    ]


@pytest.mark.parametrize("kind", [pa.date32(), pa.timestamp("us"), pa.timestamp("us", "UTC")], ids=str)
def test_a_date_or_time_beyond_the_year_9999_is_invalid(engine: Engine, folder: Path, kind: pa.DataType) -> None:
    """Warehouses write `infinity` as the last moment that the type can hold."""
    days = [0, 2_932_896, 2_932_897, 106_751_990, -800_000]
    unit = 1 if pa.types.is_date(kind) else 86_400_000_000
    storage = pa.int32() if pa.types.is_date(kind) else pa.int64()
    values = through_engine(engine, folder, pa.array([day * unit for day in days], storage).cast(kind))
    assert [value.reason for value in values] == [None, None, *["value_invalid"] * 3]
    assert [str(value.value)[:10] for value in values[:2]] == ["1970-01-01", "9999-12-31"]


def test_a_column_of_nothing_but_nulls_is_absent(engine: Engine, folder: Path) -> None:
    assert through_engine(engine, folder, pa.nulls(2)) == [Value(None, None, None, True)] * 2


# Order --------------------------------------------------------------------------------------------------------------

LAST_DAY = 2**31 - 1  # as warehouses write `infinity`
ORDERED = [
    (pa.array([0.5, math.nan, math.inf, -math.inf, None], kind), [0.5, None, None, None, None])
    for kind in (pa.float16(), pa.float32(), pa.float64())
]
ORDERED += [
    (pa.array([0, 1, None], pa.int64()).cast(pa.timestamp(unit, zone)), [0, 1, None])
    for unit in ("ms", "us", "ns")
    for zone in (None, "UTC", "Asia/Shanghai")
]
ORDERED += [(pa.array([0, LAST_DAY, None], pa.int32()).cast(pa.date32()), [0, None, None])]


@pytest.mark.parametrize(("column", "kept"), ORDERED, ids=lambda each: str(getattr(each, "type", "")))
def test_what_ranks_profiles_is_kept_and_what_is_no_number_or_time_is_null(
    engine: Engine, folder: Path, column: pa.Array, kept: list[Any]
) -> None:
    file = folder / "ordered.parquet"
    pq.write_table(pa.table({"row": pa.array(range(len(column))), "value": column}), file)
    table = engine.parquet("ordered", file)
    found = table.select("row", value=orderable(table.value))
    numbers = engine.rows(found.mutate(is_null=found.value.isnull(), rank=ibis.rank().over(order_by=found.value)))
    assert [row["is_null"] for row in sorted(numbers, key=lambda row: row["row"])] == [each is None for each in kept]
