"""A double of BigQuery on loopback: tokens and jobs over HTTP, the rows over the Storage Read API's gRPC.

It knows no SQL: a test says what a query answers, as the Arrow types that the service documents for its columns, and
the vendor's own clients talk to it. What it proves is the way through those clients; that the service itself answers
so, it does not.
"""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import grpc
import pyarrow as pa
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.cloud import bigquery_storage
from google.cloud.bigquery_storage import types
from google.cloud.bigquery_storage_v1.services.big_query_read.transports import BigQueryReadGrpcTransport

from tests.loopback_http import Exchange, loopback_http

_PROJECT = "/bigquery/v2/projects/proj"


class RefusedError(Exception):
    """What the service says of a query: HTTP status, reason, words."""

    def __init__(self, status: int, reason: str, words: str) -> None:
        super().__init__(words)
        self.status, self.reason = status, reason

    def body(self) -> dict[str, object]:
        one = {"reason": self.reason, "message": str(self), "domain": "global"}
        return {"error": {"code": self.status, "message": str(self), "errors": [one]}}


@dataclass(frozen=True, slots=True)
class Answer:
    """`columns` as (name, type, mode), the batches of the rows, and how many rows the job says it has."""

    columns: Sequence[tuple[str, str, str]]
    batches: Sequence[pa.RecordBatch]
    statement: str = "SELECT"
    announced: int | None = None
    digits: tuple[int, int] | None = None  # of every numeric column that was declared with them

    def schema(self) -> dict[str, object]:
        declared = {} if self.digits is None else {"precision": str(self.digits[0]), "scale": str(self.digits[1])}
        return {"fields": [{"name": name, "type": kind, "mode": mode, **declared} for name, kind, mode in self.columns]}


@dataclass(slots=True)
class BigQueryServer:
    """`answer` says what a query gives, or raises RefusedError."""

    answer: Callable[[str], Answer] = lambda query: Answer((), ())
    port: int = 0
    storage_port: int = 0
    token_status: int = 200
    jobs: dict[str, str] = field(default_factory=dict)  # of those that ran: their query
    asked: list[dict[str, Any]] = field(default_factory=list)  # the configurations of all jobs
    sessions: list[Any] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    let_end: threading.Event = field(default_factory=threading.Event)
    cancelled: threading.Event = field(default_factory=threading.Event)

    def reader(self, storage: object, credentials: object) -> bigquery_storage.BigQueryReadClient:
        """A client of the gRPC side, without the encryption that the real one insists on."""
        channel = grpc.insecure_channel(f"127.0.0.1:{self.storage_port}")
        return bigquery_storage.BigQueryReadClient(transport=BigQueryReadGrpcTransport(channel=channel))

    def credentials_file(self, folder: Path) -> Path:
        """A service account's file, with a key of its own, whose tokens come from here."""
        account = {
            "type": "service_account", "project_id": "proj", "private_key_id": "1", "private_key": _key(),
            "client_email": "reader@proj.example.com", "token_uri": f"http://127.0.0.1:{self.port}/token",
        }  # fmt: skip
        path = folder / "account.json"
        path.write_text(json.dumps(account), encoding="utf-8")
        return path

    def serve(self, exchange: Exchange) -> None:
        self.calls.append(f"{exchange.command} {exchange.route}")
        try:
            if exchange.route == "/token":
                said = {"access_token": "planted-token", "expires_in": 3600, "token_type": "Bearer"}
                refused = {"error": "invalid_grant", "error_description": "Invalid grant: account not found"}
                exchange.answer_json(said if self.token_status == 200 else refused, self.token_status)
            elif exchange.headers["Authorization"] != "Bearer planted-token":
                raise RefusedError(401, "authError", "Invalid Credentials")
            elif exchange.command == "POST" and exchange.route == f"{_PROJECT}/jobs":
                exchange.answer_json(self._insert(json.loads(exchange.body)))
            elif exchange.route.endswith("/cancel"):
                self.cancelled.set()
                exchange.answer_json({"job": self._job(exchange.route.split("/")[-2])})
            elif exchange.route.startswith(f"{_PROJECT}/queries/"):
                exchange.answer_json(self._results(exchange.route.rpartition("/")[2]))
            else:
                exchange.answer_json(self._job(exchange.route.rpartition("/")[2]))
        except RefusedError as error:
            exchange.answer_json(error.body(), error.status)

    def _insert(self, job: dict[str, Any]) -> dict[str, object]:
        configuration, name = job["configuration"], job["jobReference"]["jobId"]
        self.asked.append(configuration)
        query = configuration["query"]["query"]
        if query == "SELECT 1":
            return {**job, "status": {"state": "DONE"}, "statistics": {"query": {"statementType": "SELECT"}}}
        answer = self.answer(query)
        statistics = {"query": {"statementType": answer.statement, "schema": answer.schema()}}
        if configuration.get("dryRun"):
            return {**job, "status": {"state": "DONE"}, "statistics": statistics}
        self.jobs[name] = query
        return {**self._job(name, state="RUNNING"), "configuration": configuration}

    def _job(self, name: str, state: str = "DONE") -> dict[str, Any]:
        table = {"projectId": "proj", "datasetId": "_anonymous", "tableId": name}
        status: dict[str, object] = {"state": state}
        if self.cancelled.is_set():
            status["errorResult"] = {"reason": "stopped", "message": "Job execution was cancelled: User requested"}
        return {
            "jobReference": {"projectId": "proj", "jobId": name, "location": "EU"}, "status": status,
            "configuration": {"jobType": "QUERY", "query": {"query": self.jobs[name], "destinationTable": table}},
            "statistics": {"query": {"statementType": "SELECT"}},
        }  # fmt: skip

    def _results(self, name: str) -> dict[str, object]:
        """The first page of a job's result, of which nobody reads the rows."""
        assert self.let_end.is_set() or self.cancelled.wait(30)
        if self.cancelled.is_set():
            raise RefusedError(400, "stopped", "Job execution was cancelled: User requested cancellation")
        answer = self.answer(self.jobs[name])
        rows = sum(batch.num_rows for batch in answer.batches) if answer.announced is None else answer.announced
        return {
            "jobReference": {"projectId": "proj", "jobId": name, "location": "EU"}, "jobComplete": True,
            "schema": answer.schema(), "totalRows": str(rows), "rows": [],
        }  # fmt: skip

    def create_read_session(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.sessions.append(request)
        session = request.read_session
        answer = self.answer(self.jobs[session.table.rpartition("/")[2]])
        if not answer.batches:
            return types.ReadSession(name="s", table=session.table, data_format=session.data_format)
        schema = answer.batches[0].select(list(session.read_options.selected_fields)).schema
        return types.ReadSession(
            name="s", table=session.table, data_format=session.data_format,
            arrow_schema=types.ArrowSchema(serialized_schema=schema.serialize().to_pybytes()),
            streams=[types.ReadStream(name=session.table)],
        )  # fmt: skip

    def read_rows(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        answer = self.answer(self.jobs[request.read_stream.rpartition("/")[2]])
        names = list(self.sessions[-1].read_session.read_options.selected_fields)
        for batch in answer.batches:
            body = batch.select(names).serialize().to_pybytes()
            rows = types.ArrowRecordBatch(serialized_record_batch=body, row_count=batch.num_rows)
            yield types.ReadRowsResponse(arrow_record_batch=rows, row_count=batch.num_rows)


@cache
def _key() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


@contextmanager
def bigquery_server() -> Iterator[BigQueryServer]:
    server = BigQueryServer()
    server.let_end.set()
    handlers = {
        "CreateReadSession": grpc.unary_unary_rpc_method_handler(
            server.create_read_session,
            request_deserializer=types.CreateReadSessionRequest.deserialize,
            response_serializer=types.ReadSession.serialize,
        ),
        "ReadRows": grpc.unary_stream_rpc_method_handler(
            server.read_rows,
            request_deserializer=types.ReadRowsRequest.deserialize,
            response_serializer=types.ReadRowsResponse.serialize,
        ),
    }
    storage = grpc.server(ThreadPoolExecutor(4))
    service = "google.cloud.bigquery.storage.v1.BigQueryRead"
    storage.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    server.storage_port = storage.add_insecure_port("127.0.0.1:0")
    storage.start()
    try:
        with loopback_http(server.serve) as server.port:
            yield server
    finally:
        storage.stop(None)
