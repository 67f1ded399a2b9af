"""The network: one POST in, one response or one fault out; the only importer of requests and urllib3.

Every call ends in bounded time, whatever the other side sends. Nothing here knows commands, signatures or replies, and
nothing is sent twice. No text made here holds the URL's query or the body.
"""

import io
import logging
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from http.client import HTTPResponse
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Protocol

import requests
import requests.adapters
import urllib3
import urllib3.connection
import urllib3.exceptions

CHUNK_BYTES = 65_536
LARGEST_REPLY_BYTES = 8 * 1024 * 1024  # a reply about 100 accounts has tens of kilobytes


class Fault(StrEnum):
    """Why a call has no readable reply. Only after `connect_failed` is it certain that nothing was carried out."""

    CONNECT_FAILED = "connect_failed"
    TIMEOUT = "timeout"
    BROKEN_CONNECTION = "broken_connection"
    UNREADABLE_REPLY = "unreadable_reply"
    HTTP_STATUS = "http_status"


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """`waited_seconds`: between the request having left whole and the whole response; None where that is not known."""

    status: int
    content: bytes = field(repr=False)
    waited_seconds: float | None = None


class TransportError(Exception):
    """No response could be had. Goes no further than `Client.call`, which turns it into a `CallResult`."""

    def __init__(self, fault: Fault, detail: str) -> None:
        self.fault = fault
        self.detail = detail
        super().__init__(detail)


class Transport(Protocol):
    """The network, as small as it can be replaced."""

    def post(self, url: str, *, body: bytes) -> HttpResponse:
        """One POST. Raises TransportError, whose text holds nothing of the URL's query or of the body."""

    def close(self) -> None: ...


class _TooLateError(TimeoutError):
    """The whole call has had its time."""


class _TooLargeError(OSError):
    """The response is no reply, whatever it is."""


class _ThisCall(threading.local):
    """Of the call that this thread is making: what the libraries between the transport and its connections cannot
    hand through.
    """

    ends_at: float = float("inf")
    left_at: float | None = None  # when the whole request was handed to the network

    def begin(self, ends_at: float) -> None:
        self.ends_at = ends_at
        self.left_at = None


_THIS_CALL = _ThisCall()


class _TimedReader(io.RawIOBase):
    """Reads a socket until `ends_at`, however little comes at a time; its own time-out begins anew with each."""

    def __init__(self, raw: io.RawIOBase, connection: socket.socket, ends_at: float) -> None:
        self._raw = raw
        self._connection = connection
        self._ends_at = ends_at

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left_seconds = self._ends_at - time.monotonic()
        if left_seconds <= 0:
            raise _TooLateError
        timeout_seconds = self._connection.gettimeout()
        if timeout_seconds is not None and timeout_seconds <= left_seconds:
            return self._raw.readinto(buffer)
        self._connection.settimeout(left_seconds)
        try:
            return self._raw.readinto(buffer)
        except TimeoutError as error:
            raise _TooLateError from error

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()


class _TimedResponse(HTTPResponse):
    """Status, headers and body all come from a timed reader; so does a proxy's answer to CONNECT."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp = io.BufferedReader(_TimedReader(self.fp.detach(), sock, _THIS_CALL.ends_at))


class _Connection(urllib3.connection.HTTPConnection):
    response_class = _TimedResponse

    def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]  # urllib3's own does the same
        _THIS_CALL.left_at = time.monotonic()
        return super().getresponse()


class _TLSConnection(urllib3.connection.HTTPSConnection):
    response_class = _TimedResponse

    def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]  # urllib3's own does the same
        _THIS_CALL.left_at = time.monotonic()
        return super().getresponse()


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class _TLSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _TLSConnection


_POOLS = {"http": _Pool, "https": _TLSPool}


class _Adapter(requests.adapters.HTTPAdapter):
    """With connections of ours, to the target itself and by way of a proxy."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        manager.pool_classes_by_scheme = _POOLS
        return manager


class RequestsTransport:
    """POSTs over kept-alive connections; safe to share between threads. Follows no redirect and never retries.

    `read_timeout_seconds` bounds the wait for the next byte, `total_timeout_seconds` the whole call. Tencent itself
    gives up after 3 s and asks for a longer time-out on this side (1047/34620). `use_environment`: proxies and a CA
    bundle named by the environment apply.
    """

    def __init__(
        self,
        *,
        connect_timeout_seconds: float = 5.0,
        read_timeout_seconds: float = 10.0,
        total_timeout_seconds: float = 30.0,
        pool_size: int = 256,
        use_environment: bool = True,
    ) -> None:
        self._timeouts = (connect_timeout_seconds, read_timeout_seconds)
        self._total_timeout_seconds = total_timeout_seconds
        adapter = _Adapter(pool_connections=4, pool_maxsize=pool_size, max_retries=0)
        self._session = requests.Session()
        self._session.mount("https://", adapter)
        self._session.mount("http://", adapter)
        self._session.trust_env = use_environment
        self._session.auth = _no_authorization  # else ~/.netrc is read on every call, and sent
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
        self._session.headers["Content-Type"] = "application/json"
        _keep_queries_out_of_logs()

    def post(self, url: str, *, body: bytes) -> HttpResponse:
        _THIS_CALL.begin(time.monotonic() + self._total_timeout_seconds)
        try:
            return self._post(url, body=body)
        except (OSError, urllib3.exceptions.HTTPError) as error:  # requests' own errors are OSErrors
            fault, detail = self._explain(error)
        # Outside of `except`: the library's error holds the whole URL and must not hang on ours as its context.
        raise TransportError(fault, detail)

    def close(self) -> None:
        self._session.close()

    def _post(self, url: str, *, body: bytes) -> HttpResponse:
        with self._session.post(
            url, data=body, timeout=self._timeouts, allow_redirects=False, stream=True
        ) as response:  # closing it before its end closes the connection, too
            content = bytearray()
            for chunk in response.iter_content(CHUNK_BYTES):
                content += chunk
                if len(content) > LARGEST_REPLY_BYTES:
                    raise _TooLargeError
        left_at = _THIS_CALL.left_at
        waited_seconds = None if left_at is None else time.monotonic() - left_at
        return HttpResponse(response.status_code, bytes(content), waited_seconds)

    def _explain(self, error: Exception) -> tuple[Fault, str]:
        causes = tuple(_causes(error))
        for kinds, fault, detail in _FAULTS:
            if any(isinstance(cause, kinds) for cause in causes):
                return fault, detail.format(*self._timeouts, self._total_timeout_seconds)
        tls = next((cause for cause in causes if isinstance(cause, ssl.SSLError)), None)
        if tls is not None:
            return _explain_tls(tls)
        if not isinstance(error, requests.RequestException | urllib3.exceptions.HTTPError):
            return Fault.CONNECT_FAILED, "the CA bundle named by the environment cannot be read"
        return Fault.BROKEN_CONNECTION, "the connection broke before the answer was complete"


# What stands among an error's causes -> the fault and its words; the first row that fits counts.
_FAULTS: tuple[tuple[tuple[type[BaseException], ...], Fault, str], ...] = (
    (
        (requests.exceptions.ProxyError, requests.exceptions.InvalidProxyURL, urllib3.exceptions.ProxyError),
        Fault.CONNECT_FAILED,
        "the proxy named by the environment could not be used",
    ),
    ((socket.gaierror,), Fault.CONNECT_FAILED, "the host's name could not be resolved"),
    ((urllib3.exceptions.NewConnectionError,), Fault.CONNECT_FAILED, "no connection could be made"),
    ((urllib3.exceptions.ConnectTimeoutError,), Fault.CONNECT_FAILED, "no connection within {0:g} s"),
    (
        (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, urllib3.exceptions.LocationValueError),
        Fault.CONNECT_FAILED,
        "the address, or a proxy's, is not valid",
    ),
    ((_TooLateError,), Fault.TIMEOUT, "no whole answer within {2:g} s"),
    ((_TooLargeError,), Fault.UNREADABLE_REPLY, f"the body is larger than {LARGEST_REPLY_BYTES // 1024**2} MiB"),
    ((TimeoutError, urllib3.exceptions.TimeoutError), Fault.TIMEOUT, "no answer within {1:g} s"),
    (
        (requests.exceptions.ContentDecodingError, urllib3.exceptions.DecodeError),
        Fault.UNREADABLE_REPLY,
        "the body is not compressed as its header says",
    ),
)


def _no_authorization(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it wraps: requests and urllib3 hand causes on as arguments, as `reason` or with `from`."""
    yield error
    for inner in (*error.args, getattr(error, "reason", None), error.__cause__):
        if isinstance(inner, BaseException):
            yield from _causes(inner)


# Only a handshake gives these; any other TLS error may as well come after the request has left.
_HANDSHAKE_REASONS = frozenset(
    {
        "SSLV3_ALERT_HANDSHAKE_FAILURE",
        "TLSV1_ALERT_PROTOCOL_VERSION",
        "TLSV1_UNRECOGNIZED_NAME",
        "UNSUPPORTED_PROTOCOL",
        "WRONG_VERSION_NUMBER",
    }
)


def _explain_tls(error: ssl.SSLError) -> tuple[Fault, str]:
    if isinstance(error, ssl.SSLCertVerificationError):
        return Fault.CONNECT_FAILED, "the host's TLS certificate is not trusted here"
    if error.reason in _HANDSHAKE_REASONS:
        return Fault.CONNECT_FAILED, "the host did not agree to TLS"
    return Fault.BROKEN_CONNECTION, "the TLS connection broke"


_QUERY = re.compile(r"\?[^\s\"']*")


class _QueryDropper(logging.Filter):
    """Replaces the query of every URL in a record: it holds the signature and the administrator's account."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = _QUERY.sub("?...", record.getMessage()), None
        return True


_QUERY_DROPPER = _QueryDropper()


def _keep_queries_out_of_logs() -> None:
    """urllib3 logs the path and query of every request at DEBUG, and of broken replies at WARNING. A filter on the
    logger itself comes before all handlers; adding it twice changes nothing.
    """
    for name in ("urllib3.connectionpool", "urllib3.util.retry", "urllib3.poolmanager"):
        logging.getLogger(name).addFilter(_QUERY_DROPPER)
