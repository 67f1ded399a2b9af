"""One call in, one decoded reply out.

Signs, addresses and sends a call, once. Nothing here retries, paces or decides what a reply means for a row. Whatever
the network does is a `Fault` of the result; no text made here holds the signature, the key, an account or a value.
"""

import ipaddress
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import quote, urlencode, urlsplit

from connectors.tencent_push import protocol
from connectors.tencent_push.errors import CallRefusedError, SettingsError, TargetUnreachableError
from connectors.tencent_push.protocol import AccountType, Command, Reply, RowError, UnreadableReply
from connectors.tencent_push.transport import Fault, HttpResponse, RequestsTransport, Transport, TransportError
from connectors.tencent_push.usersig import UserSigSource

__all__ = [
    "CallResult",
    "Client",
    "Credentials",
    "Fault",
    "HttpResponse",
    "RequestsTransport",
    "Transport",
    "TransportError",
    "checked_base_url",
    "is_loopback",
]

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class CallResult:
    """What became of one call: either a reply that could be read, or a fault with a short `detail` for people.

    `waited_seconds`: of the latency, what passed between the request having left whole and its answer; None where
    that is not known, or where no answer came.
    """

    reply: Reply | None
    fault: Fault | None
    detail: str | None
    http_status: int | None
    latency_seconds: float
    waited_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Credentials:
    """The app's administrator and key, as the app's console shows them."""

    sdkappid: int
    identifier: str = field(repr=False)
    secret_key: str = field(repr=False)


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
        latency_seconds, waited_seconds = self._monotonic() - started, response.waited_seconds
        if response.status != 200:  # the API answers 200 whatever it says; all else is the way there: 1047/34620
            detail = f"HTTP {response.status}"
            return CallResult(None, Fault.HTTP_STATUS, detail, response.status, latency_seconds, waited_seconds)
        reply = protocol.decode_reply(response.content)
        if isinstance(reply, UnreadableReply):
            why = reply.why
            return CallResult(None, Fault.UNREADABLE_REPLY, why, response.status, latency_seconds, waited_seconds)
        return CallResult(reply, None, None, response.status, latency_seconds, waited_seconds)

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
