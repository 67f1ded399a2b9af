"""A double of Snowflake's protocol on loopback: logins, descriptions, pieces of Arrow, cancelled queries.

It knows no SQL: a test says what a query answers, in the encoding that Snowflake uses on the wire (numbers as integers
without their point, moments as seconds and fractions), and the vendor's own connector decodes it. What it proves is the
way through that connector; that the service itself answers so, it does not.
"""

import base64
import gzip
import json
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from tests.loopback_http import Exchange, loopback_http

_NARROWED = re.compile(r'SELECT ((?:"(?:[^"]|"")*"(?:, )?)+) FROM \(\n(.*)\n\) AS profiles', re.DOTALL)
_QUOTED = re.compile(r'"((?:[^"]|"")*)"')


@dataclass(frozen=True, slots=True)
class Column:
    """A column as Snowflake describes it, and its values as it encodes them, a list per piece of the answer."""

    name: str
    kind: str
    values: tuple[pa.Array, ...]
    precision: int | None = None
    scale: int | None = None
    bytes_of_one: int | None = None

    def described(self) -> dict[str, object]:
        return {
            "name": self.name, "type": self.kind, "precision": self.precision, "scale": self.scale, "nullable": True,
            "length": self.bytes_of_one, "byteLength": self.bytes_of_one, "database": "", "schema": "", "table": "",
        }  # fmt: skip

    def encoded(self, piece: int) -> pa.Field:
        said = {"logicalType": self.kind.upper(), "precision": self.precision or 0, "scale": self.scale or 0}
        said |= {"charLength": 0, "byteLength": self.bytes_of_one or 16}
        return pa.field(self.name, self.values[piece].type, metadata={key: str(value) for key, value in said.items()})


@dataclass(frozen=True, slots=True)
class RefusalError(Exception):
    """What the service says of a query that it does not run."""

    number: int
    state: str
    words: str


Rows = Sequence[Column]


@dataclass(slots=True)
class SnowflakeServer:
    """`rows` answers a query, without what we wrap around it, or raises a RefusalError."""

    port: int = 0
    rows: Callable[[str], Rows] = lambda query: ()
    login: str | None = None  # what a login is refused with
    broken_piece: int | None = None
    empty_piece: int | None = None
    asked: list[dict[str, Any]] = field(default_factory=list)
    logins: list[dict[str, Any]] = field(default_factory=list)
    cancelled: threading.Event = field(default_factory=threading.Event)
    _pieces: dict[str, bytes] = field(default_factory=dict)

    @property
    def uri(self) -> str:
        where = f"reader:secret@account:{self.port}/MARTS/PUBLIC"
        return f"snowflake://{where}?host=127.0.0.1&protocol=http&warehouse=SMALL&role=READER"

    def queries(self) -> list[str]:
        """What was run, not only described."""
        return [str(each["sqlText"]) for each in self.asked if not each.get("describeOnly")]

    def serve(self, exchange: Exchange) -> None:
        routes = {"/session/v1/login-request": self._log_in, "/queries/v1/query-request": self._query}
        if exchange.route in routes:
            routes[exchange.route](exchange)
        elif exchange.route in self._pieces:
            self._piece(exchange)
        else:
            exchange.answer_json({"data": None, "success": True})

    def _log_in(self, exchange: Exchange) -> None:
        self.logins.append(_json(exchange)["data"] | exchange.parameters)
        if self.login is not None:
            exchange.answer_json({"data": None, "code": "390100", "message": self.login, "success": False})
            return
        session = {"token": "t", "masterToken": "m", "validityInSeconds": 3600, "masterValidityInSeconds": 14400}
        names = {"databaseName": "MARTS", "schemaName": "PUBLIC", "warehouseName": "SMALL", "roleName": "READER"}
        session |= {"sessionId": 77, "serverVersion": "10.0.0", "parameters": [], "sessionInfo": names}
        exchange.answer_json({"data": session, "success": True, "code": None, "message": None})

    def _query(self, exchange: Exchange) -> None:
        asked = _json(exchange)
        self.asked.append(asked)
        query = str(asked["sqlText"])
        if query.startswith("SELECT SYSTEM$CANCEL_ALL_QUERIES(77)"):
            self.cancelled.set()
            text = pa.array(["1 jobs cancelled"])
            self._answer(exchange, [Column("CANCELLED", "text", (text,))], describe_only=False)
            return
        try:
            narrowed = _NARROWED.fullmatch(query)
            rows = self.rows(narrowed[2] if narrowed else query)
            if narrowed:
                names = [name.replace('""', '"') for name in _QUOTED.findall(narrowed[1])]
                rows = [next(column for column in rows if column.name == name) for name in names]
            self._answer(exchange, rows, describe_only=bool(asked.get("describeOnly")))
        except RefusalError as refusal:
            said = {"errorCode": f"{refusal.number:06}", "sqlState": refusal.state, "queryId": "01-query"}
            exchange.answer_json(
                {"data": said, "code": f"{refusal.number:06}", "message": refusal.words, "success": False}
            )

    def _answer(self, exchange: Exchange, rows: Rows, *, describe_only: bool) -> None:
        pieces = [] if describe_only else [_encoded(rows, piece) for piece in range(len(rows[0].values))]
        counts = [len(values) for values in rows[0].values]
        said: dict[str, object] = {
            "rowtype": [column.described() for column in rows], "queryResultFormat": "arrow", "queryId": "01-query",
            "rowsetBase64": base64.b64encode(pieces[0]).decode() if pieces else "", "statementTypeId": 4096,
            "total": 0 if describe_only else sum(counts), "returned": 0 if describe_only else counts[0],
            "parameters": [{"name": "TIMEZONE", "value": "UTC"}], "sqlState": "00000",
        }  # fmt: skip
        if len(pieces) > 1:
            routes = {f"/pieces/{index}": piece for index, piece in enumerate(pieces) if index}
            self._pieces |= routes
            said["chunks"] = [
                {"url": f"http://127.0.0.1:{self.port}{route}", "rowCount": count,
                 "uncompressedSize": len(piece), "compressedSize": len(gzip.compress(piece))}
                for (route, piece), count in zip(routes.items(), counts[1:], strict=True)
            ]  # fmt: skip
            said["chunkHeaders"] = {}
        exchange.answer_json({"data": said, "success": True, "code": None, "message": None})

    def _piece(self, exchange: Exchange) -> None:
        if exchange.route == f"/pieces/{self.broken_piece}":
            exchange.answer(b"<Error><Code>AccessDenied</Code></Error>", 403)
            return
        body = self._pieces[exchange.route]
        if exchange.route == f"/pieces/{self.empty_piece}":
            body = _without_rows(body)
        exchange.answer(body)


def _json(exchange: Exchange) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(exchange.body)
    return found


def _encoded(rows: Rows, piece: int) -> bytes:
    schema = pa.schema([column.encoded(piece) for column in rows])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(pa.RecordBatch.from_arrays([column.values[piece] for column in rows], schema=schema))
    body: bytes = sink.getvalue().to_pybytes()
    return body


def _without_rows(body: bytes) -> bytes:
    """A whole stream, and none of what it should hold."""
    sink = pa.BufferOutputStream()
    with pa.ipc.open_stream(body) as reader, pa.ipc.new_stream(sink, reader.schema):
        pass
    empty: bytes = sink.getvalue().to_pybytes()
    return empty


@contextmanager
def snowflake_server() -> Iterator[SnowflakeServer]:
    server = SnowflakeServer()
    with loopback_http(server.serve) as server.port:
        yield server
