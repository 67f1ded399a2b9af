"""Whole runs over the layouts people have: hive partitions as columns, the newest or a chosen one, a list."""

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from pipelines.runs import PARTITION
from tests.project import Project
from tests.running import Ran, emulator_state, make_sync, run, write_profiles


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ATTRIBUTE_SYNC_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TENCENT_PUSH_CALLS_PER_SECOND", "1000")
    return tmp_path


def put(folder: Path, place: str, users: Sequence[str], *, success: bool = False, **columns: Any) -> Path:
    columns = {"city": [f"上海 {user}" for user in users], **columns}
    path = write_profiles(folder / place / "part-0.parquet", {"user": list(users), **columns})
    if success:
        (path.parent / "_SUCCESS").touch()
    return path


def ran(
    folder: Path,
    *,
    partition: object = None,
    attributes: dict[str, Any] | None = None,
    where: dict[str, Any] | None = None,
    source: str | list[str] = "lake",
    tags: dict[str, str] | None = None,
    **more: Any,
) -> Ran:
    user = {"column": "user", "where": where or {}, "attributes": attributes or {"city": "city"}}
    described = {"parquet": source, **({"partition": partition} if partition else {})}
    return run(make_sync(folder, {"source": described, "accounts": {"user_id": user}, **more}), tags=tags)


def test_a_partition_can_be_an_attribute_and_a_filter(folder: Path) -> None:
    put(folder, "lake/dt=2026-11-20/tier=1", ["u1"])
    put(folder, "lake/dt=2026-11-21/tier=2", ["u2", "u3"])
    put(folder, "lake/dt=2026-11-21/tier=3", ["u4"])
    everything = ran(folder, attributes={"city": "city", "day": "dt", "tier": "tier"}, where={"tier": 2})
    assert everything.succeeded, everything.failure
    by_date = ran(folder, attributes={"city": "city", "day": "dt", "tier": "tier"}, where={"dt": date(2026, 11, 20)})
    assert by_date.succeeded, by_date.failure
    assert emulator_state(folder / "data") == {
        "u1": {"city": "上海 u1", "day": "2026-11-20", "tier": "1"},
        "u2": {"city": "上海 u2", "day": "2026-11-21", "tier": "2"},
        "u3": {"city": "上海 u3", "day": "2026-11-21", "tier": "2"},
    }


def test_a_partition_can_tell_the_newest_profile_and_hold_the_account(folder: Path) -> None:
    put(folder, "lake/dt=2026-11-21/a", ["u1"], city=["new"])
    put(folder, "lake/dt=2026-11-20/b", ["u1"], city=["old"])
    assert ran(folder, source=["lake/dt=2026-11-21", "lake/dt=2026-11-20"], updated_at="dt").succeeded
    assert emulator_state(folder / "data") == {"u1": {"city": "new"}}
    user = {"column": "name", "attributes": {"city": "city"}}
    put(folder, "named/name=用户", ["x"], city=["Bonn"])
    assert run(
        make_sync(folder, {"source": {"parquet": "named"}, "accounts": {"user_id": user}}, name="by_name")
    ).succeeded
    assert emulator_state(folder / "data", "by_name") == {"用户": {"city": "Bonn"}}


def test_the_files_own_column_goes_before_the_folders(folder: Path) -> None:
    put(folder, "lake/city=7", ["u1"], city=["Bonn"])
    assert ran(folder).succeeded
    assert emulator_state(folder / "data") == {"u1": {"city": "Bonn"}}


def test_only_the_newest_complete_partition_is_read_and_the_metadata_say_which(folder: Path) -> None:
    put(folder, "lake/dt=2026-11-20", ["u1"], success=True)
    put(folder, "lake/dt=2026-11-21", ["u2"])
    found = ran(folder, partition="latest")
    assert found.succeeded, found.failure
    facts = found.metadata("user_profiles")
    assert facts["partition"] == "dt=2026-11-20"
    assert facts["partitions_passed_over"] == "dt=2026-11-21: no _SUCCESS, which older ones have"
    assert set(emulator_state(folder / "data")) == {"u1"}
    (folder / "lake/dt=2026-11-21/_SUCCESS").touch()
    facts = ran(folder, partition="latest").metadata("user_profiles")
    assert (facts["partition"], facts.get("partitions_passed_over")) == ("dt=2026-11-21", None)
    assert set(emulator_state(folder / "data")) == {"u1", "u2"}


@pytest.mark.parametrize("partition", ["latest", None])
def test_a_run_can_read_a_partition_that_its_tag_names(folder: Path, partition: str | None) -> None:
    for day in (1, 2, 3):
        put(folder, f"lake/dt={day}", [f"u{day}"])
    found = ran(folder, partition=partition, tags={PARTITION: "dt=2"})
    assert found.metadata("user_profiles")["partition"] == "dt=2"
    assert set(emulator_state(folder / "data")) == {"u2"}


def test_a_partition_that_is_not_there_is_told_with_the_line(folder: Path) -> None:
    put(folder, "lake/dt=1", ["u1"])
    found = ran(folder, tags={PARTITION: "dt=7"})
    assert not found.succeeded
    assert "defs.yaml:4: No file of the source lies in dt=7. The last of those that are there: dt=1." in found.failure


def test_a_warehouse_has_no_partition_to_choose(folder: Path) -> None:
    warehouse = {"warehouse": {"uri": "duckdb:///nothing.duckdb", "query": "select 1"}}
    user = {"column": "user", "attributes": {"city": "city"}}
    found = run(make_sync(folder, {"source": warehouse, "accounts": {"user_id": user}}), tags={PARTITION: "dt=7"})
    assert "defs.yaml:4: a warehouse has no partition 'dt=7'" in found.failure


def test_an_account_that_the_newest_partition_lacks_is_departed(folder: Path) -> None:
    """Right where each partition holds everybody, and what `departed: remove` then asks for."""
    put(folder, "lake/dt=1", ["u1", "u2"])
    assert ran(folder, partition="latest", departed="remove").succeeded
    put(folder, "lake/dt=2", ["u2"])
    assert ran(folder, partition="latest", departed="remove").succeeded
    assert emulator_state(folder / "data") == {"u2": {"city": "上海 u2"}}


def test_a_list_of_folders_is_read_in_its_order(folder: Path) -> None:
    put(folder, "lake/us", ["u1", "u2"], city=["Boston", "Austin"])
    put(folder, "lake/eu", ["u2", "u3"], city=["Bonn", "Łódź"])
    assert ran(folder, source=["lake/us", "lake/eu"]).succeeded
    cities = {user: held["city"] for user, held in emulator_state(folder / "data").items()}
    assert cities == {"u1": "Boston", "u2": "Bonn", "u3": "Łódź"}


def test_the_command_line_chooses_a_partition_for_a_run_and_for_a_plan(tmp_path: Path) -> None:
    project = Project.copy_to(tmp_path / "project")
    for day in (20, 21):
        project.run("-m", "pipelines.sample_profiles", "--rows", str(day), f"data/sample_profiles/dt=2026-11-{day}")
    project.edit_yaml("sample_profiles/*.parquet", "sample_profiles")
    for command in ("plan", "run"):
        told = project.run("-m", "pipelines", command, "example", "--partition", "dt=2026-11-20")
        assert told.returncode == 0, told.stderr
        assert "partition dt=2026-11-20" in told.stderr
        assert "20 profiles in" in told.stderr
