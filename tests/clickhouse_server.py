"""ClickHouse's HTTP interface on loopback, with the answers of a real engine: played from a file, or made afresh.

What the engine (ClickHouse 26.9, embedded as chdb) answered to each query of the tests stands in a file beside them,
byte for byte, because the engine needs 543 MB. To make it afresh after a change of the queries, install chdb 4.4 and
run `RECORD_CLICKHOUSE=1 python -m pytest tests/connectors/profiles/warehouses/test_clickhouse.py`. The HTTP around it,
with its users, settings and kills, is this file's: not a server of ClickHouse's.
"""

import base64
import json
import os
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tests.loopback_http import Exchange, loopback_http

ANSWERS = Path(__file__).parent / "connectors/profiles/warehouses/clickhouse_answers.json"
_SETTINGS = "SELECT name, value, readonly FROM system.settings"
_KNOWN_SETTINGS = (
    "max_execution_time", "readonly", "timeout_before_checking_execution_speed", "send_progress_in_http_headers",
    "cancel_http_readonly_queries_on_client_close", "enable_http_compression", "http_headers_progress_interval_ms",
)  # fmt: skip
_TABLES = (
    "CREATE DATABASE marts",
    "CREATE TABLE marts.`user ``profiles` (id UInt64, name LowCardinality(Nullable(String)), balance Decimal(12, 2), "
    "seen DateTime('Asia/Shanghai'), tags Array(String)) ENGINE = MergeTree ORDER BY id",
    "INSERT INTO marts.`user ``profiles` VALUES (1, '王小明', 12.50, '2026-11-22 10:00:00', ['a']), "
    "(2, NULL, -0.01, '1970-01-01 08:00:00', [])",
)


class RefusedError(Exception):
    """What the engine says of a query that it does not run."""


class Engine(Protocol):
    def answer(self, query: str) -> bytes:
        """The body of the answer. Raises RefusedError."""


class Played:
    """The answers in the file; a query that is not there fails the test."""

    def __init__(self) -> None:
        self._answers = json.loads(ANSWERS.read_text(encoding="utf-8"))

    def answer(self, query: str) -> bytes:
        recorded = self._answers.get(query)
        if recorded is None:
            raise RefusedError(f"Code: 0. DB::Exception: the tests have no answer for: {query}")
        if "refused" in recorded:
            raise RefusedError(recorded["refused"])
        return zlib.decompress(base64.b64decode(recorded["body"]))


class Embedded:
    """The engine itself; remembers what it answered."""

    def __init__(self) -> None:
        from chdb import session  # type: ignore[import-not-found,unused-ignore]

        self._open = session.Session
        self._folder = tempfile.mkdtemp(prefix="clickhouse-")
        self._session = self._open(self._folder)
        self._lock = threading.Lock()
        self.answers: dict[str, dict[str, str]] = {}
        for statement in _TABLES:
            self._session.query(statement)

    def answer(self, query: str) -> bytes:
        few = ", ".join(f"'{name}'" for name in _KNOWN_SETTINGS)
        asked = query.replace(_SETTINGS, f"{_SETTINGS} WHERE name IN ({few})")
        with self._lock:
            try:
                body = bytes(self._session.query(asked, "TabSeparated").bytes())
            except Exception as error:  # noqa: BLE001 - of whatever kind the engine's are
                self.answers[query] = {"refused": str(error)}
                self._session.close()  # else the next answer begins with what this one had begun
                self._session = self._open(self._folder)
                raise RefusedError(str(error)) from None
        self.answers[query] = {"body": base64.b64encode(zlib.compress(body, 9)).decode()}
        return body

    def keep(self) -> None:
        ANSWERS.write_text(
            json.dumps(self.answers, ensure_ascii=False, indent=1, sort_keys=True) + "\n", encoding="utf-8"
        )


@dataclass(slots=True)
class Request:
    """One request: its query, the parameters of its address, and the answer."""

    query: str
    parameters: dict[str, str]
    exchange: Exchange

    def refuse(self, words: str, status: int = 500) -> None:
        code = words.partition("Code: ")[2].partition(".")[0]
        self.exchange.answer(f"{words} (version 26.9.2.1)\n".encode(), status, {"X-ClickHouse-Exception-Code": code})


Script = Callable[[Request], bool]


@dataclass(slots=True)
class ClickHouseServer:
    """`uri` is that of a user who may read. `script` may answer a request itself, and says whether it did."""

    engine: Engine
    port: int = 0
    password: str = "secret"
    script: Script = lambda request: False
    requests: list[Request] = field(default_factory=list)

    @property
    def uri(self) -> str:
        return f"clickhouse://reader:{self.password}@127.0.0.1:{self.port}/marts?secure=false"

    def queries(self, beginning: str) -> list[Request]:
        return [request for request in self.requests if request.query.startswith(beginning)]

    def serve(self, exchange: Exchange) -> None:
        request = Request(exchange.body.decode(), exchange.parameters, exchange)
        expected = "Basic " + base64.b64encode(f"reader:{self.password}".encode()).decode()
        self.requests.append(request)
        if exchange.headers["Authorization"] != expected:
            request.refuse(_NOT_LET_IN, 403)
        elif not self.script(request):
            try:
                exchange.answer(self.engine.answer(request.query))
            except RefusedError as error:
                request.refuse(str(error))


_NOT_LET_IN = (
    "Code: 516. DB::Exception: reader: Authentication failed: password is incorrect, or there is no user with such "
    "name. (AUTHENTICATION_FAILED)"
)


@contextmanager
def clickhouse_server() -> Iterator[ClickHouseServer]:
    """Starts the server; with RECORD_CLICKHOUSE=1 the engine answers, and its answers replace the file."""
    engine: Engine = Embedded() if os.environ.get("RECORD_CLICKHOUSE") else Played()
    server = ClickHouseServer(engine)
    with loopback_http(server.serve) as server.port:
        yield server
    if isinstance(engine, Embedded):
        engine.keep()
