"""What several of the package's tests share: the documented replies, and a loopback server scripted at the wire."""

import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent


@pytest.fixture
def documented_reply() -> Callable[[str], bytes]:
    """The body of a reply in replies/<name>.json; each file names the page that documents it."""

    def read(name: str) -> bytes:
        document: dict[str, Any] = json.loads((HERE / "replies" / f"{name}.json").read_text())
        return json.dumps(document["reply"], ensure_ascii=False).encode()

    return read


# One step of a script: does something with the connection, tells whether it goes on living.
Step = Callable[[socket.socket], bool]


@dataclass(frozen=True, slots=True)
class SeenRequest:
    line: str
    headers: dict[str, str]
    body: bytes


@dataclass(slots=True)
class WireServer:
    """Answers each request on loopback with the next step of its script, and remembers what it was sent."""

    script: list[Step] = field(default_factory=list)
    seen: list[SeenRequest] = field(default_factory=list)
    connections: int = 0
    tls: ssl.SSLContext | None = None
    greeting: bytes = b""  # sent before anything is read: what a server of another protocol does
    _listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    @property
    def base_url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    def start(self) -> None:
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            if self.tls is not None:
                connection = self.tls.wrap_socket(connection, server_side=True)
            connection.sendall(self.greeting)
            reader = connection.makefile("rb")
            while (request := _read_request(reader)) is not None:
                self.seen.append(request)
                if not self.script.pop(0)(connection):
                    break
            reader.close()
        except OSError:
            pass  # the client gave up, which some of the scripts are about
        finally:
            connection.close()


class Steps:
    """The steps a script is made of."""

    @staticmethod
    def answer(content: bytes, *, status: str = "200 OK", headers: str = "") -> Step:
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(content)}\r\n{headers}\r\n"
        return _send(head.encode() + content, keep_alive=True)

    @staticmethod
    def raw(content: bytes) -> Step:
        """Sends this and closes."""
        return _send(content, keep_alive=False)

    @staticmethod
    def raw_then_silence(content: bytes) -> Step:
        """Sends this, then nothing until the client goes away."""

        def step(connection: socket.socket) -> bool:
            connection.sendall(content)
            connection.recv(1)
            return False

        return step

    @staticmethod
    def reset() -> Step:
        """The request was read; then the connection is reset, not closed."""

        def step(connection: socket.socket) -> bool:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False

        return step


def _send(content: bytes, *, keep_alive: bool) -> Step:
    def step(connection: socket.socket) -> bool:
        connection.sendall(content)
        return keep_alive

    return step


def _read_request(reader: Any) -> SeenRequest | None:
    line = reader.readline().decode("latin-1").strip()
    if not line:
        return None
    headers: dict[str, str] = {}
    while header := reader.readline().decode("latin-1").strip():
        name, _, value = header.partition(":")
        headers[name.lower()] = value.strip()
    return SeenRequest(line, headers, reader.read(int(headers.get("content-length", 0))))


@pytest.fixture
def wire_server() -> Iterator[WireServer]:
    server = WireServer()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def tls_server(loopback_pem: Path) -> Iterator[WireServer]:
    """The same behind TLS, with a certificate for 127.0.0.1 that nobody trusts by default."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(loopback_pem)
    server = WireServer(tls=context)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def loopback_pem() -> Path:
    return HERE / "loopback_tls.pem"


@pytest.fixture
def steps() -> type[Steps]:
    return Steps


@pytest.fixture
def closed_port() -> int:
    """A port of loopback on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


@pytest.fixture
def full_port() -> Iterator[int]:
    """A port that listens, but whose queue is full: a connection to it is never made, nor refused."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port: int = listener.getsockname()[1]
        waiting = [socket.socket() for _ in range(3)]
        for client in waiting:
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", port))
        yield port
        for client in waiting:
            client.close()
