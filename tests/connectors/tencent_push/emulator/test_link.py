"""Between client and emulator: a round trip that holds up nobody else, and TLS."""

import http.client
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from connectors.tencent_push.emulator import Emulator, EmulatorCertificateError, ResetAfterWrite, RoundTrip, Slow
from connectors.tencent_push.protocol import AccountType


@pytest.fixture
def tls_emulator(data_file: Path, loopback_pem: Path) -> Iterator[Emulator]:
    with Emulator(data_file, tls_certificate=loopback_pem) as emulator:
        emulator.declare({"city": AccountType.USER_ID})
        yield emulator


@pytest.fixture
def call_by_tls(tls_emulator: Emulator, loopback_pem: Path, call_target: Callable[[str], str]) -> Callable[[], bytes]:
    """One call over a connection of its own that trusts the certificate; gives the body back."""

    def call() -> bytes:
        context = ssl.create_default_context(cafile=loopback_pem)
        connection = http.client.HTTPSConnection("127.0.0.1", tls_emulator.port, timeout=10, context=context)
        try:
            connection.request("POST", call_target("get_attr_name"), b"{}")
            return connection.getresponse().read()
        finally:
            connection.close()

    return call


@pytest.fixture
def call_target(tls_emulator: Emulator, make_call: Any) -> Callable[[str], str]:
    target: Callable[[str], str] = make_call(tls_emulator).target
    return target


@pytest.mark.parametrize(
    ("round_trip", "shortest", "longest"),
    [(RoundTrip(0.5, 0.2), 0.4, 0.6), (RoundTrip(0.05), 0.05, 0.05), (RoundTrip(0.5, 1.0), 0.0, 1.0)],
)
def test_a_round_trip_is_drawn_evenly_between_its_ends(round_trip: RoundTrip, shortest: float, longest: float) -> None:
    drawn = [round_trip.draw(chance) for chance in (0.0, 0.5, 1.0)]
    assert drawn == pytest.approx([shortest, round_trip.seconds, longest])


@pytest.mark.parametrize("wrong", [(-0.1, 0.0), (float("nan"), 0.0), (float("inf"), 0.0), (0.1, -0.1), (0.1, 1.1)])
def test_a_round_trip_that_cannot_be_is_refused(wrong: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="round trip"):
        RoundTrip(*wrong)


def test_what_the_emulator_needs_itself_is_part_of_the_round_trip(data_file: Path, make_call: Any) -> None:
    moments = iter([1.0, 1.25, 9.0, 20.0, 25.0, 29.0])  # arrival, work done, answered; the second call takes too long
    waited: list[float] = []
    with Emulator(
        data_file,
        round_trip=RoundTrip(1.0, 0.5),
        chance=lambda: 1.0,
        monotonic=lambda: next(moments),
        wait=waited.append,
    ) as emulator:
        call = make_call(emulator)
        call("get_attr_name")
        call("get_attr_name")
    assert waited == [1.25]


def test_a_slow_answer_is_late_beyond_the_round_trip(data_file: Path, make_call: Any) -> None:
    waited: list[float] = []
    round_trip = RoundTrip(1.0)
    with Emulator(data_file, round_trip=round_trip, monotonic=lambda: 0.0, wait=waited.append) as emulator:
        emulator.faults.add(Slow(3.0))
        make_call(emulator)("get_attr_name")
    assert waited == [4.0]


def test_answers_on_different_connections_are_held_back_at_the_same_time(
    data_file: Path, make_call: Any, in_threads: Callable[[Callable[[int], object], int], list[Any]]
) -> None:
    all_wait = threading.Barrier(8)
    with Emulator(data_file, round_trip=RoundTrip(1.0), wait=lambda _: all_wait.wait(10)) as emulator:
        call = make_call(emulator)
        assert in_threads(lambda _: call.code("get_attr_name"), 8) == [0] * 8


def test_calls_are_served_over_tls(tls_emulator: Emulator, call_by_tls: Callable[[], bytes]) -> None:
    assert tls_emulator.base_url == f"https://127.0.0.1:{tls_emulator.port}"
    assert b"city" in call_by_tls()


def test_a_client_that_does_not_trust_the_certificate_is_not_served(
    tls_emulator: Emulator, call_by_tls: Callable[[], bytes]
) -> None:
    address = ("127.0.0.1", tls_emulator.port)
    with socket.create_connection(address, timeout=10) as plain, pytest.raises(ssl.SSLCertVerificationError):
        ssl.create_default_context().wrap_socket(plain, server_hostname="127.0.0.1")
    call_by_tls()
    assert tls_emulator.calls.total == 1


def test_clients_that_are_slow_at_the_handshake_or_speak_no_tls_hold_up_nobody(
    tls_emulator: Emulator, call_by_tls: Callable[[], bytes]
) -> None:
    address = ("127.0.0.1", tls_emulator.port)
    with socket.create_connection(address, timeout=10), socket.create_connection(address, timeout=10) as plain:
        plain.sendall(b"POST / HTTP/1.1\r\n\r\n")
        assert b"city" in call_by_tls()
        assert b"HTTP/1.1" not in plain.recv(1000)
    assert tls_emulator.calls.total == 1


def test_faults_at_the_wire_happen_over_tls_too(tls_emulator: Emulator, call_by_tls: Callable[[], bytes]) -> None:
    tls_emulator.faults.add(ResetAfterWrite())
    with pytest.raises(ConnectionResetError):
        call_by_tls()
    assert b"city" in call_by_tls()


def test_closing_ends_open_tls_connections(data_file: Path, loopback_pem: Path) -> None:
    context = ssl.create_default_context(cafile=loopback_pem)
    with Emulator(data_file, tls_certificate=loopback_pem) as emulator:
        plain = socket.create_connection(("127.0.0.1", emulator.port), timeout=10)
        client = context.wrap_socket(plain, server_hostname="127.0.0.1", suppress_ragged_eofs=True)
        client.sendall(b"POST / HTTP/1.1\r\n\r\n")
        assert client.recv(10)
    while client.recv(1000):
        pass  # the rest of the answer, then the end
    client.close()


@pytest.mark.parametrize("content", [None, "", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_a_certificate_that_cannot_be_used_is_named_with_the_remedy(
    data_file: Path, tmp_path: Path, content: str | None
) -> None:
    file = tmp_path / "mine.pem"
    if content is not None:
        file.write_text(content)
    with pytest.raises(EmulatorCertificateError, match=r"mine\.pem cannot be used .*name a PEM file"):
        Emulator(data_file, tls_certificate=file)
    assert not data_file.exists()
