"""An HTTP server on loopback for the doubles of vendors' services: one function gets every request."""

import gzip
import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


class Exchange(BaseHTTPRequestHandler):
    """One request and its answer."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    handle_exchange: Callable[["Exchange"], None]

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        self.body = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
        parts = urlsplit(self.path)
        self.route = parts.path
        self.parameters = {name: values[0] for name, values in parse_qs(parts.query).items()}
        type(self).handle_exchange(self)

    do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815 - the names that http.server looks for

    def log_message(self, *args: Any) -> None:
        pass

    def begin(self, status: int = 200, headers: Mapping[str, str] | None = None, *, size: int | None = None) -> None:
        """The head of the answer; without a size, chunks follow."""
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header(*(("Transfer-Encoding", "chunked") if size is None else ("Content-Length", str(size))))
        self.end_headers()

    def send(self, piece: bytes) -> None:
        """A chunk; the empty one is the last."""
        self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.flush()

    def answer(self, body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        """The whole answer."""
        self.begin(status, headers, size=len(body))
        self.wfile.write(body)

    def answer_json(self, content: object, status: int = 200) -> None:
        self.answer(json.dumps(content).encode(), status, {"Content-Type": "application/json"})

    def hang_up(self) -> None:
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True


@contextmanager
def loopback_http(handle: Callable[[Exchange], None]) -> Iterator[int]:
    """The port of a server whose requests `handle` answers, each in a thread of its own."""
    handler = type("Handler", (Exchange,), {"handle_exchange": staticmethod(handle)})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        http.daemon_threads = True
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield int(http.server_address[1])
        finally:
            http.shutdown()
            thread.join(10)
