"""What real clients send, byte by byte over raw sockets, and through http.client and requests (1047/34620)."""

import gzip
import http.client
import socket
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import orjson
import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.tencent_push.emulator import Emulator
from connectors.tencent_push.emulator.wire import MAX_BODY_BYTES, MAX_HEAD_BYTES, BadRequestError, Connection, Request

BODY = '{"UserAttrs": [{"To_Account": "user0", "Attrs": {"city": "北京"}}]}'.encode()


@pytest.fixture
def raw(call: Any) -> Iterator[socket.socket]:
    host, port = call.host.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as sock:
        yield sock


def head(call: Any, *lines: str, version: str = "HTTP/1.1") -> bytes:
    return "\r\n".join([f"POST {call.target('set_attr')} {version}", *lines, "", ""]).encode()


def read_reply(sock: socket.socket) -> tuple[int, dict[str, str], bytes]:
    response = http.client.HTTPResponse(sock)
    response.begin()
    return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()


def code_of(sock: socket.socket) -> int:
    return int(orjson.loads(read_reply(sock)[2])["ErrorCode"])


def is_closed(sock: socket.socket) -> bool:
    return sock.recv(1) == b""


# 1. Requests that are served.


def test_a_request_without_content_type_or_any_other_header_is_served(call: Any, raw: socket.socket) -> None:
    """1047/34620: a content type header is not prescribed"""
    raw.sendall(head(call, f"Content-Length: {len(BODY)}") + BODY)
    assert code_of(raw) == 0
    assert call.get("user0") == {"city": "北京"}


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "application/x-www-form-urlencoded", "x"])
def test_any_content_type_is_served(call: Any, content_type: str) -> None:
    """1047/34620"""
    _, reply = call.response(call.target("set_attr"), BODY, headers={"Content-Type": content_type})
    assert orjson.loads(reply)["ErrorCode"] == 0


def test_the_answer_has_the_documented_headers(call: Any, raw: socket.socket) -> None:
    """1047/34620: nginx, keep-alive, a content length"""
    raw.sendall(head(call, f"Content-Length: {len(BODY)}") + BODY)
    status, headers, body = read_reply(raw)
    assert status == 200
    assert headers["server"] == "nginx"
    assert headers["connection"] == "keep-alive"
    assert headers["content-length"] == str(len(body))
    assert headers["content-type"].startswith("application/json")


def test_many_requests_go_over_one_connection(call: Any, emulator: Emulator) -> None:
    """1047/34620: persistent connections are recommended"""
    connection = http.client.HTTPConnection(call.host, timeout=10)
    connection.connect()
    port = connection.sock.getsockname()[1]
    for _ in range(5):
        connection.request("POST", call.target("set_attr"), BODY)
        assert orjson.loads(connection.getresponse().read())["ErrorCode"] == 0
        assert connection.sock.getsockname()[1] == port
    connection.close()
    assert len(emulator.calls) == 5


def test_requests_may_follow_without_waiting_for_the_answer(call: Any, raw: socket.socket) -> None:
    raw.sendall((head(call, f"Content-Length: {len(BODY)}") + BODY) * 3)
    assert [code_of_next(raw) for _ in range(3)] == [0, 0, 0]


def code_of_next(sock: socket.socket) -> int:
    """Reads one reply and not a byte of the next."""
    content = b""
    while not content.endswith(b"\r\n\r\n"):
        content += sock.recv(1)
    length = int(content.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    return int(orjson.loads(sock.recv(length, socket.MSG_WAITALL))["ErrorCode"])


@pytest.mark.parametrize(
    ("version", "header", "is_kept"),
    [
        ("HTTP/1.1", "Accept: */*", True),
        ("HTTP/1.1", "Connection: keep-alive", True),
        ("HTTP/1.1", "Connection: close", False),
        ("HTTP/1.1", "Connection: Close, TE", False),
        ("HTTP/1.0", "Accept: */*", False),
        ("HTTP/1.0", "Connection: Keep-Alive", True),
    ],
)
def test_keep_alive_is_as_the_client_wants_it(
    call: Any, raw: socket.socket, version: str, header: str, is_kept: bool
) -> None:
    """1047/34620"""
    request = head(call, f"Content-Length: {len(BODY)}", header, version=version) + BODY
    raw.sendall(request)
    assert read_reply(raw)[1]["connection"] == ("keep-alive" if is_kept else "close")
    if is_kept:
        raw.sendall(request)
        assert code_of(raw) == 0
    else:
        assert is_closed(raw)


def test_a_request_in_single_bytes_is_served(call: Any, raw: socket.socket) -> None:
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in head(call, f"content-length:{len(BODY)}") + BODY:
        raw.sendall(bytes([byte]))
    assert code_of(raw) == 0


def test_a_chunked_body_is_served(call: Any, raw: socket.socket) -> None:
    chunks = (
        b"5;note=x\r\n" + BODY[:5] + b"\r\n" + f"{len(BODY) - 5:X}\r\n".encode() + BODY[5:] + b"\r\n0\r\nT: x\r\n\r\n"
    )
    raw.sendall((head(call, "Transfer-Encoding: chunked") + chunks) * 2)
    assert [code_of_next(raw), code_of_next(raw)] == [0, 0]


def test_a_client_that_waits_for_100_continue_gets_it(call: Any, raw: socket.socket) -> None:
    raw.sendall(head(call, f"Content-Length: {len(BODY)}", "Expect: 100-continue"))
    assert raw.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
    raw.sendall(BODY)
    assert code_of(raw) == 0


def test_the_absolute_form_of_proxies_is_served(call: Any, raw: socket.socket) -> None:
    request = head(call, f"Content-Length: {len(BODY)}").replace(b"POST ", b"POST http://console.tim.qq.com", 1)
    raw.sendall(request + BODY)
    assert code_of(raw) == 0


def test_empty_lines_before_a_request_are_passed_over(call: Any, raw: socket.socket) -> None:
    raw.sendall(b"\r\n\r\n" + head(call, f"Content-Length: {len(BODY)}") + BODY)
    assert code_of(raw) == 0


def test_a_request_without_a_body_is_an_empty_body(call: Any, raw: socket.socket) -> None:
    """1047/34620: a body is never empty"""
    raw.sendall(head(call, "Host: localhost"))
    assert code_of(raw) == 60003


def test_a_compressed_body_is_not_json(call: Any) -> None:
    """1047/34620: compression is mentioned nowhere"""
    headers = {"Content-Encoding": "gzip"}
    _, reply = call.response(call.target("set_attr"), gzip.compress(BODY), headers=headers)
    assert orjson.loads(reply)["ErrorCode"] == 60003


def test_the_largest_call_that_the_limits_allow_is_served_raw_and_escaped(call: Any, emulator: Emulator) -> None:
    """1047/60565: 100 users, ten attributes, 50 bytes; a limit for the body is not documented"""
    emulator.declare(dict.fromkeys((f"{number:050d}" for number in range(7)), emulator.declared()["city"]))
    names = [name for name, account_type in emulator.declared().items() if account_type == "user_id"]
    users = [{"To_Account": f"user{n}", "Attrs": dict.fromkeys(names, "京" * 16 + "xy")} for n in range(100)]
    raw = orjson.dumps({"UserAttrs": users})
    assert orjson.loads(call.response(call.target("set_attr"), raw)[1]) == {
        "ActionStatus": "OK",
        "ErrorInfo": "",
        "ErrorCode": 0,
    }
    escaped = raw.decode().encode("ascii", "backslashreplace")
    assert orjson.loads(call.response(call.target("set_attr"), escaped)[1])["ErrorCode"] == 0


# 2. The clients that people use.


def test_requests_with_and_without_a_session_is_served(call: Any, emulator: Emulator) -> None:
    url = emulator.base_url + call.target("set_attr")
    with requests.Session() as session:
        for poster in (session, session, requests):
            assert poster.post(url, data=BODY, timeout=10).json()["ErrorCode"] == 0
    assert requests.post(url, json=orjson.loads(BODY), timeout=10).json()["ErrorCode"] == 0


def test_requests_with_a_body_of_unknown_length_is_served(call: Any, emulator: Emulator) -> None:
    url = emulator.base_url + call.target("set_attr")
    assert requests.post(url, data=iter([BODY[:9], BODY[9:]]), timeout=10).json()["ErrorCode"] == 0


def test_forty_clients_at_once_are_served(
    call: Any, emulator: Emulator, in_threads: Callable[[Callable[[int], object], int], list[Any]]
) -> None:
    replies = in_threads(lambda number: call.set(f"user{number}", city=f"city{number}"), 40)
    assert {reply["ErrorCode"] for reply in replies} == {0}
    assert dict(emulator.attributes()) == {f"user{number}": {"city": f"city{number}"} for number in range(40)}


# 3. What is no HTTP.


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"hello\r\n\r\n", 400),
        (b"POST / HTTP/2\r\n\r\n", 400),
        (b"POST  / HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\n folded: x\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999999999\r\n\r\n", 413),
        (f"POST / HTTP/1.1\r\nContent-Length: {MAX_BODY_BYTES + 1}\r\n\r\n".encode(), 413),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n", 413),
        (b"POST / HTTP/1.1\r\nX: " + b"x" * MAX_HEAD_BYTES + b"\r\n", 431),
    ],
)
def test_what_is_no_request_is_answered_with_a_status_and_the_connection_ends(
    call: Any, raw: socket.socket, emulator: Emulator, request_bytes: bytes, status: int
) -> None:
    raw.sendall(request_bytes)
    assert read_reply(raw)[0] == status
    assert is_closed(raw)
    raw.close()
    assert len(emulator.calls) == 0
    assert call.code("get_attr_name") == 0


@pytest.mark.parametrize("sent", [b"", b"POST /v4", b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n12"])
def test_a_client_that_leaves_in_the_middle_does_no_harm(
    call: Any, raw: socket.socket, emulator: Emulator, sent: bytes
) -> None:
    raw.sendall(sent)
    raw.shutdown(socket.SHUT_WR)
    assert is_closed(raw)
    assert len(emulator.calls) == 0
    assert call.code("get_attr_name") == 0


def received(content: bytes) -> Request | None:
    ours, theirs = connected()
    with theirs:
        theirs.sendall(content)
        theirs.shutdown(socket.SHUT_WR)
        connection = Connection(ours, monotonic=lambda: 7.0)
        try:
            return connection.read_request()
        finally:
            connection.close()


def connected() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname(), timeout=10)
        ours, _ = listener.accept()
    return ours, theirs


@settings(deadline=None)  # sockets
@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_none_or_a_bad_one(content: bytes) -> None:
    try:
        request = received(content)
    except BadRequestError:
        return
    assert request is None or request.arrived_at == 7.0


@settings(deadline=None)  # sockets
@given(st.binary(max_size=300), st.lists(st.integers(min_value=0, max_value=300), max_size=4))
def test_a_body_arrives_as_it_was_sent_plain_or_in_chunks(body: bytes, cuts: list[int]) -> None:
    plain = received(b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    edges = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    parts = [body[start:end] for start, end in pairwise(edges) if start < end]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    chunked = received(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")
    assert plain is not None
    assert chunked is not None
    assert plain.body == chunked.body == body


def test_small_answers_leave_at_once() -> None:
    ours, theirs = connected()
    with theirs:
        connection = Connection(ours, monotonic=lambda: 0.0)
        assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
        connection.close()
