"""ClickHouse as a warehouse, through its HTTP interface: rows arrive as Arrow batches, made by the server itself.

clickhouse-connect makes the connection, knows the server's settings and sends the queries. What is ClickHouse's alone
stands here: address, settings, errors. Its types are in clickhouse_types.py.
"""

import json
import re
import uuid
from collections.abc import Generator, Sequence
from contextlib import closing, suppress
from typing import Any

import pyarrow as pa

from connectors.profiles.errors import WarehouseError, before_values
from connectors.profiles.warehouses.arrow_stream import BrokenStreamError, batches_to_the_end
from connectors.profiles.warehouses.clickhouse_types import column_of, field_of, quoted_name
from connectors.profiles.warehouses.servers import (
    APPLICATION,
    BACKSTOP_SECONDS,
    CONNECT_SECONDS,
    ServerAddress,
    driver,
    server_address,
)
from connectors.profiles.warehouses.sql_text import TableName, narrowed

_SHAPE = "clickhouse://user:password@host:8443/database"
_PARAMETERS = ("secure", "verify", "ca_cert", "connect_timeout")
_PLAIN_PORT, _TLS_PORT = 8123, 8443
_CANCEL_SECONDS = 3

_ENDED_BY_LIMIT = (159, 160)  # at max_execution_time, or because it would have got there
_AUTHENTICATION = (192, 193, 194, 195, 516)
_BROKEN = (202, 209, 210, 236, 279)  # too many queries at once, socket time-out, network error, shutting down
_PASSING = (202, 209, 210, 236)
_DENIED = 497
_THROWN = 395  # by throwIf: the words are the query's own
_NAMES_NOT_VALUES = frozenset((36, 42, 43, 44, 46, 47, 48, 50, 60, 62, 81, 164, 179, 184, 206, 207, 215, 291, _DENIED))
_GRANT = "Grant the user select on the table."
_CODE = re.compile(r"Code: (\d+)\. DB::Exception: ")


class ClickHouse:
    """One client of the HTTP interface. A query sees one state of each table; the session may only read."""

    def __init__(self, uri: str, *, timeout_seconds: float) -> None:
        self._address = server_address(uri, shape=_SHAPE, parameters=_PARAMETERS, most_parts=1)
        self._driver = driver("clickhouse_connect", scheme="clickhouse", extra="clickhouse")
        self._fault: type[Exception] = self._driver.driver.exceptions.ClickHouseError
        self._arguments = _arguments(self._address)
        self._query_id = str(uuid.uuid4())
        self._body: Any = None
        try:
            self._client = self._connected(seconds=int(timeout_seconds) + BACKSTOP_SECONDS)
        except self._fault as error:
            raise self._translated(error, what="cannot be reached") from None
        self._prepare_session(int(timeout_seconds) + BACKSTOP_SECONDS)

    def all_of(self, table: TableName) -> str:
        """The query for the whole table."""
        return f"SELECT * FROM {'.'.join(map(quoted_name, table.parts))}"  # noqa: S608 - quoted names

    def describe(self, query: str) -> pa.Schema:
        """The columns of the query's result; the server analyses the query and reads no table."""
        try:
            answer = self._client.raw_query(f"DESCRIBE TABLE (\n{query}\n)", fmt="JSONCompact")
        except self._fault as error:
            raise self._translated(error) from None
        return pa.schema([field_of(name, declared) for name, declared, *_ in json.loads(answer)["data"]])

    def select(self, query: str, fields: Sequence[pa.Field]) -> str:
        """`query` narrowed to `fields`, with the conversions that its types need."""
        return narrowed(query, [column_of(field) for field in fields])

    def read(self, query: str) -> Generator[pa.RecordBatch, None, None]:
        """The rows of `query`, in the server's blocks: at most 65,409 rows, of a table about a megabyte."""
        self._query_id = str(uuid.uuid4())
        try:
            self._body = self._client.raw_stream(query, fmt="ArrowStream", settings={"query_id": self._query_id})
            with closing(self._body):  # in the middle of an answer: the server notices and ends the query
                for batch in batches_to_the_end(self._body):
                    yield _with_texts(batch)
        except BrokenStreamError as error:
            raise self._translated(error, error.tail.decode(errors="replace")) from None
        except Exception as error:  # noqa: BLE001 - the driver's, its HTTP library's and Arrow's
            raise self._translated(error) from None

    def cancel(self) -> None:
        """Ends what is running, from any thread: by a second connection, and by hanging up."""
        with suppress(Exception):  # it may have ended by itself; the server may be gone
            killer = self._connected(seconds=_CANCEL_SECONDS)
            with closing(killer):
                killer.command(f"KILL QUERY WHERE query_id = '{self._query_id}' ASYNC")
        with suppress(Exception):  # there is no answer yet, or it is over
            self._body.shutdown()

    def close(self) -> None:
        """Closes the connections."""
        with suppress(Exception):
            self._client.close()

    def _connected(self, *, seconds: int) -> Any:
        connect_seconds = min(self._address.seconds("connect_timeout", CONNECT_SECONDS), seconds)
        return self._driver.get_client(**self._arguments, connect_timeout=connect_seconds, send_receive_timeout=seconds)

    def _prepare_session(self, seconds: int) -> None:
        """Nothing written, and an end of the server's own. What the user's profile fixes stays as it is."""
        for name, value in (
            ("cancel_http_readonly_queries_on_client_close", "1"),
            ("timeout_before_checking_execution_speed", "0"),  # else a forecast of the time counts, not the time
            ("max_execution_time", self._most_seconds(seconds)),
            ("readonly", "2"),  # settings may still be sent with a query
        ):
            with suppress(self._fault):
                self._client.set_client_setting(name, value)

    def _most_seconds(self, seconds: int) -> str:
        """Ours, or the profile's own limit where that is lower; more than its maximum would refuse every query."""
        try:
            known = self._client.command("SELECT value, max FROM system.settings WHERE name = 'max_execution_time'")
        except self._fault as error:
            raise self._translated(error, what="cannot be reached") from None
        limits = [float(said) for said in known if re.fullmatch(r"[0-9.]+", said) and float(said) > 0]
        return str(int(min([seconds, *limits])))

    def _translated(
        self, error: Exception, said: str | None = None, *, what: str = "broke off before the last row"
    ) -> WarehouseError:
        if isinstance(error, WarehouseError):
            return error
        text = str(error) if said is None else said
        spoken = _CODE.search(text)
        if spoken is None:
            return self._address.broken(what, error)
        code, words = int(spoken[1]), _sentence(text)
        if code in _ENDED_BY_LIMIT:
            return self._address.timed_out("max_execution_time")
        if code in _AUTHENTICATION:
            return self._address.unreachable(what, words.partition(": password")[0])
        if code in _BROKEN:
            return self._address.unreachable(what, f"{before_values(words)} (code {code})", is_passing=code in _PASSING)
        if code not in _NAMES_NOT_VALUES:
            words = f"{before_values('' if code == _THROWN else words)} (code {code})"
        return self._address.refused(words, remedy=_GRANT if code == _DENIED else "Correct the query.")


def _arguments(address: ServerAddress) -> dict[str, Any]:
    is_secure = address.flag("secure", address.port != _PLAIN_PORT)
    arguments: dict[str, Any] = {
        "host": address.host,
        "port": address.port or (_TLS_PORT if is_secure else _PLAIN_PORT),
        "interface": "https" if is_secure else "http",
        "username": address.user or "default",
        "password": address.password,
        "database": address.path[0] if address.path else None,
        "client_name": APPLICATION,
        "autogenerate_session_id": False,  # else the query could not be killed while it runs
        "dedicated_pool": True,
        "verify": address.flag("verify", True),
    }
    if "ca_cert" in address.parameters:
        arguments["ca_cert"] = address.parameters["ca_cert"]
    return arguments


def _with_texts(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Older servers hand a String on as bytes; whether it is UTF-8 is looked at when it becomes a text's target."""
    columns = [column.view(pa.string()) if pa.types.is_binary(column.type) else column for column in batch.columns]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _sentence(text: str) -> str:
    """The server's own sentence, without its code, the name of the error and the version."""
    words = re.split(r"DB::Exception: ", text)[-1]
    return re.split(r" \([A-Z_0-9]{3,}\)| \(version |: While |\. Expected one of", words)[0]
