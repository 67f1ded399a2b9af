"""One call in, one decoded reply out: the only importer of requests.

Signs, addresses and sends a call, once. Nothing here retries, paces or decides what a reply means for a row. Whatever
the network does is a `Fault` of the result; no text made here holds the signature, the key, an account or a value.
"""

import ipaddress
import logging
import re
import secrets
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from http.cookiejar import DefaultCookiePolicy
from typing import Protocol, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import requests
import requests.adapters
import urllib3.exceptions

from connectors.tencent_push import protocol
from connectors.tencent_push.errors import CallRefusedError, SettingsError, TargetUnreachableError
from connectors.tencent_push.protocol import AccountType, Command, Reply, RowError, UnreadableReply
from connectors.tencent_push.usersig import UserSigSource

_T = TypeVar("_T")


class Fault(StrEnum):
    """Why a call has no readable reply. Only after `connect_failed` is it certain that nothing was carried out."""

    CONNECT_FAILED = "connect_failed"
    TIMEOUT = "timeout"
    BROKEN_CONNECTION = "broken_connection"
    UNREADABLE_REPLY = "unreadable_reply"
    HTTP_STATUS = "http_status"


@dataclass(frozen=True, slots=True)
class CallResult:
    """What became of one call: either a reply that could be read, or a fault with a short `detail` for people."""

    reply: Reply | None
    fault: Fault | None
    detail: str | None
    http_status: int | None
    latency_seconds: float


@dataclass(frozen=True, slots=True)
class Credentials:
    """The app's administrator and key, as the app's console shows them."""

    sdkappid: int
    identifier: str = field(repr=False)
    secret_key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class HttpResponse:
    status: int
    content: bytes = field(repr=False)


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


class RequestsTransport:
    """POSTs over kept-alive connections; safe to share between threads. Follows no redirect and never retries.

    `read_timeout_seconds` bounds the wait for the next byte. Tencent itself gives up after 3 s and asks for a longer
    time-out on this side (1047/34620). `use_environment`: proxies and a CA bundle named by the environment apply.
    """

    def __init__(
        self,
        *,
        connect_timeout_seconds: float = 5.0,
        read_timeout_seconds: float = 10.0,
        pool_size: int = 64,
        use_environment: bool = True,
    ) -> None:
        self._timeouts = (connect_timeout_seconds, read_timeout_seconds)
        adapter = requests.adapters.HTTPAdapter(pool_connections=4, pool_maxsize=pool_size, max_retries=0)
        self._session = requests.Session()
        self._session.mount("https://", adapter)
        self._session.mount("http://", adapter)
        self._session.trust_env = use_environment
        self._session.auth = _no_authorization  # else ~/.netrc is read on every call, and sent
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
        self._session.headers["Content-Type"] = "application/json"
        _keep_queries_out_of_logs()

    def post(self, url: str, *, body: bytes) -> HttpResponse:
        try:
            response = self._session.post(url, data=body, timeout=self._timeouts, allow_redirects=False)
            return HttpResponse(response.status_code, response.content)
        except (OSError, urllib3.exceptions.HTTPError) as error:  # requests' own errors are OSErrors
            fault, detail = self._explain(error)
        # Outside of `except`: the library's error holds the whole URL and must not hang on ours as its context.
        raise TransportError(fault, detail)

    def close(self) -> None:
        self._session.close()

    def _explain(self, error: Exception) -> tuple[Fault, str]:
        causes = tuple(_causes(error))
        for kinds, fault, detail in _FAULTS:
            if any(isinstance(cause, kinds) for cause in causes):
                return fault, detail.format(*self._timeouts)
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
    ((TimeoutError, urllib3.exceptions.TimeoutError), Fault.TIMEOUT, "no answer within {1:g} s"),
    (
        (requests.exceptions.ContentDecodingError, urllib3.exceptions.DecodeError),
        Fault.UNREADABLE_REPLY,
        "the body is not compressed as its header says",
    ),
)


class Client:
    """The API's attribute commands for one app. Safe to share between threads.

    Raises SettingsError for a `base_url` that is neither https nor, for loopback alone, http.
    """

    def __init__(
        self,
        *,
        base_url: str,
        credentials: Credentials,
        transport: Transport | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        random_uint32: Callable[[], int] = lambda: secrets.randbits(32),
    ) -> None:
        self._base_url = checked_base_url(base_url)
        self._credentials = credentials
        # A proxy of the environment is for the way out; loopback is not on it.
        self._transport = transport or RequestsTransport(use_environment=not is_loopback(self._base_url))
        self._monotonic = monotonic
        self._random_uint32 = random_uint32
        self._usersig = UserSigSource(
            sdkappid=credentials.sdkappid,
            identifier=credentials.identifier,
            secret_key=credentials.secret_key,
            clock=clock,
        )

    @property
    def host(self) -> str:
        """Host, and port where one is named: what people may see of the target."""
        return urlsplit(self._base_url).netloc

    @property
    def sdkappid(self) -> int:
        return self._credentials.sdkappid

    def call(self, command: Command, body: bytes) -> CallResult:
        """One HTTP request, never more. Never raises for what the network or the API does."""
        url = self._url(command)
        started = self._monotonic()
        try:
            response = self._transport.post(url, body=body)
        except TransportError as error:
            return CallResult(None, error.fault, error.detail, None, self._monotonic() - started)
        latency_seconds = self._monotonic() - started
        if response.status != 200:  # the API answers 200 whatever it says; all else is the way there: 1047/34620
            detail = f"HTTP {response.status}"
            return CallResult(None, Fault.HTTP_STATUS, detail, response.status, latency_seconds)
        reply = protocol.decode_reply(response.content)
        if isinstance(reply, UnreadableReply):
            return CallResult(None, Fault.UNREADABLE_REPLY, reply.why, response.status, latency_seconds)
        return CallResult(reply, None, None, response.status, latency_seconds)

    def renew_usersig(self) -> None:
        """A new signature for the calls from now on; those in flight keep the old one."""
        self._usersig.renew()

    def close(self) -> None:
        self._transport.close()

    # For people, preflight and read-back. All raise TargetUnreachableError and CallRefusedError.

    def set_attr(self, rows: Iterable[tuple[str, Mapping[str, str]]]) -> tuple[RowError, ...]:
        """Merges into what the accounts have. The accounts that are not among the errors are set."""
        return self._answer(Command.SET_ATTR, protocol.encode_set_attr(rows)).row_errors

    def remove_attr(self, rows: Iterable[tuple[str, Iterable[str]]]) -> tuple[RowError, ...]:
        """Removes the named attributes. The accounts that are not among the errors no longer have them."""
        return self._answer(Command.REMOVE_ATTR, protocol.encode_remove_attr(rows)).row_errors

    def get_attr(self, accounts: Iterable[str]) -> tuple[dict[str, dict[str, str]], tuple[RowError, ...]]:
        """Attributes by account, and the accounts that could not be read. No page says how soon a write shows."""
        reply = self._answer(Command.GET_ATTR, protocol.encode_get_attr(accounts))
        return self._shaped(Command.GET_ATTR, reply.attributes), reply.row_errors

    def get_attr_name(self) -> dict[str, AccountType]:
        """The app's declared attributes."""
        reply = self._answer(Command.GET_ATTR_NAME, protocol.encode_get_attr_name())
        return self._shaped(Command.GET_ATTR_NAME, reply.attribute_types)

    def get_attr_slots(self) -> dict[int, tuple[str, AccountType]]:
        """The same, by slot: what a new name needs to find a free one."""
        reply = self._answer(Command.GET_ATTR_NAME, protocol.encode_get_attr_name())
        return self._shaped(Command.GET_ATTR_NAME, reply.attribute_slots)

    def set_attr_name(self, slots: Mapping[int, tuple[str, AccountType]]) -> None:
        """Declares attributes for good: an account type can never be changed. What it does to other slots is
        undocumented, so this is an operator's command and no part of a run.
        """
        self._answer(Command.SET_ATTR_NAME, protocol.encode_set_attr_name(slots))

    def _answer(self, command: Command, body: bytes) -> Reply:
        result = self.call(command, body)
        if result.reply is None:
            raise self._unreachable(command, str(result.detail))
        if result.reply.code != 0:
            raise CallRefusedError(command=command, code=result.reply.code, info=result.reply.info)
        return result.reply

    def _shaped(self, command: Command, read: Callable[[], _T]) -> _T:
        try:
            return read()
        except ValueError as error:
            why = str(error)
        raise self._unreachable(command, why)

    def _unreachable(self, command: Command, why: str) -> TargetUnreachableError:
        return TargetUnreachableError(
            f"{command} had no readable answer from {self.host}: {why}. Check TENCENT_PUSH_REGION or "
            "TENCENT_PUSH_BASE_URL, the network and any proxy on the way, then run again."
        )

    def _url(self, command: Command) -> str:
        query = {
            "usersig": self._usersig.current(),
            "identifier": self._credentials.identifier,
            "sdkappid": self._credentials.sdkappid,
            "random": self._random_uint32(),
            "contenttype": "json",
        }
        return f"{self._base_url}/v4/timpush/{command}?{urlencode(query, safe='*', quote_via=quote)}"


def checked_base_url(base_url: str) -> str:
    """Without a slash at the end. Raises SettingsError, without quoting the URL, for one that would not be safe:
    https only, http for loopback alone, no user, query or fragment.
    """
    try:
        parts = urlsplit(base_url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or base_url.split() != [base_url]:
        raise SettingsError("TENCENT_PUSH_BASE_URL is not a URL; write for example https://proxy.example.com")
    if any(mark in base_url for mark in "@?#"):
        raise SettingsError("TENCENT_PUSH_BASE_URL may hold scheme, host, port and path, nothing else")
    if parts.scheme != "https" and not (parts.scheme == "http" and _names_loopback(host)):
        raise SettingsError(
            "TENCENT_PUSH_BASE_URL must begin with https:// (http:// is for this machine itself alone): the signature "
            "stands in the address of every call"
        )
    return base_url.rstrip("/")


def is_loopback(base_url: str) -> bool:
    """Whether the target is this machine itself."""
    return _names_loopback(urlsplit(base_url).hostname or "")


def _names_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


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
