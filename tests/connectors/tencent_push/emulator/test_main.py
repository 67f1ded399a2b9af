"""The emulator as a process of its own: its arguments, its end, and what a kill leaves behind."""

import http.client
import json
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from connectors.tencent_push.emulator import EMULATOR_CREDENTIALS, Emulator
from connectors.tencent_push.emulator.__main__ import main

MODULE = "connectors.tencent_push.emulator"
Running = Callable[..., Any]


@pytest.fixture
def running(data_file: Path, make_call: Any) -> Running:
    """Starts the process, waits for its address, gives (process, caller); ends it with a kill if it still lives."""

    @contextmanager
    def start(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], Any]]:
        command = [sys.executable, "-m", MODULE, "--data", str(data_file), *arguments]
        project = Path(__file__).parents[4]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=project
        ) as process:
            assert process.stdout is not None
            try:
                base_url = process.stdout.readline().strip()
                yield process, make_call(SimpleNamespace(base_url=base_url))
            finally:
                process.kill()

    return start


def test_every_answered_call_survives_kill_9_in_the_middle_of_its_work(
    running: Running, data_file: Path, in_threads: Callable[[Callable[[int], object], int], list[Any]]
) -> None:
    answered: list[str] = []

    with running("--declare", "city", "--calls-per-second", "0") as (process, call):

        def send_until_it_is_gone(worker: int) -> int:
            for number in range(10_000):
                account = f"{worker}-{number}"
                try:
                    call.set(account, city=account)
                except (OSError, http.client.HTTPException):
                    return number
                answered.append(account)
                if len(answered) == 100:
                    process.send_signal(signal.SIGKILL)
            return 0

        in_threads(send_until_it_is_gone, 4)
        process.wait(10)
    with Emulator(data_file) as emulator:
        stored = dict(emulator.attributes())
    assert len(answered) >= 100
    assert all(stored.get(account) == {"city": account} for account in answered)
    assert len(stored) <= len(answered) + 4


def test_a_killed_emulator_starts_again_on_the_same_file_as_a_process(running: Running) -> None:
    with running("--declare", "city") as (process, call):
        call.set("user0", city="x")
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    with running() as (_, call):
        assert call.get("user0") == {"city": "x"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_in_order_when_asked_to_and_leaves_one_file(
    running: Running, data_file: Path, number: signal.Signals
) -> None:
    with running("--declare", "city") as (process, call):
        call.set("user0", city="x")
        process.send_signal(number)
        assert process.wait(10) == 0
    assert [path.name for path in data_file.parent.iterdir()] == [data_file.name]


def test_its_arguments_reach_the_emulator(running: Running) -> None:
    arguments = ["--declare", "city", "--declare", "device_city:registration_id", "--unknown", "guest"]
    with running(*arguments, "--calls-per-second", "1", "--region", "tokyo") as (_, call):
        assert call("get_attr_name")["AttrTypes"] == {"0": 0, "1": 1}
        assert call.set("guest1", city="x")["ErrorList"][0]["ErrorCode"] == 70107
        headers = {"Host": "console.tim.qq.com"}
        assert b"60026" in call.response(call.target("get_attr"), b"{}", headers=headers)[1]


def test_another_apps_credentials_can_be_given(running: Running) -> None:
    arguments = ["--sdkappid", "1400000001", "--identifier", "root", "--secret-key", "0" * 64]
    with running(*arguments) as (_, call):
        assert call.code("get_attr_name") == 70020


def test_a_port_that_is_taken_ends_with_1_and_the_remedy(
    emulator: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--data", str(tmp_path / "other.sqlite"), "--port", str(emulator.port)]) == 1
    assert f"port {emulator.port} cannot be used" in capsys.readouterr().err


def test_an_unusable_file_ends_with_1_and_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", str(tmp_path)]) == 1
    assert str(tmp_path) in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong",
    [
        ["--calls-per-second", "-1"],
        ["--declare", "city:device"],
        ["--region", "mars"],
        ["--port", "x"],
        ["--port", "65536"],
        ["--unknown", "("],
        ["--round-trip-ms", "-1"],
        ["--jitter", "1.5"],
        ["--refuse-call", "0:91000"],
        ["--refuse-call", "3"],
        ["--poison", "user0"],
    ],
)
def test_a_wrong_argument_ends_with_2(data_file: Path, wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--data", str(data_file), *wrong])
    assert ended.value.code == 2
    assert wrong[0] in capsys.readouterr().err


def test_it_serves_https_with_a_certificate(running: Running, loopback_pem: Path) -> None:
    with running("--tls-certificate", str(loopback_pem), "--declare", "city") as (_, call):
        assert call.host.startswith("https://127.0.0.1:")
        context = ssl.create_default_context(cafile=loopback_pem)
        address = call.host.removeprefix("https://")
        connection = http.client.HTTPSConnection(address, timeout=10, context=context)
        connection.request("POST", call.target("get_attr_name"), b"{}")
        assert b"city" in connection.getresponse().read()
        connection.close()


def test_an_unusable_certificate_ends_with_1_and_its_name(
    data_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--data", str(data_file), "--tls-certificate", str(tmp_path / "none.pem")]) == 1
    assert str(tmp_path / "none.pem") in capsys.readouterr().err


def test_an_answer_takes_the_round_trip(running: Running) -> None:
    with running("--round-trip-ms", "300", "--jitter", "0.1") as (_, call):
        began = time.monotonic()
        call("get_attr_name")
        assert time.monotonic() - began >= 0.27


def test_calls_are_refused_by_number_and_by_account(running: Running) -> None:
    arguments = ["--declare", "city", "--refuse-call", "2:91000", "--poison", "bad:user:90001"]
    with running(*arguments) as (_, call):
        codes = [call.set(account, city="x")["ErrorCode"] for account in ("a", "a", "a", "bad:user", "bad:user", "a")]
    assert codes == [0, 91000, 0, 90001, 90001, 0]


def test_it_reports_its_calls_when_asked_and_at_the_end(running: Running) -> None:
    with running("--declare", "city", "--calls-per-second", "2", "--report") as (process, call):
        process.stdin.write("\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline()) == {}
        for account in ("a", "b", "c"):
            call.set(account, city="x")
        call("get_attr_name")
        process.send_signal(signal.SIGTERM)
        totals = json.loads(process.stdout.readline())
        assert process.wait(10) == 0
    assert set(totals) == {"set_attr", "get_attr_name"}
    assert {name: totals["set_attr"][name] for name in ("calls", "accounts", "served_accounts", "worst_second")} == {
        "calls": 3,
        "accounts": 3,
        "served_accounts": 2,
        "worst_second": 3,
    }
    assert totals["set_attr"]["codes"] == {"0": 2, "60007": 1}


def test_names_that_no_slot_takes_end_with_1(data_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", str(data_file), "--declare", "x" * 51]) == 1
    assert "50" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "shown"), [([], EMULATOR_CREDENTIALS.secret_key), (["--secret-key", "own-key"], "...")]
)
def test_it_says_how_to_point_a_run_at_it_and_keeps_a_key_of_ones_own_to_itself(
    running: Running, capfd: pytest.CaptureFixture[str], arguments: list[str], shown: str
) -> None:
    with running(*arguments) as (process, _):
        process.terminate()
        process.wait(30)
    told = capfd.readouterr().err.strip()
    assert "export TENCENT_PUSH_BASE_URL=http://127.0.0.1:" in told
    assert told.endswith(f"TENCENT_PUSH_SECRET_KEY={shown}")
