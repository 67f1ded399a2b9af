"""A server that speaks S3, and a wire before it that records every request and can spoil the answers."""

import http.client
import io
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends
from moto.server import ThreadedMotoServer

ACCESS_KEY, SECRET_KEY = "planted-access-key-id", "planted-secret-access-key"
REGION = "us-east-1"


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    host: str
    path: str
    headers: dict[str, str]
    body: bytes = b""

    @property
    def reads_rows(self) -> bool:
        return self.method == "GET" and "range" in self.headers


@dataclass(frozen=True, slots=True)
class Answer:
    """Instead of the server's; `body` may be shorter than what `length` promises."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None


Spoil = Callable[[Request], Answer | None]


class Wire:
    """Passes requests on to the server. `spoil` hears each and may answer in its place."""

    def __init__(self, server: str) -> None:
        self.requests: list[Request] = []
        self.spoil: Spoil = lambda _request: None
        wire = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                request = Request(self.command, self.headers["Host"], self.path, _lowered(self.headers), body)
                wire.requests.append(request)
                answer = wire.spoil(request) or passed_on(server, request)
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer.body) if answer.length is None else answer.length))
                self.end_headers()
                if self.command != "HEAD":
                    with suppress(OSError):
                        self.wfile.write(answer.body)
                        self.wfile.flush()
                if answer.length is not None and self.command != "HEAD":
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)

            do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815  the names that http.server calls

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def once(self, fits: Callable[[Request], bool], act: Callable[[], Answer | None]) -> None:
        """Does `act` before the first request that fits is answered; what it returns is the answer."""
        waiting = [act]
        lock = threading.Lock()

        def spoil(request: Request) -> Answer | None:
            with lock:
                if not waiting or not fits(request):
                    return None
                return waiting.pop()()

        self.spoil = spoil


def passed_on(server: str, request: Request) -> Answer:
    connection = http.client.HTTPConnection(server.removeprefix("http://"))
    try:
        connection.putrequest(request.method, request.path, skip_host=True, skip_accept_encoding=True)
        for name, value in request.headers.items():
            connection.putheader(name, value)
        connection.endheaders(request.body or None)
        response = connection.getresponse()
        headers = {name: value for name, value in response.getheaders() if name.lower() not in _OF_THE_CONNECTION}
        length = int(response.headers["Content-Length"]) if request.method == "HEAD" else None
        return Answer(response.status, response.read(), headers, length)
    finally:
        connection.close()


def _lowered(headers: Message) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


_OF_THE_CONNECTION = ("content-length", "connection", "transfer-encoding", "date", "server")


class S3:
    """The server, one for all tests; each test has buckets of its own."""

    def __init__(self) -> None:
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._server.start()
        host, port = self._server.get_host_and_port()
        self.endpoint = f"http://{host}:{port}"
        self.client = boto3.client("s3", endpoint_url=self.endpoint, region_name=REGION, **_KEYS)
        self.iam = boto3.client("iam", endpoint_url=self.endpoint, region_name=REGION, **_KEYS)

    def close(self) -> None:
        self._server.stop()

    def bucket(self, name: str) -> str:
        self.client.create_bucket(Bucket=name)
        return name

    def put(self, bucket: str, key: str, content: bytes) -> None:
        self.client.put_object(Bucket=bucket, Key=key, Body=content)

    def delete(self, bucket: str, key: str) -> None:
        self.client.delete_object(Bucket=bucket, Key=key)

    def written_at(self, bucket: str, key: str, when: datetime) -> None:
        """Gives an object another time than that of its upload."""
        s3_backends[DEFAULT_ACCOUNT_ID]["aws"].buckets[bucket].keys[key].last_modified = when.replace(tzinfo=None)

    def upload(self, bucket: str, folder: Path, *, prefix: str = "") -> None:
        """Every file below the folder, under its relative path."""
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            self.put(bucket, f"{prefix}{file.relative_to(folder).as_posix()}", file.read_bytes())


_KEYS = {"aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": SECRET_KEY}


@contextmanager
def s3_server() -> Iterator[S3]:
    server = S3()
    try:
        yield server
    finally:
        server.close()


@contextmanager
def wire_to(server: S3) -> Iterator[Wire]:
    wire = Wire(server.endpoint)
    try:
        yield wire
    finally:
        wire.close()


def parquet_bytes(columns: dict[str, Any], **options: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, **options)
    return buffer.getvalue()
