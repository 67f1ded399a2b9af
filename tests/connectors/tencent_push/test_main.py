import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from connectors.tencent_push.__main__ import main, slots_for
from connectors.tencent_push.client import Credentials
from connectors.tencent_push.emulator import EMULATOR_CREDENTIALS, Emulator
from connectors.tencent_push.errors import SettingsError
from connectors.tencent_push.protocol import AccountType
from connectors.tencent_push.settings import Settings

USER, DEVICE = AccountType.USER_ID, AccountType.REGISTRATION_ID


@pytest.fixture
def emulator(tmp_path: Path) -> Iterator[Emulator]:
    with Emulator(tmp_path / "emulator.sqlite") as running:
        yield running


@pytest.fixture
def environ(emulator: Emulator) -> dict[str, str]:
    return {"TENCENT_PUSH_BASE_URL": emulator.base_url}


class TestSlotsFor:
    def test_new_names_take_the_free_slots_in_order(self) -> None:
        declared = {0: ("sex", USER), 2: ("city", USER)}
        wanted = {"city": USER, "vip": USER, "device_city": DEVICE}
        assert slots_for(wanted, declared=declared) == {1: ("vip", USER), 3: ("device_city", DEVICE)}

    def test_nothing_is_new_when_all_is_declared(self) -> None:
        assert slots_for({"city": USER}, declared={4: ("city", USER)}) == {}

    def test_the_tenth_name_fits_and_the_eleventh_does_not(self) -> None:
        declared = {slot: (f"a{slot}", USER) for slot in range(9)}
        assert slots_for({"tenth": USER}, declared=declared) == {9: ("tenth", USER)}
        with pytest.raises(
            SettingsError, match="has 10 attributes, 9 are declared: there is room for 1, not for tenth"
        ):
            slots_for({"tenth": USER, "eleventh": USER}, declared=declared)

    def test_another_account_type_is_refused(self) -> None:
        with pytest.raises(SettingsError, match="city is declared for user_id, and that can never be changed"):
            slots_for({"city": DEVICE}, declared={0: ("city", USER)})

    @pytest.mark.parametrize("name", ["", "京" * 17])
    def test_a_name_has_1_to_50_bytes(self, name: str) -> None:
        with pytest.raises(SettingsError, match="1 to 50 UTF-8 bytes"):
            slots_for({name: USER}, declared={})


class TestDeclare:
    def test_it_declares_what_is_missing_and_says_so(
        self, emulator: Emulator, environ: dict[str, str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        emulator.declare({"sex": USER})
        assert main(["declare", "sex", "city", "device_city:registration_id"], environ) == 0
        assert capsys.readouterr().out.splitlines() == [
            "sex (user_id) was declared already",
            "city (user_id) declared",
            "device_city (registration_id) declared",
            f"3 of 10 attributes are in use on {emulator.base_url.removeprefix('http://')}",
        ]
        assert main(["attributes"], environ) == 0
        assert capsys.readouterr().out.splitlines()[:3] == [
            "0  user_id          sex",
            "1  user_id          city",
            "2  registration_id  device_city",
        ]

    def test_declaring_twice_sends_nothing_the_second_time(self, emulator: Emulator, environ: dict[str, str]) -> None:
        for _ in range(2):
            assert main(["declare", "city"], environ) == 0
        assert [record.command for record in emulator.calls if record.command == "set_attr_name"] == ["set_attr_name"]

    def test_a_change_of_type_is_refused_before_any_writing_call(
        self, emulator: Emulator, environ: dict[str, str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        emulator.declare({"city": USER})
        assert main(["declare", "vip", "city:registration_id"], environ) == 1
        assert "can never be changed" in capsys.readouterr().err
        assert [record.command for record in emulator.calls] == ["get_attr_name"]

    @pytest.mark.parametrize(
        ("names", "message"),
        [(["city:phone"], "one of user_id, registration_id"), (["a", "a:registration_id"], "both account types")],
    )
    def test_names_that_contradict_are_refused_before_any_call(
        self, names: list[str], message: str, environ: dict[str, str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["declare", *names], environ) == 1
        assert message in capsys.readouterr().err

    def test_a_declaration_that_does_not_show_is_an_error(
        self, wire_server: Any, steps: Any, capsys: pytest.CaptureFixture[str]
    ) -> None:
        accepted = steps.answer(b'{"ActionStatus":"OK","ErrorCode":0,"ErrorInfo":""}')
        wire_server.script = [accepted, accepted, accepted]
        assert main(["declare", "city"], {"TENCENT_PUSH_BASE_URL": wire_server.base_url}) == 1
        assert "does not show what was declared" in capsys.readouterr().err


class TestGetAttr:
    def test_accounts_are_printed_as_asked_and_unknown_ones_are_errors(
        self, emulator: Emulator, environ: dict[str, str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        emulator.declare({"city": USER})
        app = EMULATOR_CREDENTIALS
        credentials = Credentials(sdkappid=app.sdkappid, identifier=app.identifier, secret_key=app.secret_key)
        client = Settings(credentials=credentials, base_url=emulator.base_url).make_client()
        client.set_attr([("a", {"city": "北京"})])
        client.close()
        assert main(["get-attr", "b", "a", "a", "new-1"], environ) == 1
        out, err = capsys.readouterr()
        assert [json.loads(line) for line in out.splitlines()] == [
            {"account": "b", "attributes": {}},
            {"account": "a", "attributes": {"city": "北京"}},
        ]
        assert err == "new-1: 70107 Tencent does not know this account.\n"

    def test_more_than_100_accounts_take_more_than_one_call(
        self, emulator: Emulator, environ: dict[str, str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["get-attr", *(f"u{number}" for number in range(101))], environ) == 0
        assert len(capsys.readouterr().out.splitlines()) == 101
        assert len(list(emulator.calls)) == 2

    def test_an_account_that_the_answer_passes_over_is_an_error(
        self, wire_server: Any, steps: Any, capsys: pytest.CaptureFixture[str]
    ) -> None:
        wire_server.script = [steps.answer(b'{"ActionStatus":"OK","ErrorCode":0,"UserAttrs":[]}')]
        assert main(["get-attr", "a"], {"TENCENT_PUSH_BASE_URL": wire_server.base_url}) == 1
        assert capsys.readouterr().err == "a: the answer does not name this account\n"


class TestSettingsOfTheCommandLine:
    def test_without_credentials_and_without_an_emulators_address_it_says_what_to_set(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["attributes"], {}) == 1
        assert "No credentials are set. Set TENCENT_PUSH_SDKAPPID" in capsys.readouterr().err

    def test_half_set_credentials_are_one_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["attributes"], {"TENCENT_PUSH_SDKAPPID": "1"}) == 1
        assert len(capsys.readouterr().err.splitlines()) == 1

    def test_wrong_credentials_are_refused_with_the_remedy(
        self, environ: dict[str, str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        live = {
            "TENCENT_PUSH_SDKAPPID": "1400000000",
            "TENCENT_PUSH_IDENTIFIER": "administrator",
            "TENCENT_PUSH_SECRET_KEY": "planted-key",
        }
        assert main(["attributes"], {**environ, **live}) == 1
        error = capsys.readouterr().err
        assert "code 70009" in error
        assert "TENCENT_PUSH_SECRET_KEY" in error
        assert "planted-key" not in error

    def test_an_unreachable_target_is_one_line(self, closed_port: int, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["attributes"], {"TENCENT_PUSH_BASE_URL": f"http://127.0.0.1:{closed_port}"}) == 1
        assert "no connection could be made" in capsys.readouterr().err

    @pytest.mark.parametrize("arguments", [[], ["declare"], ["get-attr"], ["nonsense"]])
    def test_a_wrong_command_line_ends_with_2(self, arguments: list[str]) -> None:
        with pytest.raises(SystemExit) as caught:
            main(arguments, {})
        assert caught.value.code == 2


def test_the_emulators_own_command_line_is_reached(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["emulator", "--help"], {})
    assert caught.value.code == 0
    assert "--data" in capsys.readouterr().out


def test_the_module_runs_as_a_program(environ: dict[str, str]) -> None:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TENCENT_PUSH_")}
    run = subprocess.run(
        [sys.executable, "-m", "connectors.tencent_push", "declare", "city"],
        env={**inherited, **environ},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.startswith("city (user_id) declared\n1 of 10 attributes are in use on 127.0.0.1:")
