"""The environment becomes settings, or one clear error that names the variable; nothing is opened or made."""

from pathlib import Path

import dagster as dg
import pytest

from connectors.object_store.faults import ObjectStoreError
from connectors.tencent_push.errors import SettingsError
from pipelines.errors import ConfigurationError
from pipelines.resources import PROJECT_FOLDER, EnvironmentResource, environment_from, filled_in, push_pool

CREDENTIALS = {
    "TENCENT_PUSH_SDKAPPID": "1400000001",
    "TENCENT_PUSH_IDENTIFIER": "administrator",
    "TENCENT_PUSH_SECRET_KEY": "geheim",
}


def test_an_empty_environment_means_the_emulator_and_the_projects_own_data_folder() -> None:
    found = environment_from({})
    assert found.target.is_emulator
    assert found.target.calls_per_second == 100
    assert found.store.root == PROJECT_FOLDER / "data"
    assert found.memory_limit == "1GB"
    assert (PROJECT_FOLDER / "pipelines" / "resources.py").is_file()


def test_credentials_mean_a_live_app(tmp_path: Path) -> None:
    found = environment_from({**CREDENTIALS, "TENCENT_PUSH_REGION": "tokyo", "TENCENT_PUSH_CALLS_PER_SECOND": "50"})
    assert not found.target.is_emulator
    assert (found.target.host, found.target.sdkappid) == ("adminapijpn.im.qcloud.com", 1400000001)
    assert found.target.calls_per_second == 50
    assert "geheim" not in repr(found)


@pytest.mark.parametrize("missing", CREDENTIALS)
def test_half_set_credentials_name_what_is_missing(missing: str) -> None:
    with pytest.raises(SettingsError, match=missing) as caught:
        environment_from({name: value for name, value in CREDENTIALS.items() if name != missing})
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "root"),
    [
        ("/srv/sync", Path("/srv/sync")),
        ("  /srv/sync ", Path("/srv/sync")),
        ("~/sync", Path("~/sync").expanduser()),
        ("here", Path.cwd() / "here"),
        (" ", Path("/base/data")),
    ],
)
def test_the_data_folder_is_absolute(data: str, root: Path) -> None:
    assert environment_from({"ATTRIBUTE_SYNC_DATA": data}, base=Path("/base")).store.root == root


def test_an_address_is_a_data_folder_with_a_place_to_work_in(tmp_path: Path) -> None:
    """One for each address, so that what is acknowledged in one is never taken for the other's."""
    stores = {
        address: environment_from({"ATTRIBUTE_SYNC_DATA": address, "ATTRIBUTE_SYNC_WORK": str(tmp_path)}).store
        for address in ("s3://lake/sync", "s3://lake/sync2", "s3://lake", "gs://lake/sync")
    }
    assert {str(store): store.root.parent for store in stores.values()} == dict.fromkeys(stores, tmp_path)
    assert len({store.root for store in stores.values()}) == len(stores)
    assert (
        environment_from({"ATTRIBUTE_SYNC_DATA": "s3://lake/sync/"}).store.root.name
        == stores["s3://lake/sync"].root.name
    )
    assert environment_from({"ATTRIBUTE_SYNC_DATA": "s3://lake/sync"}).store.root.is_absolute()


def test_an_address_that_leads_nowhere_is_told_without_its_secrets() -> None:
    with pytest.raises(ObjectStoreError, match="Credentials and endpoints come from the environment") as caught:
        environment_from({"ATTRIBUTE_SYNC_DATA": "s3://planted:planted@lake/sync"})
    assert "planted" not in str(caught.value)


@pytest.mark.parametrize("slip", ["s3:/lake/sync", "S3://lake/sync", "file:///lake"])
def test_an_address_with_a_slip_is_no_folder(slip: str) -> None:
    with pytest.raises(ObjectStoreError, match="s3://"):
        environment_from({"ATTRIBUTE_SYNC_DATA": slip})


@pytest.mark.parametrize("memory", ["1GB", "512MB", "1.5 GiB", "100 KB", "2TB"])
def test_a_size_is_handed_to_the_engine_as_it_is(memory: str) -> None:
    assert environment_from({"ATTRIBUTE_SYNC_MEMORY": memory}).memory_limit == memory


@pytest.mark.parametrize("memory", ["much", "1", "GB", "-1GB", "1GB; DROP TABLE x", "80%", "1gb"])
def test_what_is_no_size_names_the_variable_and_an_example(memory: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        environment_from({"ATTRIBUTE_SYNC_MEMORY": memory})
    assert str(caught.value) == f"ATTRIBUTE_SYNC_MEMORY is {memory!r}; write a size such as 1GB or 512MB"


def test_nothing_is_made_by_reading_the_environment(tmp_path: Path) -> None:
    environment_from({"ATTRIBUTE_SYNC_DATA": str(tmp_path / "data")})
    assert list(tmp_path.iterdir()) == []


def test_the_resource_reads_the_environment_when_it_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in CREDENTIALS:
        monkeypatch.delenv(name, raising=False)
    resource = EnvironmentResource()
    monkeypatch.setenv("ATTRIBUTE_SYNC_DATA", str(tmp_path / "one"))
    assert resource.current().store.root == tmp_path / "one"
    monkeypatch.setenv("ATTRIBUTE_SYNC_DATA", str(tmp_path / "two"))
    assert resource.current().store.root == tmp_path / "two"


@pytest.mark.parametrize(
    ("environ", "pool"),
    [
        ({}, "tencent_push/emulator-1400000000"),
        (CREDENTIALS, "tencent_push/1400000001"),
        ({**CREDENTIALS, "TENCENT_PUSH_REGION": "tokyo"}, "tencent_push/1400000001"),
        ({**CREDENTIALS, "TENCENT_PUSH_SDKAPPID": "1400000002"}, "tencent_push/1400000002"),
        ({**CREDENTIALS, "TENCENT_PUSH_BASE_URL": "https://proxy.example"}, "tencent_push/1400000001"),
        ({**CREDENTIALS, "TENCENT_PUSH_BASE_URL": "http://127.0.0.1:80"}, "tencent_push/127.0.0.1_80-1400000001"),
        ({"TENCENT_PUSH_SDKAPPID": "1400000001"}, "tencent_push/settings_that_cannot_be_used"),
        ({"TENCENT_PUSH_REGION": "atlantis"}, "tencent_push/settings_that_cannot_be_used"),
    ],
)
def test_an_app_has_a_pool_of_its_own_and_unusable_settings_raise_nothing(environ: dict[str, str], pool: str) -> None:
    assert push_pool(environ) == pool

    @dg.op(pool=pool)
    def pushes() -> None: ...

    assert pushes.pool == pool, "Dagster takes it"


def test_the_resource_opens_outside_a_run() -> None:
    with dg.build_resources({"environment": EnvironmentResource()}) as opened:
        assert isinstance(opened.environment, EnvironmentResource)


def test_a_variable_is_read_from_the_file_that_its_namesake_names(tmp_path: Path) -> None:
    (tmp_path / "uri").write_text("postgresql://u:p{{ env.B }}@h/d\n", encoding="utf-8")
    environ = {"A_FILE": str(tmp_path / "uri"), "B": "set", "B_FILE": str(tmp_path / "uri"), "C_FILE": str(tmp_path)}
    assert filled_in("{{ env.A }}", environ) == "postgresql://u:p{{ env.B }}@h/d", "a secret is no template"
    assert filled_in("x{{env.B}}y{{ env.C }}{{ env.D }}", environ) == "xsety{{ env.C }}{{ env.D }}"
