"""What every test of the client shares: planted secrets, a client with short time-outs, and the faults at the wire."""

from collections.abc import Callable
from typing import Any

import pytest

from connectors.tencent_push.client import Client, Credentials, Fault, RequestsTransport
from connectors.tencent_push.protocol import encode_set_attr
from connectors.tencent_push.usersig import make_usersig

NOW = 1700000000
CREDENTIALS = Credentials(sdkappid=1400000001, identifier="planted-admin", secret_key="planted-key")
SIGNATURE = make_usersig(sdkappid=1400000001, identifier="planted-admin", secret_key="planted-key", now=NOW)
ACCOUNT, VALUE = "planted-account", "planted-value"
PLANTED = (SIGNATURE, SIGNATURE[8:40], "planted-")
BODY = encode_set_attr([(ACCOUNT, {"city": VALUE})])


@pytest.fixture(autouse=True)
def no_proxy_or_ca_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "requests_ca_bundle", "curl_ca_bundle"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def client_for(base_url: str, *, read_timeout_seconds: float = 5.0, connect_timeout_seconds: float = 5.0) -> Client:
    transport = RequestsTransport(
        connect_timeout_seconds=connect_timeout_seconds,
        read_timeout_seconds=read_timeout_seconds,
        use_environment=False,
    )
    return Client(base_url=base_url, credentials=CREDENTIALS, transport=transport, clock=lambda: NOW)


def status(code: str) -> Callable[[Any], Any]:
    return lambda steps: steps.answer(b"<html>planted</html>", status=code)


# What happens at the wire -> the fault and what people are told.
WIRE_FAULTS: dict[str, tuple[Callable[[Any], Any], Fault, str]] = {
    "no answer": (lambda s: s.raw_then_silence(b""), Fault.TIMEOUT, "no answer within 0.05 s"),
    "the body stops half way": (
        lambda s: s.raw_then_silence(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"),
        Fault.TIMEOUT,
        "no answer within 0.05 s",
    ),
    "reset": (lambda s: s.reset(), Fault.BROKEN_CONNECTION, "the connection broke before the answer was complete"),
    "closed without an answer": (
        lambda s: s.raw(b""),
        Fault.BROKEN_CONNECTION,
        "the connection broke before the answer was complete",
    ),
    "half a body": (
        lambda s: s.raw(b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"ActionStatus"'),
        Fault.BROKEN_CONNECTION,
        "the connection broke before the answer was complete",
    ),
    "half a chunk": (
        lambda s: s.raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n63\r\n{"),
        Fault.BROKEN_CONNECTION,
        "the connection broke before the answer was complete",
    ),
    "not HTTP": (
        lambda s: s.raw(b"SSH-2.0-planted\r\n"),
        Fault.BROKEN_CONNECTION,
        "the connection broke before the answer was complete",
    ),
    "not compressed as said": (
        lambda s: s.answer(b"plain", headers="Content-Encoding: gzip\r\n"),
        Fault.UNREADABLE_REPLY,
        "the body is not compressed as its header says",
    ),
    "empty": (lambda s: s.answer(b""), Fault.UNREADABLE_REPLY, "the body is empty"),
    "HTML": (lambda s: s.answer(b"<html></html>"), Fault.UNREADABLE_REPLY, "the body is not JSON"),
    "half a JSON": (lambda s: s.answer(b'{"ActionStatus":"OK"'), Fault.UNREADABLE_REPLY, "the body is not JSON"),
    "no ErrorCode": (
        lambda s: s.answer(b"{}"),
        Fault.UNREADABLE_REPLY,
        "ErrorCode is missing or not a whole number",
    ),
    "502": (status("502 Bad Gateway"), Fault.HTTP_STATUS, "HTTP 502"),
    "503 with a readable body": (
        lambda s: s.answer(b'{"ActionStatus":"OK","ErrorCode":0}', status="503 Busy"),
        Fault.HTTP_STATUS,
        "HTTP 503",
    ),
    "404": (status("404 Not Found"), Fault.HTTP_STATUS, "HTTP 404"),
    "204 without a body": (lambda s: s.answer(b"", status="204 No Content"), Fault.HTTP_STATUS, "HTTP 204"),
}


@pytest.fixture(params=list(WIRE_FAULTS.values()), ids=list(WIRE_FAULTS))
def wire_fault(request: pytest.FixtureRequest, wire_server: Any, steps: Any) -> tuple[str, Fault, str]:
    step, fault, detail = request.param
    wire_server.script = [step(steps)]
    return wire_server.base_url, fault, detail


def assert_clean(text: str) -> None:
    found = [planted for planted in PLANTED if planted in text]
    assert not found, f"planted text was found: {found}"
