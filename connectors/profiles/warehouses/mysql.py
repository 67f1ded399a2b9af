"""MySQL and MariaDB as a warehouse, and what speaks their protocol (Doris, StarRocks, TDSQL).

PyMySQL makes the connection, sends the query and reads the description of its columns; the rows are read from its
stream as they come and decoded by mysql_rows.py. What is MySQL's alone stands here: address, session, errors.
"""

import importlib
import re
import socket
from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

from connectors.profiles.arrow_types import ColumnFault, column_error
from connectors.profiles.errors import (
    SourceColumnError,
    WarehouseError,
    WarehouseQueryError,
    WarehouseSettingsError,
    WarehouseUnreachableError,
    before_values,
    mask_secrets,
    read_network_address,
    without_secrets,
)
from connectors.profiles.warehouses.mysql_rows import Packets, RowTooLongError, is_error
from connectors.profiles.warehouses.mysql_types import REWRITTEN, field_of, values_of
from connectors.profiles.warehouses.sql_text import TableName, all_of, narrowed, quoted

_BATCH_BYTES = 1024 * 1024  # on the wire
_READ_BYTES = 256 * 1024
_CONNECT_SECONDS, _KILL_SECONDS = 15, 3
_BACKSTOP_SECONDS = 60  # the server ends a statement by itself this long after we should have cancelled it
_KEEP_ALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}  # seconds, seconds, probes
_ALL_ROWS = 2**63 - 1  # the largest LIMIT that all of them take
_ORDERED = re.compile(r"\border\s+by\b", re.IGNORECASE)
_DOUBLED = re.compile(r"Duplicate column name '(.*)'", re.DOTALL)

_SSL_MODES: Mapping[str, Mapping[str, bool]] = {
    "disabled": {"ssl_disabled": True},
    "preferred": {},
    "required": {"ssl_verify_cert": False},
    "verify_ca": {"ssl_verify_cert": True},
    "verify_identity": {"ssl_verify_cert": True, "ssl_verify_identity": True},
}
_PARAMETERS = ("connect_timeout", "ssl_ca", "ssl_cert", "ssl_key", "ssl_mode", "unix_socket")

# error numbers of the server and of the client
_LOST = (1053, 1152, 1184, 1927, 2006, 2013, 2055, 3169, 4031)
_PASSING = (1040, 1053, 1203, 2002, 2003, 2006, 2013)
_DENIED = (1044, 1142, 1143, 1227, 1370)
_SYNTAX, _COLUMN_TWICE = 1064, 1060
_SIGNALLED = 1644  # the words are of somebody's own function
_NAMES_NOT_VALUES = frozenset(
    (1046, 1049, 1051, 1052, 1054, 1056, 1064, 1066, 1109, 1146, 1247, 1305, 1317, 1356, 1792, 1969, 3024, *_DENIED)
)
_NO_HOST = "Name or service not known"
_GRANT = "Grant the user select on the table."


class MySQL:
    """One connection, in a transaction that may only read and sees one state."""

    def __init__(self, uri: str, *, timeout_seconds: float) -> None:
        self._uri = uri
        self._where = without_secrets(uri)
        self._address = address_of(uri)
        self._driver = _driver()
        self._schemas: dict[str, pa.Schema] = {}  # of narrowed queries, whose description would tell less
        try:
            self._connection = self._connected(_CONNECT_SECONDS)
            self._prepare_session(timeout_seconds)
        except (self._driver.Error, OSError, RuntimeError) as error:
            raise self._unreachable("cannot be reached", error, may_pass=True) from None

    def all_of(self, table: TableName) -> str:
        """The query for the whole table."""
        return all_of(table, "`")

    def describe(self, query: str) -> pa.Schema:
        """The columns of the query's result; the server is asked for none of its rows."""
        known = self._schemas.get(query)
        return known if known is not None else pa.schema([field_of(column) for column in self._columns(query)])

    def select(self, query: str, fields: Sequence[pa.Field]) -> str:
        """`query` narrowed to `fields`, in its order; as it stands where all of its columns are wanted."""
        columns = {column.name: column for column in self._columns(query)}
        if [field.name for field in fields] == list(columns) and not any(
            column.type_code in REWRITTEN for column in columns.values()
        ):
            narrow = query
        else:
            written = [_written(field.name, columns[field.name].type_code) for field in fields]
            narrow = narrowed(self._keeping_order(query), written)
        self._schemas[narrow] = pa.schema(fields)
        return narrow

    def read(self, query: str) -> Generator[pa.RecordBatch, None, None]:
        """The rows of `query`, in batches of about a megabyte."""
        schema = self.describe(query)
        try:
            self._connection.query(query, unbuffered=True)
            described = [column.name for column in self._connection._result.fields]  # see pyproject.toml
            if described != schema.names:
                raise WarehouseQueryError(f"{self._where}: the query's columns changed meanwhile. Run again.")
            for columns in self._columns_of_batches(len(described)):
                arrays = [values_of(*pair, where=self._where) for pair in zip(columns, schema, strict=True)]
                yield pa.RecordBatch.from_arrays(arrays, schema=schema)
        except (self._driver.Error, OSError) as error:
            raise self._translated(error) from None
        except RowTooLongError:
            raise WarehouseQueryError(
                f"{self._where}: a row has 16 MiB or more. Take the column that is so long out of the mapping, or cut "
                "it in the query."
            ) from None

    def cancel(self) -> None:
        """Ends what is running, from any thread: by a second connection, or by hanging up where there is none."""
        try:
            killer = self._connected(_KILL_SECONDS)
            try:
                killer.query(f"KILL QUERY {self._connection.thread_id()}")
            finally:
                killer.close()
        except Exception:  # noqa: BLE001 - it may have ended by itself; the server may be gone
            with suppress(Exception):
                self._connection._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Closes the connection, also in the middle of an answer; the transaction ends without effect."""
        with suppress(Exception):
            self._connection._result.unbuffered_active = False  # else the driver reads it to its end
        with suppress(Exception):
            self._connection.close()

    def _connected(self, timeout_seconds: int) -> Any:
        address = {"connect_timeout": timeout_seconds, **self._address}
        connection = self._driver.connect(**address, read_timeout=address["connect_timeout"])
        connection._read_timeout = None  # from now on the connection's own deadline counts
        with suppress(OSError, AttributeError):  # a Unix socket needs none
            for name, value in _KEEP_ALIVE.items():
                connection._sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        return connection

    def _prepare_session(self, timeout_seconds: float) -> None:
        self._execute("SET time_zone = '+00:00'")
        version = self._one("SELECT CONCAT(VERSION(), ' ', @@version_comment)").lower()
        seconds = int(timeout_seconds + _BACKSTOP_SECONDS)
        if "doris" in version or "starrocks" in version:  # no transactions: one query sees one version of its tables
            with suppress(self._driver.Error):
                self._execute(f"SET query_timeout = {seconds}")
            return
        name, limit = (
            ("max_statement_time", seconds) if "mariadb" in version else ("max_execution_time", seconds * 1000)
        )
        self._execute(f"SET SESSION {name} = IF(@@{name} > 0 AND @@{name} < {limit}, @@{name}, {limit})")
        self._execute("SET SESSION net_write_timeout = 600")  # a moment's stall here must not cost the answer
        self._execute("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        self._execute("SET SESSION TRANSACTION READ ONLY")
        self._execute("START TRANSACTION WITH CONSISTENT SNAPSHOT")

    def _execute(self, statement: str) -> None:
        self._connection.query(statement)

    def _one(self, query: str) -> str:
        self._connection.query(query)
        return str(self._connection._result.rows[0][0])

    def _columns(self, query: str) -> Sequence[Any]:
        try:
            self._execute(f"{narrowed(query, ['*'])} LIMIT 0")
        except (self._driver.Error, OSError) as error:
            raise self._translated(error) from None
        columns: Sequence[Any] = self._connection._result.fields
        return columns

    def _keeping_order(self, query: str) -> str:
        """MariaDB forgets the order of a query inside another one, unless it has a LIMIT."""
        limited = f"{query}\nLIMIT {_ALL_ROWS}"
        if not _ORDERED.search(query):
            return query
        try:
            self._execute(f"{narrowed(limited, ['*'])} LIMIT 0")
        except self._driver.Error as error:
            if _number(error) == _SYNTAX:  # it has a LIMIT of its own
                return query
            raise self._translated(error) from None
        return limited

    def _columns_of_batches(self, columns: int) -> Generator[list[pa.Array], None, None]:
        packets, stream = Packets(), self._connection._rfile
        while packets.last is None:
            piece = stream.read1(_READ_BYTES)
            if not piece:
                raise self._driver.OperationalError(2013, "the server closed the connection")
            packets.add(piece)
            if packets.starts and (packets.last is not None or packets.end_bytes >= _BATCH_BYTES):
                yield packets.take(columns=columns)
        self._connection._result.unbuffered_active = False
        if is_error(packets.last):
            self._driver.err.raise_mysql_exception(packets.last)

    def _unreachable(self, what: str, error: Exception, *, may_pass: bool = False) -> WarehouseError:
        said = mask_secrets(_words(error), self._uri)
        return WarehouseUnreachableError(
            f"{self._where} {what}: {said}. "
            "Check host, port, database, user and password of the address, and that the server runs; then run again.",
            is_passing=may_pass and (isinstance(error, OSError) or _number(error) in _PASSING) and _NO_HOST not in said,
        )

    def _translated(self, error: Exception) -> WarehouseError | SourceColumnError:
        number = _number(error)
        if isinstance(error, OSError) or number in _LOST:
            return self._unreachable("broke off before the last row", error)
        doubled = _DOUBLED.search(_words(error)) if number == _COLUMN_TWICE else None
        if doubled:
            fault = ColumnFault(f"stands there more than once ({doubled[1]!r} more than once)", "name {0} once")
            return column_error(doubled[1], fault, where=f"The query's result in {self._where}")
        message = _words(error)
        if number not in _NAMES_NOT_VALUES:
            message = f"{before_values('' if number == _SIGNALLED else message)} (error {number})"
        message = mask_secrets(message, self._uri)
        remedy = _GRANT if number in _DENIED else "Correct the query."
        return WarehouseQueryError(f"{self._where} refused the query: {message}. {remedy}")


def address_of(uri: str) -> dict[str, Any]:
    """What the driver connects with. Raises WarehouseSettingsError for an address that it cannot take."""
    parts = read_network_address(uri)
    where = without_secrets(uri)
    if "," in parts["hosts"]:
        raise WarehouseSettingsError(f"{where} names several hosts; a MySQL address has one.")
    host, _, port = parts["hosts"].partition("]:") if parts["hosts"].startswith("[") else parts["hosts"].partition(":")
    address: dict[str, Any] = {
        "host": host.strip("[]") or "localhost",
        "port": int(port or 3306),
        "user": unquote(parts["user"] or ""),
        "password": unquote(parts["password"] or "").encode(),
        "database": unquote(parts["path"] or "").strip("/") or None,
        "charset": "utf8mb4",
        "autocommit": True,
        "program_name": "tencent-push-attribute-sync",
    }
    for name, _, value in (pair.partition("=") for pair in (parts["parameters"] or "").split("&") if pair):
        if name not in _PARAMETERS:
            raise WarehouseSettingsError(f"{where} has the parameter {name!r}. Known: {', '.join(_PARAMETERS)}.")
        if name == "ssl_mode":
            mode = _SSL_MODES.get(value.lower())
            if mode is None:
                raise WarehouseSettingsError(f"{where}: ssl_mode is one of {', '.join(_SSL_MODES)}.")
            address |= mode
        elif name == "connect_timeout":
            if not value.isdigit() or int(value) == 0:
                raise WarehouseSettingsError(f"{where}: connect_timeout is a number of seconds.")
            address[name] = int(value)
        else:
            address[name] = unquote(value)
    return address


def _driver() -> Any:
    try:
        return importlib.import_module("pymysql")
    except ImportError:
        raise WarehouseSettingsError(
            "The driver for mysql:// addresses is not installed. Install it: pip install '.[mysql]'."
        ) from None


def _written(name: str, type_code: int) -> str:
    column = quoted(name, "`")
    return f"{REWRITTEN[type_code].format(column)} AS {column}" if type_code in REWRITTEN else column


def _number(error: Exception) -> int:
    return error.args[0] if error.args and isinstance(error.args[0], int) else 0


def _words(error: Exception) -> str:
    return str(error.args[-1] if error.args else error).strip().rstrip(".")
