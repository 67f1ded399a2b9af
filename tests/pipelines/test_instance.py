"""Dagster's history has one folder per user, seeded once and then left to its owner."""

from pathlib import Path

import platformdirs
import pytest
import yaml

from pipelines.errors import DataFolderError
from pipelines.instance import SEED, dagster_home, dagster_instance


def test_the_named_folder_is_made_and_seeded(tmp_path: Path) -> None:
    home = dagster_home({"DAGSTER_HOME": str(tmp_path / "new" / "home")})
    assert home == tmp_path / "new" / "home"
    assert (home / "dagster.yaml").read_text(encoding="utf-8") == SEED
    assert [path.name for path in home.iterdir()] == ["dagster.yaml"]


def test_what_its_owner_changed_stays(tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: true}\n", encoding="utf-8")
    dagster_home({"DAGSTER_HOME": str(tmp_path)})
    assert (tmp_path / "dagster.yaml").read_text(encoding="utf-8") == "telemetry: {enabled: true}\n"


@pytest.mark.parametrize("environ", [{}, {"DAGSTER_HOME": " "}])
def test_without_a_name_it_is_the_users_own_state_folder(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(platformdirs, "user_state_dir", lambda name: str(tmp_path / name))
    assert dagster_home(environ) == tmp_path / "tencent-push-attribute-sync" / "dagster_home"


def test_a_relative_folder_is_refused() -> None:
    with pytest.raises(DataFolderError, match="DAGSTER_HOME is 'home'; Dagster asks for an absolute path"):
        dagster_home({"DAGSTER_HOME": "home"})


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataFolderError, match="file"):
        dagster_home({"DAGSTER_HOME": str(tmp_path / "file" / "home")})


def test_the_seed_asks_nothing_of_its_user_and_retries_nothing_by_itself() -> None:
    seed = yaml.safe_load(SEED)
    assert seed["telemetry"] == seed["nux"] == {"enabled": False}
    assert seed["run_retries"]["max_retries"] == 0
    assert seed["concurrency"]["pools"]["default_limit"] == 1


def test_dagster_takes_the_seed_and_keeps_its_history_there(tmp_path: Path) -> None:
    with dagster_instance({"DAGSTER_HOME": str(tmp_path)}) as instance:
        assert instance.is_persistent
        assert not instance.telemetry_enabled
        assert instance.get_runs() == []
        assert str(tmp_path) in instance.root_directory
