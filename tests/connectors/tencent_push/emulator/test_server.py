"""Starting, closing and restarting: ports, threads, connections, and what is left behind."""

import socket
from pathlib import Path
from typing import Any

import pytest

from connectors.tencent_push.emulator import EMULATOR_CREDENTIALS, Emulator, EmulatorDataError
from connectors.tencent_push.protocol import AccountType


def test_it_listens_on_one_loopback_address_only(emulator: Emulator) -> None:
    assert emulator.base_url == f"http://127.0.0.1:{emulator.port}"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", emulator.port), timeout=10)


def test_its_credentials_are_the_public_example(emulator: Emulator) -> None:
    """1047/34385: the key of the signature library's README"""
    assert (EMULATOR_CREDENTIALS.sdkappid, EMULATOR_CREDENTIALS.identifier) == (1400000000, "administrator")
    assert EMULATOR_CREDENTIALS.secret_key.startswith("5bd2850f")


def test_after_closing_nothing_answers_and_open_connections_end(data_file: Path) -> None:
    with Emulator(data_file) as emulator:
        client = socket.create_connection(("127.0.0.1", emulator.port), timeout=10)
        client.sendall(b"POST / HTTP/1.1\r\n\r\n")
        assert client.recv(10)
    while client.recv(1000):
        pass  # the rest of the answer, then the end
    client.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", emulator.port), timeout=10)


def test_it_starts_again_on_the_same_port_with_the_same_state(data_file: Path, make_call: Any) -> None:
    with Emulator(data_file) as first:
        first.declare({"city": AccountType.USER_ID})
        make_call(first).set("user0", city="x")
    with Emulator(data_file, port=first.port) as second:
        assert second.port == first.port
        assert make_call(second).get("user0") == {"city": "x"}
        assert second.declared() == {"city": AccountType.USER_ID}


def test_the_state_can_be_read_after_closing(data_file: Path, make_call: Any) -> None:
    with Emulator(data_file) as emulator:
        emulator.declare({"city": AccountType.USER_ID})
        make_call(emulator).set("user0", city="x")
    assert list(emulator.attributes()) == [("user0", {"city": "x"})]
    assert [path.name for path in data_file.parent.iterdir()] == [data_file.name]


def test_a_port_that_is_taken_is_an_os_error_and_the_file_is_not_touched(emulator: Emulator, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="in use"):
        Emulator(tmp_path / "second.sqlite", port=emulator.port)
    assert not (tmp_path / "second.sqlite").exists()


def test_an_unusable_file_gives_the_port_back(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with pytest.raises(EmulatorDataError):
        Emulator(tmp_path, port=port)
    Emulator(tmp_path / "fine.sqlite", port=port).close()


def test_it_can_be_closed_without_ever_having_started(data_file: Path) -> None:
    Emulator(data_file).close()


def test_it_can_be_closed_twice(data_file: Path) -> None:
    with Emulator(data_file) as emulator:
        emulator.close()
