"""The emulator as an object: listens on loopback, one thread per connection, stops when it is closed.

What a call means stands in service.py and below; this module owns sockets and threads only.
"""

import random
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from connectors.tencent_push.emulator.access import App
from connectors.tencent_push.emulator.calls import CallLog, Quota
from connectors.tencent_push.emulator.faults import Delivery, Faults
from connectors.tencent_push.emulator.link import NO_ROUND_TRIP, RoundTrip, tls_context
from connectors.tencent_push.emulator.service import Outgoing, Service
from connectors.tencent_push.emulator.slots import declare_missing
from connectors.tencent_push.emulator.store import UNKNOWN_ACCOUNTS, Store
from connectors.tencent_push.emulator.wire import BadRequestError, Connection
from connectors.tencent_push.protocol import DOCUMENTED_CALLS_PER_SECOND, AccountType

_HOST = "127.0.0.1"
_BACKLOG = 256
EMULATOR_CREDENTIALS = App()


class Emulator:
    """A strict stand-in for the attribute API, on a port of its own, with its state in one SQLite file.

        with Emulator(Path("emulator.sqlite")) as emulator:
            emulator.declare({"city": AccountType.USER_ID})
            ...  # calls to emulator.base_url

    `port` 0 takes a free one. `calls_per_second` None switches the quota off. `clock` (Unix seconds) judges signatures,
    `monotonic` stamps arrivals, `wait` (seconds) is what a slow answer does; by default it ends when the emulator is
    closed. `round_trip` holds every answer back, each connection's by itself; `chance` (0 to 1) draws it. With
    `tls_certificate`, a PEM file with its key, it serves HTTPS only. Raises EmulatorDataError and
    EmulatorCertificateError for an unusable file and OSError for a port that is taken.
    """

    def __init__(
        self,
        data_file: Path,
        *,
        port: int = 0,
        calls_per_second: int | None = DOCUMENTED_CALLS_PER_SECOND,
        sdkappid: int = EMULATOR_CREDENTIALS.sdkappid,
        identifier: str = EMULATOR_CREDENTIALS.identifier,
        secret_key: str = EMULATOR_CREDENTIALS.secret_key,
        region: str = EMULATOR_CREDENTIALS.region,
        unknown_accounts: Sequence[str] = UNKNOWN_ACCOUNTS,
        bad_row_refuses_call: bool = False,
        round_trip: RoundTrip = NO_ROUND_TRIP,
        tls_certificate: Path | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        wait: Callable[[float], object] | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.faults = Faults()
        self.calls = CallLog()
        self._tls = tls_context(tls_certificate) if tls_certificate is not None else None
        self._round_trip = round_trip
        self._chance = chance
        self._monotonic = monotonic
        self._closing = threading.Event()
        self._wait = wait or self._closing.wait
        self._connections: set[Connection] = set()
        self._connections_lock = threading.Lock()
        quota = Quota(calls_per_second)
        self._listener = _listen(port)
        self.port: int = self._listener.getsockname()[1]
        try:
            self._store = Store(data_file, unknown_accounts=unknown_accounts)
        except BaseException:
            self._listener.close()
            raise
        self._service = Service(
            store=self._store,
            app=App(sdkappid, identifier, secret_key, region),
            quota=quota,
            faults=self.faults,
            calls=self.calls,
            clock=clock,
            wait=self._wait,
            bad_row_refuses_call=bad_row_refuses_call,
        )
        self._acceptor = threading.Thread(target=self._accept, name="emulator", daemon=True)

    @property
    def base_url(self) -> str:
        return f"{'https' if self._tls else 'http'}://{_HOST}:{self.port}"

    def declare(self, attributes: Mapping[str, AccountType]) -> None:
        """Declares the names that are missing, without a call; existing ones stay as they are, also their type.

        Raises ValueError, and declares nothing, when the ten slots do not suffice.
        """
        declare_missing(attributes, self._store)

    def declared(self) -> dict[str, AccountType]:
        return {row.name: row.account_type for row in self._store.declared().values()}

    def know(self, account: str, account_type: AccountType | None = None) -> None:
        """Imports an account that would be unknown; with `account_type` also fixes which of the two it is."""
        self._store.set_exception(account, known=True, account_type=account_type)

    def forget(self, account: str) -> None:
        """Makes an account unknown (70107); what was set for it stays stored."""
        self._store.set_exception(account, known=False, account_type=None)

    def attributes(self) -> Iterator[tuple[str, dict[str, str]]]:
        """Every account with at least one attribute, ordered by account, streamed; also after closing."""
        return self._store.attributes()

    def start(self) -> None:
        self._acceptor.start()

    def close(self) -> None:
        """Ends all connections and leaves one data file. Calls that were answered are in it."""
        self._closing.set()
        if self._acceptor.is_alive():
            _wake(self.port)
            self._acceptor.join()
        self._listener.close()
        with self._connections_lock:
            connections = list(self._connections)
        for connection in connections:
            connection.close()
        self._store.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                # Out of file descriptors, most likely: clients that end give some back.
                if self._closing.wait(0.05):
                    return
                continue
            if self._closing.is_set():
                sock.close()
                return
            try:
                connection = Connection(self._wrapped(sock), monotonic=self._monotonic)
            except OSError:  # the client is gone already
                sock.close()
                continue
            with self._connections_lock:
                self._connections.add(connection)
            threading.Thread(target=self._serve, args=(connection,), name="emulator-call", daemon=True).start()

    def _wrapped(self, sock: socket.socket) -> socket.socket:
        """The handshake comes later, in the connection's own thread: a client that is slow at it holds up no other."""
        if self._tls is None:
            return sock
        return self._tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)

    def _serve(self, connection: Connection) -> None:
        try:
            with suppress(OSError):  # the client is gone, or close() ended the connection
                while self._serve_one(connection):
                    pass
        finally:
            with self._connections_lock:
                self._connections.discard(connection)
            connection.close()

    def _serve_one(self, connection: Connection) -> bool:
        """True when the connection stays open for another request."""
        try:
            request = connection.read_request()
        except BadRequestError as error:
            connection.refuse(error.status)
            return False
        if request is None:
            return False
        outgoing = self._service.handle(request)
        self._hold_back(request.arrived_at, outgoing.wait_seconds)
        # An answer to HEAD must have no body; this one has, so the connection cannot go on.
        keep_alive = request.keep_alive and request.method != "HEAD"
        outgoing.record.answered_at = self._monotonic()
        return _deliver(outgoing, connection, keep_alive=keep_alive)

    def _hold_back(self, arrived_at: float, wait_seconds: float) -> None:
        if self._round_trip.seconds:
            passed_seconds = self._monotonic() - arrived_at
            wait_seconds += max(0.0, self._round_trip.draw(self._chance()) - passed_seconds)
        if wait_seconds > 0:
            self._wait(wait_seconds)


def _deliver(outgoing: Outgoing, connection: Connection, *, keep_alive: bool) -> bool:
    match outgoing.delivery:
        case Delivery.RESET:
            connection.reset()
            return False
        case Delivery.HALF:
            half = len(outgoing.content) // 2
            connection.answer(outgoing.status, outgoing.content, keep_alive=False, sent_bytes=half)
            return False
        case Delivery.WHOLE_THEN_CLOSED:
            connection.answer(outgoing.status, outgoing.content, keep_alive=True)
            return False
        case Delivery.WHOLE:
            connection.answer(outgoing.status, outgoing.content, keep_alive=keep_alive)
            return keep_alive


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((_HOST, port))
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def _wake(port: int) -> None:
    """A blocked accept does not notice that its socket is closed; one more connection lets it look up."""
    with suppress(OSError):  # it has ended already
        socket.create_connection((_HOST, port), timeout=1.0).close()
