"""HTTP/1.1 over one accepted socket: reads requests as real clients send them, writes answers, or breaks off.

Small on purpose: inside a run the emulator shares the interpreter with the sink whose pace it measures, and the
standard library's server spends most of its time on headers. Nothing here knows the API.
"""

import socket
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus

MAX_HEAD_BYTES = 65_536
MAX_BODY_BYTES = 8_388_608  # no limit is documented; the largest set_attr call has some 350,000 bytes
_RECEIVE_BYTES = 65_536
_LINGER_SECONDS = 1.0
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER on, zero seconds: closing sends a reset instead of an end


class BadRequestError(Exception):
    """What arrived is not an HTTP request that can be served; `status` is the answer before the connection ends."""

    def __init__(self, status: HTTPStatus) -> None:
        self.status = status
        super().__init__(status.phrase)


@dataclass(frozen=True, slots=True)
class Request:
    """One request. `arrived_at` is when its first bytes could be read; header names are in lower case."""

    method: str
    target: str = field(repr=False)
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    keep_alive: bool
    arrived_at: float


class Connection:
    """One client's socket. Reading raises BadRequestError; everything raises OSError when the client is gone."""

    def __init__(self, sock: socket.socket, *, monotonic: Callable[[], float]) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = sock
        self._monotonic = monotonic
        self._buffer = bytearray()

    def read_request(self) -> Request | None:
        """None when the client has closed the connection before another request, or in the middle of one."""
        try:
            return self._read_request()
        except EOFError:
            return None

    def answer(self, status: int, content: bytes, *, keep_alive: bool, sent_bytes: int | None = None) -> None:
        """`sent_bytes` breaks the body off after so many bytes, although the head promises all of them."""
        head = (
            f"HTTP/1.1 {status} {_phrase(status)}\r\n"
            f"Server: nginx\r\nDate: {formatdate(usegmt=True)}\r\n"
            f"Content-Type: application/json; charset=UTF-8\r\nContent-Length: {len(content)}\r\n"
            f"Connection: {'keep-alive' if keep_alive else 'close'}\r\n\r\n"
        )
        self._socket.sendall(head.encode("latin-1") + content[:sent_bytes])

    def reset(self) -> None:
        """Ends with a TCP reset: the client sees a broken connection, not an orderly end."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._socket.close()

    def refuse(self, status: int) -> None:
        """Answers what is no request, then reads on for a while: closing on unread bytes would reset the answer."""
        self.answer(status, b"", keep_alive=False)
        self._socket.shutdown(socket.SHUT_WR)
        self._socket.settimeout(_LINGER_SECONDS)
        unread_bytes = MAX_BODY_BYTES
        while unread_bytes > 0 and (received := self._socket.recv(_RECEIVE_BYTES)):
            unread_bytes -= len(received)

    def close(self) -> None:
        with suppress(OSError):  # already gone, which is what was wanted
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _read_request(self) -> Request:
        while not self._buffer or self._buffer.startswith(b"\r\n"):
            if self._buffer:
                del self._buffer[:2]  # an empty line before the request line is allowed
            else:
                self._receive()
        arrived_at = self._monotonic()
        method, target, version, headers = _parse_head(self._read_until(b"\r\n\r\n", MAX_HEAD_BYTES))
        if headers.get("expect", "").lower() == "100-continue":
            self._socket.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = self._read_body(headers)
        tokens = {token.strip() for token in headers.get("connection", "").lower().split(",")}
        keep_alive = "close" not in tokens if version == "HTTP/1.1" else "keep-alive" in tokens
        return Request(method, target, headers, body, keep_alive, arrived_at)

    def _read_body(self, headers: Mapping[str, str]) -> bytes:
        if headers.get("transfer-encoding", "").lower() == "chunked":
            return self._read_chunks()
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()):
            raise BadRequestError(HTTPStatus.BAD_REQUEST)
        return self._read_exactly(_checked_length(int(length[:12])))

    def _read_chunks(self) -> bytes:
        body = bytearray()
        while True:
            size_line = self._read_until(b"\r\n", MAX_HEAD_BYTES).partition(b";")[0].strip()
            try:
                size = int(size_line, 16)
            except ValueError:
                raise BadRequestError(HTTPStatus.BAD_REQUEST) from None
            _checked_length(len(body) + size)
            if size == 0:
                break
            body += self._read_exactly(size)
            self._read_until(b"\r\n", 2)
        while self._read_until(b"\r\n", MAX_HEAD_BYTES):
            pass  # trailers say nothing that matters here
        return bytes(body)

    def _read_until(self, mark: bytes, limit: int) -> bytes:
        searched = 0
        while (end := self._buffer.find(mark, searched)) < 0:
            if len(self._buffer) > limit:
                raise BadRequestError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            searched = max(0, len(self._buffer) - len(mark) + 1)
            self._receive()
        found = bytes(self._buffer[:end])
        del self._buffer[: end + len(mark)]
        return found

    def _read_exactly(self, count: int) -> bytes:
        while len(self._buffer) < count:
            self._receive()
        found = bytes(self._buffer[:count])
        del self._buffer[:count]
        return found

    def _receive(self) -> None:
        received = self._socket.recv(_RECEIVE_BYTES)
        if not received:
            raise EOFError
        self._buffer += received


def _parse_head(head: bytes) -> tuple[str, str, str, dict[str, str]]:
    request_line, *lines = head.decode("latin-1").split("\r\n")
    parts = request_line.split(" ")
    if len(parts) != 3 or parts[2] not in ("HTTP/1.1", "HTTP/1.0"):
        raise BadRequestError(HTTPStatus.BAD_REQUEST)
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise BadRequestError(HTTPStatus.BAD_REQUEST)
        headers[name.lower()] = value.strip()
    return parts[0], parts[1], parts[2], headers


def _checked_length(length: int) -> int:
    if not 0 <= length <= MAX_BODY_BYTES:
        raise BadRequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    return length


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
