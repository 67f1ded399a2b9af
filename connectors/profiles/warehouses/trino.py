"""Trino as a warehouse, through its own client: rows arrive as JSON, page by page, and are put into columns here.

What is Trino's alone stands here: address, session, errors. Its types are in trino_types.py.
"""

import re
from collections.abc import Generator, Sequence
from contextlib import suppress
from typing import Any

import pyarrow as pa

from connectors.profiles.errors import SourceColumnError, WarehouseError, WarehouseSettingsError, before_values
from connectors.profiles.warehouses.servers import (
    APPLICATION,
    BACKSTOP_SECONDS,
    CONNECT_SECONDS,
    Narrowing,
    ServerAddress,
    driver,
    server_address,
)
from connectors.profiles.warehouses.sql_text import TableName, all_of, narrowed
from connectors.profiles.warehouses.trino_types import column_of, field_of, values_of

_SHAPE = "trino://user:password@host:443/catalog/schema"
_PARAMETERS = ("secure", "verify", "ca_cert", "access_token", "connect_timeout")
_PLAIN_PORT, _TLS_PORT = 8080, 443
_ROWS_PER_BATCH = 5_000
_ANSWER_SECONDS = 60  # for one page; a query that is not ready is asked for again after a second
_ENDED_BY_LIMIT = "EXCEEDED_TIME_LIMIT"
_PASSING = (
    "SERVER_STARTING_UP", "SERVER_SHUTTING_DOWN", "NO_NODES_AVAILABLE", "QUERY_QUEUE_FULL", "CLUSTER_OUT_OF_MEMORY",
)  # fmt: skip
_LOST = ("ABANDONED_QUERY", "REMOTE_HOST_GONE", "REMOTE_TASK_ERROR", "PAGE_TRANSPORT_ERROR", "PAGE_TRANSPORT_TIMEOUT")
_DENIED = "PERMISSION_DENIED"
_NAMES_NOT_VALUES = (
    "SYNTAX_ERROR", "COLUMN_NOT_FOUND", "TABLE_NOT_FOUND", "SCHEMA_NOT_FOUND", "CATALOG_NOT_FOUND", "TYPE_MISMATCH",
    "FUNCTION_NOT_FOUND", "MISSING_CATALOG_NAME", "MISSING_SCHEMA_NAME", "AMBIGUOUS_NAME", "DUPLICATE_COLUMN_NAME",
    "MISSING_COLUMN_NAME", "EXPRESSION_NOT_AGGREGATE", "NOT_SUPPORTED", _DENIED,
)  # fmt: skip
_GRANT = "Grant the user select on the table."
_HTTP_REFUSED = re.compile(r"error (401|403)\b")


class Trino:
    """One client. Whether a query sees one state of the data is up to the catalog that it reads."""

    def __init__(self, uri: str, *, timeout_seconds: float) -> None:
        self._address = server_address(uri, shape=_SHAPE, parameters=_PARAMETERS, most_parts=2)
        self._driver = driver("trino", scheme="trino", extra="trino")
        self._narrowing = Narrowing(column_of=column_of)
        self._cursor: Any = None
        self._connection = self._driver.dbapi.connect(
            **_arguments(self._address, self._driver),
            session_properties={"query_max_run_time": f"{int(timeout_seconds) + BACKSTOP_SECONDS}s"},
        )
        try:
            self._run("SELECT 1")
        except Exception as error:  # noqa: BLE001 - the client's families and its HTTP library's
            raise self._translated(error, what="cannot be reached") from None

    def all_of(self, table: TableName) -> str:
        """The query for the whole table."""
        return all_of(table)

    def describe(self, query: str) -> pa.Schema:
        """The columns of the query's result; the server plans the query and reads no table."""
        known = self._narrowing.schema(query)
        if known is not None:
            return known
        try:
            self._run(f"{narrowed(query, ['*'])} LIMIT 0")
            described = self._cursor.description or ()
        except Exception as error:  # noqa: BLE001 - see __init__
            raise self._translated(error) from None
        return pa.schema([field_of(column[0], column[1]) for column in described])

    def select(self, query: str, fields: Sequence[pa.Field]) -> str:
        """`query` narrowed to `fields`, in its order."""
        return self._narrowing.select(query, fields, check=self.describe)

    def read(self, query: str) -> Generator[pa.RecordBatch, None, None]:
        """The rows of `query`, some thousands at a time."""
        schema = self.describe(query)
        try:
            self._run(query)
            places = self._places(schema.names)
            while rows := self._cursor.fetchmany(_ROWS_PER_BATCH):
                columns = list(zip(*rows, strict=True))
                arrays = [
                    values_of(columns[place], field, where=f"The query's result in {self._address.where}")
                    for place, field in zip(places, schema, strict=True)
                ]
                yield pa.RecordBatch.from_arrays(arrays, schema=schema)
        except Exception as error:  # noqa: BLE001 - see __init__
            raise self._translated(error) from None

    def cancel(self) -> None:
        """Ends what is running, from any thread."""
        with suppress(Exception):  # it may have ended by itself; the server may be gone
            self._cursor.cancel()

    def close(self) -> None:
        """Closes the connections."""
        with suppress(Exception):
            self._cursor.close()
        with suppress(Exception):
            self._connection.close()

    def _run(self, query: str) -> None:
        self._cursor = self._connection.cursor()
        self._cursor.execute(query)

    def _places(self, names: Sequence[str]) -> list[int]:
        answered = [column[0] for column in self._cursor.description]
        if not set(names) <= set(answered):
            raise self._address.refused("its columns changed meanwhile", remedy="Run again.")
        return [answered.index(name) for name in names]

    def _translated(
        self, error: Exception, *, what: str = "broke off before the last row"
    ) -> WarehouseError | SourceColumnError:
        if isinstance(error, WarehouseError | SourceColumnError):
            return error
        name, words = str(getattr(error, "error_name", None) or ""), str(getattr(error, "message", ""))
        if name == _ENDED_BY_LIMIT:
            return self._address.timed_out("query_max_run_time or another limit on time")
        if refused := _HTTP_REFUSED.match(str(error)):
            return self._address.unreachable(what, f"the server refuses the user, password or token ({refused[1]})")
        if name in (*_PASSING, *_LOST):
            return self._address.unreachable(what, name, is_passing=name in _PASSING)
        if not name:
            return self._address.broken(what, error)
        if name not in _NAMES_NOT_VALUES:
            words = f"{before_values(words)} ({name})"
        return self._address.refused(words, remedy=_GRANT if name == _DENIED else "Correct the query.")


def _arguments(address: ServerAddress, trino: Any) -> dict[str, Any]:
    is_secure = address.flag("secure", address.port != _PLAIN_PORT)
    token = address.parameters.get("access_token")
    if not is_secure and (address.password or token):
        raise WarehouseSettingsError(
            f"{address.where}: Trino takes a password or a token over an encrypted connection alone. Use its port for "
            "https, or leave the password out."
        )
    if not address.user and token is None:
        raise WarehouseSettingsError(f"{address.where} names no user. It must look like {_SHAPE}.")
    arguments: dict[str, Any] = {
        "host": address.host,
        "port": address.port or (_TLS_PORT if is_secure else _PLAIN_PORT),
        "http_scheme": "https" if is_secure else "http",
        "user": address.user or None,
        "source": APPLICATION,
        "timezone": "UTC",
        "verify": address.parameters.get("ca_cert", address.flag("verify", True)),
        "request_timeout": (address.seconds("connect_timeout", CONNECT_SECONDS), _ANSWER_SECONDS),
        "legacy_primitive_types": True,  # values as they stand in the JSON: exact, and no objects made of them
        "encoding": None,  # the pages come from the server, never from a storage of its own beside it
    }
    if token is not None:
        arguments["auth"] = trino.auth.JWTAuthentication(token)
    elif address.password:
        arguments["auth"] = trino.auth.BasicAuthentication(address.user, address.password)
    return arguments | dict(zip(("catalog", "schema"), address.path, strict=False))
