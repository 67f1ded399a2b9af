"""PostgreSQL as a warehouse, through ADBC: rows arrive as Arrow batches, decoded by the driver from a binary COPY.

What is PostgreSQL's alone stands here: its address, the casts that its driver needs, its errors. Writing files is not.
"""

import importlib
import re
from collections.abc import Generator, Sequence
from contextlib import closing, suppress
from typing import Any

import pyarrow as pa

from connectors.profiles.errors import (
    WarehouseError,
    WarehouseQueryError,
    WarehouseSettingsError,
    WarehouseUnreachableError,
    before_values,
    mask_secrets,
    read_network_address,
    without_secrets,
)
from connectors.profiles.warehouses.sql_text import TableName, all_of, narrowed, quoted

_BACKSTOP_SECONDS = 60  # the server ends a statement by itself this long after we should have cancelled it
_BATCH_BYTES = 8 * 1024 * 1024  # of decoded rows; a hint that the driver keeps to within one row

# What the driver hands on in another value than the server's own: a uuid as 16 bytes, money as an integer of cents,
# an oid above 2^31 as a negative number.
_CASTS = {"uuid": "text", "money": "numeric", "oid": "int8"}

# Appended where the address does not set them: else an unreachable host blocks for minutes, a vanished one for hours.
_DEFAULT_PARAMETERS = {
    "connect_timeout": "15",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "application_name": "tencent-push-attribute-sync",
}
_FORCED_PARAMETERS = "client_encoding=UTF8"  # the default is the database's own encoding, and Arrow's text is UTF-8

_SERVER_WORDS = re.compile(r"\b(?:ERROR|FATAL):.*", re.DOTALL)
_DRIVER_PREFIX = re.compile(r"^(?:[A-Z_]+: )?\[libpq\] ")
_CONNECTION_LOST = re.compile(r"^FATAL:|^(?!ERROR:).*(connection|could not (receive|send)|SSL)", re.DOTALL)
_PASSING = re.compile(
    r"Connection refused|timeout expired|timed out|Temporary failure|closed the connection unexpectedly|reset by peer|"
    r"No such file or directory|starting up|shutting down|recovery mode|too many (?:clients|connections)|"
    r"connection slots"
)
_GRANT = "Grant the role usage on the schema and select on the table."
_NAMES_NOT_VALUES = ("42", "26", "3F", "0A", "54")  # SQLSTATE classes whose messages quote identifiers, not rows


class PostgreSQL:
    """One connection, in a transaction that may only read and sees one state. Raises WarehouseError kinds alone."""

    def __init__(self, uri: str, *, timeout_seconds: float) -> None:
        self._uri = uri
        self._where = without_secrets(uri)
        driver = _driver()
        address = address_with_parameters(uri)
        try:
            self._connection = driver.connect(address)
            self._cursor = self._connection.cursor(
                adbc_stmt_kwargs={"adbc.postgresql.batch_size_hint_bytes": str(_BATCH_BYTES)}
            )
            for statement in _session(timeout_seconds):
                self._cursor.execute(statement)
                self._cursor.fetchall()
            self._connection.commit()
        except driver.Error as error:
            raise self._unreachable("cannot be reached", str(error), may_pass=True) from None

    def all_of(self, table: TableName) -> str:
        """The query for the whole table."""
        return all_of(table)

    def describe(self, query: str) -> pa.Schema:
        """The columns of the query's result; the server plans the query and runs nothing."""
        try:
            return self._cursor.adbc_execute_schema(query)
        except Exception as error:  # noqa: BLE001 - the driver raises several families
            raise self._translated(error) from None

    def select(self, query: str, fields: Sequence[pa.Field]) -> str:
        """`query` narrowed to `fields`, with the casts that the driver needs."""
        return narrowed(query, [_column(field) for field in fields])

    def read(self, query: str) -> Generator[pa.RecordBatch, None, None]:
        """The rows of `query`, in batches of a few megabytes."""
        try:
            self._cursor.execute(query)
            with closing(self._cursor.fetch_record_batch()) as reader:
                yield from reader
        except Exception as error:  # noqa: BLE001 - ADBC and Arrow families both
            raise self._translated(error) from None

    def cancel(self) -> None:
        """Ends what is running, from any thread."""
        with suppress(Exception):  # it may have ended by itself
            self._cursor.adbc_cancel()

    def close(self) -> None:
        """Closes the connection; the transaction ends without effect."""
        with suppress(Exception):  # a lost connection cannot be closed
            self._cursor.close()
        with suppress(Exception):
            self._connection.close()

    def _unreachable(self, what: str, message: str, *, may_pass: bool = False) -> WarehouseError:
        return WarehouseUnreachableError(
            f"{self._where} {what}: {mask_secrets(_plain(message), self._uri)}. "
            "Check host, port, database, user and password of the address, and that the server runs; then run again.",
            is_passing=may_pass and bool(_PASSING.search(message)),
        )

    def _translated(self, error: Exception) -> WarehouseError:
        message = _plain(str(error))
        state = getattr(error, "sqlstate", None) or ""  # missing from errors of the stream of rows
        if state.startswith(("08", "57P")) or _CONNECTION_LOST.search(message):
            return self._unreachable("broke off before the last row", message)
        if not state.startswith(_NAMES_NOT_VALUES):
            words = "" if state.startswith("P0") else message.partition("ERROR:")[2].strip()
            message = f"{before_values(words)} (SQLSTATE {state or 'unknown'})"
        message = mask_secrets(message, self._uri)
        remedy = _GRANT if state == "42501" else "Correct the query."
        return WarehouseQueryError(f"{self._where} refused the query: {message}. {remedy}")


def _session(timeout_seconds: float) -> list[str]:
    """One state of the data for all that the query calls, nothing written, and an end of the server's own."""
    milliseconds = int((timeout_seconds + _BACKSTOP_SECONDS) * 1000)
    return [
        "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY",
        # A lower limit that the role or the address sets stays; 0 means none.
        "SELECT set_config('statement_timeout', "  # noqa: S608 - a number of ours
        f"CASE WHEN setting::bigint BETWEEN 1 AND {milliseconds} THEN setting ELSE '{milliseconds}' END, false) "
        "FROM pg_settings WHERE name = 'statement_timeout'",
    ]


def address_with_parameters(uri: str) -> str:
    """`uri` with time-outs and the encoding set; what it sets itself stays, but for the encoding."""
    parameters = read_network_address(uri)["parameters"] or ""
    given = {pair.partition("=")[0] for pair in parameters.split("&")}
    added = [f"{name}={value}" for name, value in _DEFAULT_PARAMETERS.items() if name not in given]
    base = uri.partition("?")[0]
    return f"{base}?{'&'.join(filter(None, [parameters, *added, _FORCED_PARAMETERS]))}"


def _driver() -> Any:
    try:
        return importlib.import_module("adbc_driver_postgresql.dbapi")
    except ImportError:
        raise WarehouseSettingsError(
            "The driver for postgresql:// addresses is not installed. Install it: pip install '.[postgresql]'."
        ) from None


def _column(field: pa.Field) -> str:
    name = quoted(field.name)
    cast = _CASTS.get((field.metadata or {}).get(b"POSTGRESQL:type", b"").decode())
    return f"CAST({name} AS {cast}) AS {name}" if cast else name


def _plain(message: str) -> str:
    """The server's words without the driver's: no status prefix, no copy of the whole query, no SQLSTATE."""
    message = message.partition("\n\nQuery was:")[0].partition(". SQLSTATE:")[0]
    spoken = _SERVER_WORDS.search(message)
    message = spoken[0] if spoken else _DRIVER_PREFIX.sub("", message, count=1)
    return "\n".join(line.rstrip() for line in message.strip().splitlines()).rstrip(".")
