"""A double of a Databricks SQL warehouse on loopback: its Thrift service, by the vendor's own definitions of it.

It knows no SQL: a test says what a query answers, as Arrow batches with the metadata that the service gives them. What
it proves is the way through the connector; that the service itself answers so, it does not.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import pyarrow as pa
from databricks.sql.thrift_api.TCLIService import TCLIService, ttypes
from thrift.protocol.TBinaryProtocol import TBinaryProtocolAccelerated
from thrift.transport.TTransport import TMemoryBuffer

from tests.loopback_http import Exchange, loopback_http

_INLINE, _BESIDE = ttypes.TSparkRowSetType.ARROW_BASED_SET, ttypes.TSparkRowSetType.URL_BASED_SET
_DONE = ttypes.TStatus(ttypes.TStatusCode.SUCCESS_STATUS)


class RefusedError(Exception):
    """What the service says of a query: its words, which hold the SQLSTATE."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The batches of a query; `waits` until somebody cancels; `breaks` instead of handing on that batch.

    `beside`: large answers, which the service lays down in a storage beside it, with an address for each piece.
    """

    schema: pa.Schema
    batches: Sequence[pa.RecordBatch] = ()
    waits: bool = False
    breaks: int | None = None
    beside: bool = False


@dataclass(slots=True)
class DatabricksServer:
    """`answer` says what a query gives, or raises RefusedError. Its queries come without what we wrap around them."""

    answer: Callable[[str], Answer] = lambda query: Answer(pa.schema([]))
    port: int = 0
    status: int = 200
    fixed: str = "nothing"  # the beginning of what may not be set
    asked: list[str] = field(default_factory=list)
    sessions: list[Any] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    routes: list[str] = field(default_factory=list)
    cancelled: threading.Event = field(default_factory=threading.Event)
    _pieces: dict[str, bytes] = field(default_factory=dict)
    _running: dict[bytes, tuple[Answer | RefusedError, Iterator[int]]] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=count)

    @property
    def uri(self) -> str:
        return f"databricks://token:secret@127.0.0.1:{self.port}?http_path=/sql/1.0/warehouses/abc&catalog=c&schema=s"

    def queries(self) -> list[str]:
        """What was run, not only described or set."""
        return [query for query in self.asked if not query.startswith("SET ") and not query.endswith(" LIMIT 0")]

    def serve(self, exchange: Exchange) -> None:
        if exchange.route.startswith("/pieces/"):
            piece = self._pieces.get(exchange.route)
            exchange.answer(piece or b"AccessDenied", 200 if piece else 403)
            return
        self.routes.append(exchange.route)
        self.headers.append({name.lower(): value for name, value in exchange.headers.items()})
        if self.status != 200:
            exchange.answer(b"planted", self.status, {"X-Thriftserver-Error-Message": "Invalid access token. planted"})
            return
        answered = TMemoryBuffer()
        protocols = TBinaryProtocolAccelerated(TMemoryBuffer(exchange.body)), TBinaryProtocolAccelerated(answered)
        try:
            TCLIService.Processor(self).process(*protocols)
        except ConnectionAbortedError:
            exchange.hang_up()
            return
        exchange.answer(answered.getvalue(), headers={"Content-Type": "application/x-thrift"})

    # the service's own names ------------------------------------------------------------------------------------

    def OpenSession(self, request: Any) -> Any:  # noqa: N802  the vendor's name
        self.sessions.append(request)
        handle = ttypes.TSessionHandle(ttypes.THandleIdentifier(b"s" * 16, b"s" * 16))
        version = ttypes.TProtocolVersion.SPARK_CLI_SERVICE_PROTOCOL_V7
        return ttypes.TOpenSessionResp(_DONE, version, handle, canUseMultipleCatalogs=True)

    def CloseSession(self, request: Any) -> Any:  # noqa: N802  the vendor's name
        return ttypes.TCloseSessionResp(_DONE)

    def ExecuteStatement(self, request: Any) -> Any:  # noqa: N802  the vendor's name
        self.asked.append(request.statement)
        name = b"%016d" % next(self._numbers)
        try:
            self._running[name] = self._answer(request.statement), count()
        except RefusedError as error:
            self._running[name] = error, count()
        identifier = ttypes.THandleIdentifier(name, name)
        handle = ttypes.TOperationHandle(identifier, ttypes.TOperationType.EXECUTE_STATEMENT, hasResultSet=True)
        return ttypes.TExecuteStatementResp(_DONE, handle)

    def GetOperationStatus(self, request: Any) -> Any:  # noqa: N802  the vendor's name
        answer, _ = self._running[request.operationHandle.operationId.guid]
        state = ttypes.TOperationState.FINISHED_STATE
        if isinstance(answer, RefusedError):
            state = ttypes.TOperationState.ERROR_STATE
            return ttypes.TGetOperationStatusResp(_DONE, state, errorMessage=str(answer), displayMessage=str(answer))
        if answer.waits:
            stopped = self.cancelled.wait(0.05)
            state = ttypes.TOperationState.CANCELED_STATE if stopped else ttypes.TOperationState.RUNNING_STATE
        return ttypes.TGetOperationStatusResp(_DONE, state)

    def GetResultSetMetadata(self, request: Any) -> Any:  # noqa: N802  the vendor's name
        answer, _ = self._running[request.operationHandle.operationId.guid]
        assert isinstance(answer, Answer)
        return _metadata(answer)

    def FetchResults(self, request: Any) -> Any:  # noqa: N802  the vendor's name
        answer, places = self._running[request.operationHandle.operationId.guid]
        assert isinstance(answer, Answer)
        place = next(places)
        if answer.beside:
            links = [self._link(answer, number) for number in range(len(answer.batches))]
            rows = ttypes.TRowSet(startRowOffset=0, rows=[], resultLinks=links)
            return ttypes.TFetchResultsResp(_DONE, False, rows, resultSetMetadata=_metadata(answer))
        if place == answer.breaks:
            raise ConnectionAbortedError
        batches = [
            ttypes.TSparkArrowBatch(batch.serialize().to_pybytes(), batch.num_rows)
            for batch in answer.batches[place : place + 1]
        ]
        before = sum(batch.num_rows for batch in answer.batches[:place])
        rows = ttypes.TRowSet(startRowOffset=before, rows=[], arrowBatches=batches)
        more = place + 1 < len(answer.batches)
        return ttypes.TFetchResultsResp(_DONE, more, rows, resultSetMetadata=_metadata(answer))

    def CancelOperation(self, request: Any) -> Any:  # noqa: N802  the vendor's name
        self.cancelled.set()
        return ttypes.TCancelOperationResp(_DONE)

    def CloseOperation(self, request: Any) -> Any:  # noqa: N802  the vendor's name
        return ttypes.TCloseOperationResp(_DONE)

    def _link(self, answer: Answer, number: int) -> Any:
        batch, route = answer.batches[number], f"/pieces/{number}"
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema) as writer:
            writer.write_batch(batch)
        body = sink.getvalue().to_pybytes()
        if number != answer.breaks:
            self._pieces[route] = body
        before = sum(each.num_rows for each in answer.batches[:number])
        address = f"http://127.0.0.1:{self.port}{route}"
        return ttypes.TSparkArrowResultLink(address, int(time.time()) + 900, before, batch.num_rows, len(body))

    def _answer(self, query: str) -> Answer:
        if query.startswith("SET "):
            if query.startswith(self.fixed):
                raise RefusedError("[CANNOT_MODIFY_CONFIG] Cannot modify it. SQLSTATE: 46110")
            return Answer(pa.schema([("key", pa.string())]))
        if query.endswith(" LIMIT 0"):
            inside = query.removeprefix("SELECT * FROM (\n").removesuffix("\n) AS profiles LIMIT 0")
            return Answer(self._answer(inside).schema)
        names, separator, inside = query.partition(" FROM (\n")
        if not separator:
            return self.answer(query)
        whole = self.answer(inside.removesuffix("\n) AS profiles"))
        wanted = [part.strip("`") for part in names.removeprefix("SELECT ").split(", ")]
        schema = pa.schema([whole.schema.field(name) for name in wanted])
        return replace(whole, schema=schema, batches=[batch.select(wanted) for batch in whole.batches])


def _metadata(answer: Answer) -> Any:
    entry = ttypes.TTypeEntry(primitiveEntry=ttypes.TPrimitiveTypeEntry(ttypes.TTypeId.STRING_TYPE))
    columns = [
        ttypes.TColumnDesc(name, ttypes.TTypeDesc([entry]), place) for place, name in enumerate(answer.schema.names)
    ]
    return ttypes.TGetResultSetMetadataResp(
        _DONE, ttypes.TTableSchema(columns), resultFormat=_BESIDE if answer.beside else _INLINE,
        lz4Compressed=False, arrowSchema=answer.schema.serialize().to_pybytes(),
    )  # fmt: skip


@contextmanager
def databricks_server() -> Iterator[DatabricksServer]:
    server = DatabricksServer()
    with loopback_http(server.serve) as server.port:
        yield server
