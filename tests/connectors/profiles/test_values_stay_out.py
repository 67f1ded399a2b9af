"""What a warehouse says when a row is at fault may quote it; what is passed on does not."""

from pathlib import Path

import duckdb
import pytest

from connectors.profiles.errors import WarehouseError, before_values
from connectors.profiles.warehouses.warehouse import extract

FAULTS = [
    "select cast(value as integer) as value from held",
    "select cast(number * 1000000000000 as tinyint) as value from held",
    "select number * 9223372036854775807 as value from held",
    "select regexp_matches('x', value) as value from held",
    "select error(value) as value from held",
]


@pytest.mark.parametrize("query", FAULTS)
def test_a_row_at_fault_is_not_quoted_by_duckdb(tmp_path: Path, query: str) -> None:
    file = tmp_path / "held.duckdb"
    with duckdb.connect(str(file)) as connection:
        connection.execute("create table held as select 'O''Brien planted(' as value, 8613800000000 as number")
    with pytest.raises(WarehouseError) as caught:
        extract(f"duckdb://{file}", query, tmp_path / "out")
    for planted in ("planted", "Brien", "8613800000000", "861380"):
        assert planted not in str(caught.value)


@pytest.mark.parametrize(
    "query",
    [
        "select 'O\"Brien planted'::text::integer as value",
        "select ('8613800000000'::bigint * 9223372036854775807) as value",
        "select xmlparse(document '<planted')::text as value",
    ],
)
def test_a_row_at_fault_is_not_quoted_by_postgresql(tmp_path: Path, postgres_uri: str, query: str) -> None:
    with pytest.raises(WarehouseError) as caught:
        extract(postgres_uri, query, tmp_path / "out")
    for planted in ("planted", "Brien", "861380"):
        assert planted not in str(caught.value)


def test_the_words_before_a_value_stay() -> None:
    assert before_values("division by zero") == "division by zero"
    assert before_values('invalid input syntax for type integer: "O"Brien') == "invalid input syntax for type integer"
    assert before_values("'x' is wrong") == "an error that may quote a row"
