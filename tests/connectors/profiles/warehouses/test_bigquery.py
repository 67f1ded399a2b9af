"""BigQuery through the vendor's clients, against a double of the service (see bigquery_server.py)."""

import sys
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest

from connectors.profiles.errors import (
    SourceColumnError,
    WarehouseQueryError,
    WarehouseSettingsError,
    WarehouseTimeoutError,
    WarehouseUnreachableError,
)
from connectors.profiles.parquet import Manifest
from connectors.profiles.warehouses import bigquery
from connectors.profiles.warehouses.bigquery import BigQuery
from connectors.profiles.warehouses.bigquery_types import field_of
from connectors.profiles.warehouses.sql_text import TableName
from connectors.profiles.warehouses.warehouse import extract
from tests.bigquery_server import Answer, BigQueryServer, RefusedError, bigquery_server

RowsOf = Callable[[Manifest], pa.Table]
URI = "bigquery://proj/marts?location=EU"
NUMBERS = Answer(
    [("a", "INTEGER", "NULLABLE"), ("b", "STRING", "NULLABLE")],
    [pa.record_batch({"a": [3, 1], "b": ["x", "y"]}), pa.record_batch({"a": [2], "b": ["z"]})],
)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BigQueryServer]:
    with bigquery_server() as running:
        folder = tmp_path / "secrets"
        folder.mkdir()
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(running.credentials_file(folder)))
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", f"http://127.0.0.1:{running.port}")
        monkeypatch.setattr(bigquery, "storage_reader", running.reader)
        running.answer = lambda query: NUMBERS
        yield running


# rows ---------------------------------------------------------------------------------------------------------------


def test_every_type_arrives_as_the_value_that_it_is(server: BigQueryServer, tmp_path: Path, rows_of: RowsOf) -> None:
    moment = datetime(2026, 11, 22, 2, 0, 0, 123456)
    given = {
        "id": ("INTEGER", pa.int64(), 1), "score": ("FLOAT", pa.float64(), 1.5), "vip": ("BOOLEAN", pa.bool_(), True),
        "city": ("STRING", pa.string(), "上海"), "born": ("DATE", pa.date32(), date(1950, 1, 2)),
        "local": ("DATETIME", pa.timestamp("us"), moment),
        "seen": ("TIMESTAMP", pa.timestamp("us", "UTC"), moment.replace(tzinfo=UTC)),
        "money": ("NUMERIC", pa.decimal128(38, 9), Decimal("12345678901234567890123456789.123456789")),
    }  # fmt: skip
    columns = [(name, kind, "NULLABLE") for name, (kind, _, _) in given.items()]
    batch = pa.record_batch({name: pa.array([value, None], arrow) for name, (_, arrow, value) in given.items()})
    server.answer = lambda query: Answer(columns, [batch])
    rows = rows_of(extract(URI, "select everything", tmp_path / "out"))
    assert rows.to_pylist() == [{name: value for name, (_, _, value) in given.items()}, dict.fromkeys(given)]
    assert rows.schema.types == [arrow for _, arrow, _ in given.values()]


def test_a_number_declared_with_its_digits_has_them(server: BigQueryServer, tmp_path: Path, rows_of: RowsOf) -> None:
    columns = [("a", "NUMERIC", "NULLABLE"), ("b", "BIGNUMERIC", "NULLABLE")]
    value = Decimal("12345.67")
    kinds = {"a": pa.decimal128(38, 9), "b": pa.decimal256(76, 38)}
    batch = pa.record_batch({name: pa.array([value], kind) for name, kind in kinds.items()})
    server.answer = lambda query: Answer(columns, [batch], digits=(12, 2))
    rows = rows_of(extract(URI, "select a, b", tmp_path / "out"))
    assert rows.schema.types == [pa.decimal128(12, 2)] * 2
    assert rows.to_pylist() == [{"a": value, "b": value}]


def test_rows_come_by_one_stream_of_the_named_columns_alone(
    server: BigQueryServer, tmp_path: Path, rows_of: RowsOf
) -> None:
    table = TableName(("other-project", "marts", "user profiles"))
    rows = rows_of(extract(URI, table, tmp_path / "out", columns=["a"]))
    assert rows.to_pydict() == {"a": [3, 1, 2]}
    assert list(server.jobs.values()) == [
        "SELECT `a` FROM (\nSELECT * FROM `other-project`.`marts`.`user profiles`\n) AS profiles"
    ]
    assert [session.max_stream_count for session in server.sessions] == [1]


def test_an_ordered_query_runs_as_it_stands_and_only_the_named_columns_are_read(
    server: BigQueryServer, tmp_path: Path, rows_of: RowsOf
) -> None:
    rows = rows_of(extract(URI, "select a, b from t order by b;", tmp_path / "out", columns=["a"]))
    assert rows.to_pydict() == {"a": [3, 1, 2]}
    assert list(server.jobs.values()) == ["select a, b from t order by b"]


def test_no_rows_give_one_empty_file_with_the_schema(server: BigQueryServer, tmp_path: Path) -> None:
    server.answer = lambda query: Answer(NUMBERS.columns, [])
    manifest = extract(URI, "select a, b", tmp_path / "out")
    assert (manifest.rows, manifest.schema.names) == (0, ["a", "b"])


@pytest.mark.parametrize(
    ("kind", "mode", "told"),
    [("RECORD", "NULLABLE", "RECORD"), ("STRING", "REPEATED", "ARRAY<STRING>"), ("JSON", "NULLABLE", "JSON"),
     ("BYTES", "NULLABLE", "BYTES"), ("TIME", "NULLABLE", "TIME"), ("GEOGRAPHY", "NULLABLE", "GEOGRAPHY"),
     ("BIGNUMERIC", "NULLABLE", "BIGNUMERIC"), ("RANGE", "NULLABLE", "RANGE")],
)  # fmt: skip
def test_a_column_of_another_type_is_refused_by_its_name_before_the_query_runs(
    kind: str, mode: str, told: str, server: BigQueryServer, tmp_path: Path
) -> None:
    server.answer = lambda query: Answer([("a", "INTEGER", "NULLABLE"), ("many", kind, mode)], [])
    with pytest.raises(SourceColumnError, match=rf"the column 'many' \({told}\)") as caught:
        extract(URI, "select a, many", tmp_path / "out")
    assert (caught.value.columns, server.jobs) == (("many",), {})


# the job ------------------------------------------------------------------------------------------------------------


def test_a_job_ends_by_itself_and_descriptions_cost_nothing(server: BigQueryServer, tmp_path: Path) -> None:
    extract(URI, "select a", tmp_path / "out", timeout_seconds=100)
    *described, run = server.asked
    assert [job.get("dryRun") for job in described] == [True] * len(described)
    assert (run["jobTimeoutMs"], run["labels"]) == ("160000", {"by": "tencent-push-attribute-sync"})
    assert run["query"]["defaultDataset"] == {"projectId": "proj", "datasetId": "marts"}


@pytest.mark.parametrize("statement", ["INSERT", "CREATE_TABLE_AS_SELECT", "SCRIPT"])
def test_what_is_no_select_is_never_run(statement: str, server: BigQueryServer, tmp_path: Path) -> None:
    server.answer = lambda query: Answer(NUMBERS.columns, [], statement)
    with pytest.raises(WarehouseQueryError, match="it is no SELECT"):
        extract(URI, "create table t as select 1 as a order by a", tmp_path / "out")
    assert server.jobs == {}


def test_a_query_that_takes_too_long_is_cancelled(server: BigQueryServer, tmp_path: Path) -> None:
    server.let_end.clear()
    with pytest.raises(WarehouseTimeoutError, match="did not end within"):
        extract(URI, "select a", tmp_path / "out", timeout_seconds=0.8)
    assert server.cancelled.is_set()
    assert not (tmp_path / "out").exists()


# faults -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        ((400, "invalidQuery", 'Syntax error: Unexpected identifier "SELEC" at [1:1]'), 'identifier "SELEC" at .1:1.'),
        ((400, "invalidQuery", "Unrecognized name: nope at [1:8]"), "name: nope at .1:8.. Correct the query"),
        ((404, "notFound", "Not found: Table proj:marts.t was not found in location EU"), "Table proj:marts.t was not"),
        ((403, "accessDenied", "Access Denied: Table proj:marts.t: User does not have permission"),
         "Access Denied: Table .* BigQuery Job User and BigQuery Read Session User"),
    ],
)  # fmt: skip
def test_a_refused_query_is_told_with_the_service_s_words(
    refusal: tuple[int, str, str], said: str, server: BigQueryServer, tmp_path: Path
) -> None:
    def refuse(query: str) -> Answer:
        raise RefusedError(*refusal)

    server.answer = refuse
    with pytest.raises(WarehouseQueryError, match=f"refused the query: .*{said}"):
        extract(URI, "select a", tmp_path / "out")


def test_a_query_that_fails_while_it_runs_quotes_no_value(server: BigQueryServer, tmp_path: Path) -> None:
    def refuse_to_run(query: str) -> Answer:
        if server.jobs:
            raise RefusedError(400, "invalidQuery", "Bad int64 value: planted; while executing the filter")
        return NUMBERS

    server.answer = refuse_to_run
    with pytest.raises(WarehouseQueryError, match=r"Bad int \(invalidQuery\)") as caught:
        extract(URI, "select a", tmp_path / "out")
    assert "planted" not in str(caught.value)


def test_rows_that_are_missing_at_the_end_are_no_result(server: BigQueryServer, tmp_path: Path) -> None:
    server.answer = lambda query: Answer(NUMBERS.columns, NUMBERS.batches, announced=5)
    with pytest.raises(WarehouseUnreachableError, match="3 of 5 rows came"):
        extract(URI, "select a", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_account_that_is_gone_is_told_and_no_secret_is(
    server: BigQueryServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.token_status = 400
    with caplog.at_level(0), pytest.raises(WarehouseUnreachableError, match=r"credentials \(invalid_grant\)") as caught:
        extract(URI, "select a", tmp_path / "out")
    told = "".join(traceback.format_exception(caught.value)) + caplog.text
    assert not any(secret in told for secret in ("PRIVATE KEY", "planted-token"))
    assert not caught.value.is_passing


def test_a_service_that_is_not_there_is_told_and_may_be_tried_again(
    server: BigQueryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", "http://127.0.0.1:1")
    with pytest.raises(WarehouseUnreachableError, match="proj/marts cannot be reached: Connection refused") as caught:
        BigQuery(URI, timeout_seconds=60)
    assert caught.value.is_passing


@pytest.mark.parametrize("how", ["no file", "no credentials in it"])
def test_credentials_that_cannot_be_read_are_told_with_what_to_set(how: str, tmp_path: Path) -> None:
    path = tmp_path / "account.json"
    if how != "no file":
        path.write_text('{"type": "planted"}', encoding="utf-8")
    with pytest.raises(WarehouseSettingsError, match="no usable Google credentials") as caught:
        BigQuery(f"bigquery://proj/marts?credentials_path={path}", timeout_seconds=60)
    assert "planted" not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("bigquery://proj/marts/t", "must look like bigquery://project/dataset"),
        ("bigquery:///marts", "must look like bigquery://project/dataset"),
        ("bigquery://proj?credentials_base64=planted", "Known: location, credentials_path"),
    ],
)
def test_an_unfit_address_is_told_before_anything_is_sent(uri: str, said: str) -> None:
    with pytest.raises(WarehouseSettingsError, match=said) as caught:
        BigQuery(uri, timeout_seconds=60)
    assert "planted" not in str(caught.value)


@pytest.mark.parametrize("module", ["google.cloud.bigquery", "google.cloud.bigquery_storage"])
def test_a_missing_driver_says_what_to_install(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(WarehouseSettingsError, match=r"pip install '\.\[bigquery\]'"):
        BigQuery("bigquery://proj", timeout_seconds=60)


def test_the_vendor_s_own_descriptions_have_the_shape_that_is_read() -> None:
    from google.cloud.bigquery import SchemaField

    assert field_of(SchemaField("a", "NUMERIC", precision=10, scale=2)).type == pa.decimal128(10, 2)
    assert field_of(SchemaField("a", "NUMERIC")).type == pa.decimal128(38, 9)
    assert field_of(SchemaField("a", "BIGNUMERIC", precision=40, scale=2)).type == pa.binary()
