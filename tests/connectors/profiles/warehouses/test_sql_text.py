from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.profiles.errors import WarehouseQueryError
from connectors.profiles.parquet import Manifest
from connectors.profiles.warehouses.sql_text import TableName, all_of, is_ordered, quoted
from connectors.profiles.warehouses.warehouse import extract

RunSql = Callable[..., list[tuple[object, ...]]]
MakeDuckDB = Callable[..., str]
RowsOf = Callable[[Manifest], pa.Table]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("user_profiles", ("user_profiles",)),
        ("marts.user_profiles", ("marts", "user_profiles")),
        (" lake . marts . Profiles ", ("lake", "marts", "Profiles")),
        ("marts.用户 资料", ("marts", "用户 资料")),
        ('marts."user.profiles"', ("marts", "user.profiles")),
        ('"say ""hi"""', ('say "hi"',)),
        ("marts.o'brien; drop", ("marts", "o'brien; drop")),
    ],
)
def test_a_table_s_name_is_read_with_its_schema(text: str, parts: tuple[str, ...]) -> None:
    assert TableName.parse(text).parts == parts


@pytest.mark.parametrize(
    "text", ["", " ", ".", "a.", ".a", "a..b", 'a."b', '"a"b', 'a"b', '""', "a.b.c.d", "a\0b", 'a."b".']
)
def test_what_is_no_table_s_name_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"such as marts\.user_profiles"):
        TableName.parse(text)


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1))
def test_any_name_can_be_written_in_quotes(name: str) -> None:
    assert TableName.parse(quoted(name)).parts == (name,)


def test_a_name_is_quoted_with_the_mark_of_its_warehouse() -> None:
    table = TableName(('m"a', "t`b"))
    assert all_of(table) == 'SELECT * FROM "m""a"."t`b"'
    assert all_of(table, "`") == 'SELECT * FROM `m"a`.`t``b`'


ODD = 'Odd "name".; DROP'


def test_a_table_is_read_whole_under_its_exact_name_or_refused_by_it(
    postgres_uri: str, postgres_sql: RunSql, duckdb_uri: MakeDuckDB, tmp_path: Path, rows_of: RowsOf
) -> None:
    statements = [
        f"CREATE SCHEMA {quoted('Märts')}",
        f"CREATE TABLE {quoted('Märts')}.{quoted(ODD)} AS SELECT 'u1' AS user_id, '上海' AS city, 3 AS unused",
    ]
    postgres_sql(*statements)
    for uri, folder in ((postgres_uri, "one"), (duckdb_uri(*statements), "other")):
        table = TableName.parse(f"Märts.{quoted(ODD)}")
        manifest = extract(uri, table, tmp_path / folder, columns=["user_id", "city"])
        assert rows_of(manifest).to_pylist() == [{"user_id": "u1", "city": "上海"}]
        with pytest.raises(WarehouseQueryError, match=r"märts|no_such"):
            extract(uri, TableName.parse(f"märts.{quoted(ODD + 'no_such')}"), tmp_path / folder)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("select a from t order by a", True),
        ("select a from t ORDER\n BY (a), ')' limit 5", True),
        ("(select a from t) order by 1", True),
        ("select row_number() over (partition by a order by (b)) from t", False),
        ("select * from (select a from t order by a limit (1)) x", False),
        ("select 'order by', \"order by\", `order by` from t -- order by\n /* order\nby */", False),
        ("select 'it''s ( order by' from t", False),
        ("select 'it\\'s (', a from t order by a", True),
        ("select border by from t", False),
        ("select a from t where b <> 'C:\\' order by a, b = 'C:\\'", True),
        ("select a from t # don't sort\norder by a # isn't it", True),
        ("select a from t // don't sort\norder by a // isn't it", True),
        ("select a from t # order by a", False),
        ("select 'https://shop/#' from (select 'it''s' from t order by 1)", False),
    ],
)
def test_an_order_counts_where_it_is_the_statement_s_own(query: str, expected: bool) -> None:
    assert is_ordered(query) == expected
