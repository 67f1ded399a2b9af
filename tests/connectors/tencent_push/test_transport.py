"""Calls end in bounded time and memory, whatever the other side sends."""

import gzip
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from connectors.tencent_push import transport as transport_module
from connectors.tencent_push.transport import Fault, RequestsTransport, TransportError
from tests.connectors.tencent_push.client_cases import no_proxy_or_ca_of_this_machine

__all__ = ["no_proxy_or_ca_of_this_machine"]  # used by its name

BODY = b"{}"
PAUSE = threading.Event()  # never set: waiting for it is how a server drips


class Dripping:
    """Sends what has to be there, then a byte at a time for as long as the client takes it."""

    def __init__(self, start: bytes, drops: bytes) -> None:
        self._start = start
        self._drops = drops

    def __call__(self, connection: socket.socket) -> bool:
        connection.sendall(self._start)
        for drop in self._drops:
            connection.sendall(bytes([drop]))
            PAUSE.wait(0.01)
        return True


def transport_with(*, total_timeout_seconds: float, read_timeout_seconds: float = 5.0) -> RequestsTransport:
    return RequestsTransport(
        read_timeout_seconds=read_timeout_seconds,
        total_timeout_seconds=total_timeout_seconds,
        use_environment=False,
    )


@pytest.fixture
def hurried() -> Iterator[RequestsTransport]:
    with closing(transport_with(total_timeout_seconds=0.2)) as transport:
        yield transport


DRIPS = {
    "status": Dripping(b"", b"HTTP/1.1 200 " + b"O" * 2000),
    "headers": Dripping(b"HTTP/1.1 200 OK\r\nX: ", b"x" * 2000),
    "body": Dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n", b"x" * 2000),
    "body until the end of the connection": Dripping(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 2000),
    "chunks": Dripping(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 400),
    "size of a chunk": Dripping(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0" * 2000),
}


@pytest.mark.parametrize("drip", DRIPS.values(), ids=DRIPS)
def test_a_server_that_drips_holds_no_call_beyond_its_total_time(
    hurried: RequestsTransport, wire_server: Any, drip: Dripping
) -> None:
    wire_server.script = [drip]
    began_at = time.monotonic()
    with pytest.raises(TransportError, match=r"no whole answer within 0\.2 s") as raised:
        hurried.post(wire_server.base_url, body=BODY)
    assert raised.value.fault is Fault.TIMEOUT
    assert time.monotonic() - began_at < 5, "it would have gone on for 20 s"


def test_the_same_holds_behind_tls(tls_server: Any, loopback_pem: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(loopback_pem))
    tls_server.script = [DRIPS["body"]]
    with (
        closing(RequestsTransport(total_timeout_seconds=0.3)) as transport,
        pytest.raises(TransportError, match="no whole answer"),
    ):
        transport.post(tls_server.base_url, body=BODY)


def test_a_drip_that_ends_in_time_is_an_answer(wire_server: Any) -> None:
    wire_server.script = [Dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n", b"x" * 30)]
    with closing(transport_with(total_timeout_seconds=30)) as transport:
        assert transport.post(wire_server.base_url, body=BODY).content == b"x" * 30


def test_silence_ends_with_the_time_out_that_comes_first(wire_server: Any, steps: Any) -> None:
    wire_server.script = [steps.raw_then_silence(b"HTTP/1.1 200 OK\r\n")] * 2
    for total, read, told in ((0.05, 5.0, r"no whole answer within 0\.05 s"), (5.0, 0.05, r"no answer within 0\.05 s")):
        began_at = time.monotonic()
        with (
            closing(transport_with(total_timeout_seconds=total, read_timeout_seconds=read)) as transport,
            pytest.raises(TransportError, match=told),
        ):
            transport.post(wire_server.base_url, body=BODY)
        assert time.monotonic() - began_at < 3


def test_what_is_there_at_once_is_not_read_after_the_time_either() -> None:
    """A server that never lets a read wait has no more time than one that drips."""
    ours, theirs = socket.socketpair()
    with ours, theirs, ours.makefile("rb", buffering=0) as raw:
        theirs.sendall(b"xy")
        in_time = transport_module._TimedReader(raw, ours, time.monotonic() + 60)
        too_late = transport_module._TimedReader(raw, ours, time.monotonic() - 1)
        assert in_time.read(1) == b"x"
        with pytest.raises(TimeoutError):
            too_late.read(1)


def test_the_next_call_has_the_whole_time_again(hurried: RequestsTransport, wire_server: Any, steps: Any) -> None:
    """Over the same connection, too: what an earlier call left of the socket's time-out does not count."""
    wire_server.script = [
        Dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", b"xx"),
        Dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", b"yy"),
        steps.answer(b"zz"),
    ]
    assert [hurried.post(wire_server.base_url, body=BODY).content for _ in range(3)] == [b"xx", b"yy", b"zz"]
    assert wire_server.connections == 1


@pytest.mark.parametrize(
    "headers_and_body",
    [
        b"Content-Length: 3000\r\n\r\n" + b"x" * 3000,
        b"\r\n" + b"x" * 3000,
        b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(bytes(1_000_000)),
    ],
    ids=["as announced", "without an end", "compressed"],
)
def test_a_response_that_is_too_large_is_no_reply(
    wire_server: Any, steps: Any, monkeypatch: pytest.MonkeyPatch, headers_and_body: bytes
) -> None:
    monkeypatch.setattr(transport_module, "LARGEST_REPLY_BYTES", 2000)
    wire_server.script = [steps.raw(b"HTTP/1.1 200 OK\r\n" + headers_and_body)]
    with closing(transport_with(total_timeout_seconds=5)) as transport, pytest.raises(TransportError) as raised:
        transport.post(wire_server.base_url, body=BODY)
    assert raised.value.fault is Fault.UNREADABLE_REPLY
    assert raised.value.detail == "the body is larger than 8 MiB"


def test_the_largest_reply_is_taken(wire_server: Any, steps: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport_module, "LARGEST_REPLY_BYTES", 2000)
    wire_server.script = [steps.answer(b"x" * 2000)]
    with closing(transport_with(total_timeout_seconds=5)) as transport:
        assert len(transport.post(wire_server.base_url, body=BODY).content) == 2000


@pytest.mark.parametrize("kind", ["drips", "is too large"])
def test_a_connection_whose_response_was_not_read_to_its_end_is_not_used_again(
    hurried: RequestsTransport, wire_server: Any, steps: Any, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(transport_module, "LARGEST_REPLY_BYTES", 2000)
    first = DRIPS["body"] if kind == "drips" else steps.answer(b"x" * 500_000)
    wire_server.script = [steps.answer(b"before"), first, steps.answer(b"after")]
    assert hurried.post(wire_server.base_url, body=BODY).content == b"before"
    with pytest.raises(TransportError):
        hurried.post(wire_server.base_url, body=BODY)
    assert hurried.post(wire_server.base_url, body=BODY).content == b"after"
    assert wire_server.connections == 2


def test_connections_are_kept_alive_over_bodies_of_any_kind(
    hurried: RequestsTransport, wire_server: Any, steps: Any
) -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"
    wire_server.script = [
        steps.answer(b""),
        steps.answer(b"", status="204 No Content"),
        Dripping(chunked, b""),
        steps.answer(b"x" * 200_000),
        steps.answer(b"last", status="503 Busy"),
        steps.answer(b""),
    ]
    for _ in range(6):
        hurried.post(wire_server.base_url, body=BODY)
    assert wire_server.connections == 1


def test_the_wait_for_the_answer_begins_when_the_request_has_left(wire_server: Any, steps: Any) -> None:
    may_answer = threading.Event()
    read_at: list[float] = []

    def held(connection: socket.socket) -> bool:
        read_at.append(time.monotonic())
        may_answer.wait(0.05)
        return bool(steps.answer(b"{}")(connection))

    wire_server.script = [held]
    began_at = time.monotonic()
    with closing(transport_with(total_timeout_seconds=5)) as transport:
        waited_seconds = transport.post(wire_server.base_url, body=BODY).waited_seconds
    latency_seconds = time.monotonic() - began_at
    assert waited_seconds is not None
    assert 0.05 <= waited_seconds < latency_seconds
    assert began_at < began_at + latency_seconds - waited_seconds


def test_a_call_of_another_thread_has_a_time_of_its_own(wire_server: Any) -> None:
    """The bound of a call is not that of one which began later in another thread."""
    wire_server.script = [Dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n", b"x" * 30)] * 2
    patient, hurried = transport_with(total_timeout_seconds=30), transport_with(total_timeout_seconds=0.05)
    answers: list[bytes] = []
    thread = threading.Thread(target=lambda: answers.append(patient.post(wire_server.base_url, body=BODY).content))
    thread.start()
    with pytest.raises(TransportError):
        hurried.post(wire_server.base_url, body=BODY)
    thread.join(10)
    assert answers == [b"x" * 30]
