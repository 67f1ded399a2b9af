"""The sink points at a live app, or at an emulator that lives as long as it is open and keeps its state."""

from pathlib import Path

import pytest

from connectors.tencent_push.client import Client, Credentials
from connectors.tencent_push.emulator import EMULATOR_CREDENTIALS, Emulator
from connectors.tencent_push.errors import TargetUnreachableError
from connectors.tencent_push.protocol import AccountType
from connectors.tencent_push.settings import Settings
from pipelines import target
from pipelines.errors import DataFolderError
from pipelines.store import Store
from pipelines.target import Target

USER, DEVICE = AccountType.USER_ID, AccountType.REGISTRATION_ID
EMBEDDED = Target(settings=None, calls_per_second=100)
APP = Credentials(EMULATOR_CREDENTIALS.sdkappid, EMULATOR_CREDENTIALS.identifier, EMULATOR_CREDENTIALS.secret_key)


def live(base_url: str, *, sdkappid: int = 1400000001) -> Target:
    credentials = Credentials(sdkappid, "administrator", "geheim")
    return Target(Settings(credentials, base_url=base_url), calls_per_second=100)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "emulator" / "app.sqlite"


# The emulator -------------------------------------------------------------------------------------------------------


def test_the_embedded_emulator_gets_the_attributes_that_it_lacks(file: Path) -> None:
    with EMBEDDED.open(file, {"city": USER}) as client:
        assert client.get_attr_name() == {"city": USER}
    with EMBEDDED.open(file, {"city": DEVICE, "note": DEVICE}) as client:
        assert client.get_attr_name() == {"city": USER, "note": DEVICE}  # a type never changes


def test_its_state_outlives_it(file: Path) -> None:
    with EMBEDDED.open(file, {"city": USER}) as client:
        assert client.set_attr([("u1", {"city": "上海"})]) == ()
    with EMBEDDED.open(file, {"city": USER}) as client:
        assert client.get_attr(["u1"]) == ({"u1": {"city": "上海"}}, ())
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_it_ends_with_the_block_also_after_an_error(file: Path) -> None:
    left: list[Client] = []
    with pytest.raises(RuntimeError), EMBEDDED.open(file, {}) as client:
        left.append(client)
        raise RuntimeError
    with pytest.raises(TargetUnreachableError):
        left[0].get_attr_name()


def test_attributes_beyond_the_ten_slots_are_left_to_the_preflight(file: Path) -> None:
    with EMBEDDED.open(file, {f"a{number}": USER for number in range(10)}):
        pass
    with EMBEDDED.open(file, {"eleventh": USER}) as client:
        assert "eleventh" not in client.get_attr_name()


@pytest.mark.parametrize("calls_per_second", [1.0, 100.0, 250.5])
def test_its_quota_is_never_below_what_is_sent(file: Path, calls_per_second: float) -> None:
    with Target(None, calls_per_second).open(file, {"city": USER}) as client:
        for _ in range(int(max(calls_per_second, 100) // 2)):
            client.get_attr(["u1"])


def test_a_file_that_is_not_the_emulators_is_told(file: Path) -> None:
    file.parent.mkdir()
    file.write_bytes(b"not a database" * 100)
    with pytest.raises(DataFolderError, match=r"app\.sqlite cannot be used"), EMBEDDED.open(file, {}):
        pass


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "emulator").touch()
    with pytest.raises(DataFolderError, match="emulator"), EMBEDDED.open(tmp_path / "emulator" / "app.sqlite", {}):
        pass


# A live app ---------------------------------------------------------------------------------------------------------


def test_a_live_app_is_never_changed_by_opening_it(tmp_path: Path) -> None:
    with Emulator(tmp_path / "app.sqlite") as emulator:
        target = Target(Settings(APP, base_url=emulator.base_url), calls_per_second=100)
        assert not target.is_emulator
        with target.open(tmp_path / "unused.sqlite", {"city": USER}) as client:
            assert client.get_attr_name() == {}
    assert not (tmp_path / "unused.sqlite").exists()


def test_opening_a_live_app_sends_nothing(tmp_path: Path) -> None:
    """Nobody listens at this address."""
    with live("http://127.0.0.1:9").open(tmp_path / "unused.sqlite", {"city": USER}):
        pass


# Names --------------------------------------------------------------------------------------------------------------


def test_every_app_at_every_host_has_a_name_of_its_own() -> None:
    targets = [
        EMBEDDED,
        live("https://console.tim.qq.com"),
        live("https://console.tim.qq.com", sdkappid=1400000002),
        live("https://adminapijpn.im.qcloud.com"),
        live("http://127.0.0.1:8080"),
        live("http://127.0.0.1:8081"),
    ]
    names = [target.name for target in targets]
    assert len(set(names)) == len(names)
    assert names[:2] == ["emulator-1400000000", "console.tim.qq.com-1400000001"]
    assert names[4] == "127.0.0.1_8080-1400000001"
    assert not [name for name in names if set(name) & set('/\\:*?"<>|')]


def test_an_app_has_one_quota_whatever_address_its_calls_go_to_but_test_servers_are_many() -> None:
    assert live("https://console.tim.qq.com").quota_name == live("https://proxy.example").quota_name == "1400000001"
    assert live("https://console.tim.qq.com", sdkappid=1400000002).quota_name == "1400000002"
    for server in (live("http://127.0.0.1:8080"), live("http://localhost:8081"), EMBEDDED):
        assert server.quota_name == server.name


def test_a_live_app_has_one_lock_on_the_machine_and_one_in_each_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, store = live("https://console.tim.qq.com"), Store(tmp_path / "data")
    before = app.machine_lock()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another user's"))
    assert before is not None
    assert before == app.machine_lock() == live("https://proxy.example").machine_lock()
    assert before.name == "1400000001.lock"
    assert app.data_lock(store).is_relative_to(store.root)
    assert app.data_lock(store) != app.data_lock(Store(tmp_path / "other"))


def test_the_emulator_is_held_by_its_data_folder_alone(tmp_path: Path) -> None:
    assert EMBEDDED.machine_lock() is None
    assert EMBEDDED.data_lock(Store(tmp_path)) == tmp_path / "locks/emulator-1400000000.lock"


def test_users_meet_in_the_first_folder_where_all_of_them_may_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes = {"missing": None, "administrators": 0o755, "open, but anybody may remove": 0o777, "for all": 0o1777}
    for name, mode in modes.items():
        if mode is not None:
            (tmp_path / name).mkdir()
            (tmp_path / name).chmod(mode)
    monkeypatch.setattr(target, "MEETING_PLACES", [tmp_path / name for name in modes])
    assert target.meeting_place() == tmp_path / "for all"
    monkeypatch.setattr(target, "MEETING_PLACES", [tmp_path / "missing"])
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    assert target.meeting_place() == tmp_path / "temporary"


def test_no_text_of_a_target_holds_its_key() -> None:
    target = live("https://console.tim.qq.com")
    assert "geheim" not in repr(target) + target.name + target.host
