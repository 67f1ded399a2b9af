"""A SQL warehouse of Databricks, through the vendor's connector: rows arrive as Arrow batches.

What is Databricks' alone stands here: address, session, errors, and which of its Arrow columns are no values.
"""

import re
from collections.abc import Generator, Sequence
from contextlib import closing, suppress
from typing import Any

import pyarrow as pa

from connectors.profiles.arrow_types import TYPE_NAME
from connectors.profiles.errors import WarehouseError, WarehouseSettingsError, before_values
from connectors.profiles.warehouses.servers import (
    APPLICATION,
    BACKSTOP_SECONDS,
    Narrowing,
    ServerAddress,
    driver,
    server_address,
)
from connectors.profiles.warehouses.sql_text import TableName, all_of, narrowed, quoted

_SHAPE = "databricks://token:dapi...@host?http_path=/sql/1.0/warehouses/...&catalog=...&schema=..."
_PARAMETERS = ("http_path", "catalog", "schema")
_MARK = "`"
_WAREHOUSE = re.compile(r"/?sql/1\.0/(?:warehouses|endpoints)/\w+")
_ROWS_PER_BATCH = 20_000
_BUFFER_BYTES = 8 * 1024 * 1024  # of one answer; the connector's own default is 100 MiB
_DOWNLOAD_THREADS = 2  # pieces that wait here to be written, of about 20 MB each
_ANSWER_SECONDS = 120  # for one answer; a query that is not ready is asked for again every few seconds
_RETRIES, _RETRY_SECONDS = 5, 60  # the connector's own are 24 and 15 minutes

_SQL_NAME = b"Spark:DataType:SqlName"  # in the metadata of the server's Arrow columns
_NO_TEXT = re.compile(rb"(?i)(?:variant|geometry|geography|interval)\b.*")  # which arrive as text and are none
_STATE = re.compile(r"SQLSTATE: (\w{5})")
_POSITION = re.compile(r";?\s*(?:SQLSTATE: \w{5}|line \d+,? pos(?:ition)? \d+|== SQL).*", re.DOTALL)
_NAMES_NOT_VALUES = ("42", "46")  # SQLSTATE classes whose messages quote names, not rows
_DENIED = re.compile(r"PERMISSION_DENIED|INSUFFICIENT_PERMISSIONS")
_ENDED_BY_LIMIT = re.compile(r"STATEMENT_TIMEOUT|statement timeout|QUERY_EXECUTION_TIMEOUT", re.IGNORECASE)
_GRANT = "Grant the user use on the catalog and the schema, and select on the table."


class Databricks:
    """One session. A query sees one state of each Delta table."""

    def __init__(self, uri: str, *, timeout_seconds: float) -> None:
        self._address = server_address(uri, shape=_SHAPE, parameters=_PARAMETERS, most_parts=0)
        arguments = _arguments(self._address)
        self._sql = driver("databricks.sql", scheme="databricks", extra="databricks")
        self._narrowing = Narrowing(column_of=lambda field: quoted(field.name, _MARK))
        try:
            self._connection = self._sql.connect(**arguments)
            self._cursor = self._connection.cursor(arraysize=_ROWS_PER_BATCH, buffer_size_bytes=_BUFFER_BYTES)
            self._cursor.execute("SET TIME ZONE 'UTC'")
        except Exception as error:  # noqa: BLE001 - the connector's families and its HTTP library's
            raise self._translated(error, what="cannot be reached") from None
        with suppress(self._sql.Error):  # an administrator may have fixed it
            self._cursor.execute(f"SET STATEMENT_TIMEOUT = {int(timeout_seconds) + BACKSTOP_SECONDS}")

    def all_of(self, table: TableName) -> str:
        """The query for the whole table."""
        return all_of(table, _MARK)

    def describe(self, query: str) -> pa.Schema:
        """The columns of the query's result; the server plans the query and reads no table."""
        known = self._narrowing.schema(query)
        if known is not None:
            return known
        try:
            self._cursor.execute(f"{narrowed(query, ['*'])} LIMIT 0")
            described = self._cursor.fetchall_arrow().schema
        except Exception as error:  # noqa: BLE001 - see __init__
            raise self._translated(error) from None
        return pa.schema([field_of(field) for field in described])

    def select(self, query: str, fields: Sequence[pa.Field]) -> str:
        """`query` narrowed to `fields`, in its order."""
        return self._narrowing.select(query, fields, check=self.describe)

    def read(self, query: str) -> Generator[pa.RecordBatch, None, None]:
        """The rows of `query`, some thousands at a time."""
        names = self.describe(query).names
        try:
            self._cursor.execute(query)
            while (table := self._cursor.fetchmany_arrow(_ROWS_PER_BATCH)).num_rows:
                yield from table.select(names).to_batches()
        except Exception as error:  # noqa: BLE001 - see __init__
            raise self._translated(error) from None

    def cancel(self) -> None:
        """Ends what is running, from any thread."""
        with suppress(Exception):  # it may have ended by itself; the server may be gone
            self._cursor.cancel()

    def close(self) -> None:
        """Ends the session."""
        with suppress(Exception), closing(self._connection):
            self._cursor.close()

    def _translated(self, error: Exception, *, what: str = "broke off before the last row") -> WarehouseError:
        if isinstance(error, WarehouseError):
            return error
        context = getattr(error, "context", None) or {}
        code, text = context.get("http-code"), str(getattr(error, "message", None) or error)
        if code in (401, 403):
            return self._address.unreachable(what, f"the server refuses the token ({code})")
        if "operation-id" not in context:
            return self._address.broken(what, error, text=f"{context.get('original-exception')} {text}")
        if _ENDED_BY_LIMIT.search(text):
            return self._address.timed_out("STATEMENT_TIMEOUT")
        found = _STATE.search(text)
        state, words = found[1] if found else "unknown", _POSITION.sub("", text).strip()
        is_denied = bool(_DENIED.search(words))
        if not is_denied and not state.startswith(_NAMES_NOT_VALUES):
            words = f"{before_values(words)} (SQLSTATE {state})"
        return self._address.refused(words, remedy=_GRANT if is_denied else "Correct the query.")


def field_of(field: pa.Field) -> pa.Field:
    """The column as Arrow has it; a variant, an interval or a geography gets a type that is refused later."""
    name = (field.metadata or {}).get(_SQL_NAME)
    kind = pa.binary() if name is not None and _NO_TEXT.fullmatch(name) else field.type
    return pa.field(field.name, kind, metadata=None if name is None else {TYPE_NAME: name})


def _arguments(address: ServerAddress) -> dict[str, Any]:
    path = address.parameters.get("http_path", "")
    if not _WAREHOUSE.fullmatch(path) or not address.password:
        raise WarehouseSettingsError(
            f"{address.where} names no SQL warehouse, or no token. It must look like {_SHAPE}; a cluster is no SQL "
            "warehouse."
        )
    arguments: dict[str, Any] = {
        "server_hostname": address.host,
        "http_path": path,
        "access_token": address.password,
        "user_agent_entry": APPLICATION,
        "enable_telemetry": False,  # else it reports to the vendor how it is used, and every error
        "max_download_threads": _DOWNLOAD_THREADS,
        "_socket_timeout": _ANSWER_SECONDS,
        "_retry_stop_after_attempts_count": _RETRIES,
        "_retry_stop_after_attempts_duration": _RETRY_SECONDS,
    }
    named = {"catalog": address.parameters.get("catalog"), "schema": address.parameters.get("schema")}
    return arguments | {name: value for name, value in (named | {"_port": address.port}).items() if value}
