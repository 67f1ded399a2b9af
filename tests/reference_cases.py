"""Small sources and mappings for the tests of the reference: rows in, what they must come to out."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.reference import Expected, expect

Rows = Sequence[Mapping[str, Any]]

DEVICE = "379C2F0D-290D-47AE-94D1-919058C39C77"
TWO_COLUMNS: dict[str, Any] = {
    "updated_at": "updated_at",
    "accounts": {
        "user_id": {"column": "user_id", "attributes": {"city": "city"}},
        "registration_id": {
            "column": "device_id",
            "where": {"push_enabled": True},
            "attributes": {"device_city": "city"},
        },
    },
}
MIXED: dict[str, Any] = {
    "accounts": {
        "user_id": {"column": "id", "where": {"kind": "user"}, "attributes": {"city": "city"}},
        "registration_id": {"column": "id", "matches": "[0-9A-F-]{36}", "attributes": {"device_city": "city"}},
    },
}
SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("device_id", pa.string()),
        ("push_enabled", pa.bool_()),
        ("city", pa.string()),
        ("updated_at", pa.timestamp("us", tz="UTC")),
    ]
)


def one_user(attribute: Mapping[str, Any] | str = "city", **options: Any) -> dict[str, Any]:
    return {"accounts": {"user_id": {"column": "user_id", "attributes": {"city": attribute}, **options}}}


def expect_rows(
    folder: Path, sync: Mapping[str, Any], *files: Rows, schema: pa.Schema = SCHEMA, **options: Any
) -> Expected:
    """Writes each of `files` to Parquet (`0.parquet`, ...) and asks the reference; `options` are those of `expect`."""
    paths = []
    for number, rows in enumerate(files):
        path = folder / f"{number}.parquet"
        pq.write_table(pa.Table.from_pylist([dict(row) for row in rows], schema=schema), path)
        paths.append(path)
    return expect(paths, sync, **options)


def expect_mixed(folder: Path, *rows: Mapping[str, Any]) -> Expected:
    schema = pa.schema([("id", pa.string()), ("kind", pa.string()), ("city", pa.string())])
    return expect_rows(folder, MIXED, rows, schema=schema)


def reasons(expected: Expected) -> list[tuple[str, str | None]]:
    return [(row["reason"], row["account_type"]) for row in expected.failed_rows]


def counts(expected: Expected, account_type: str) -> dict[str, int]:
    """Without the zeros."""
    return {name: count for name, count in asdict(expected.counts[account_type]).items() if count}
