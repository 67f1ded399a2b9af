"""Bad input in whole runs: one clear error that names the place and the remedy, and the state left as it was."""

import errno
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectors.tencent_push import ledger
from connectors.tencent_push.emulator import EMULATOR_CREDENTIALS, Emulator
from connectors.tencent_push.protocol import AccountType
from pipelines import frame_sets
from pipelines.attribute_sync import build_definitions
from pipelines.definitions import SHARED
from pipelines.frames import compute_frames
from tests.running import Ran, emulator_state, make_sync, run, write_profiles

ATTRIBUTES: dict[str, Any] = {
    "source": {"parquet": "profiles/*.parquet"},
    "updated_at": "updated_at",
    "accounts": {"user_id": {"column": "user_id", "attributes": {"city": "city", "level": {"column": "level"}}}},
}
PROFILES: dict[str, Any] = {
    "user_id": [f"u{number}" for number in range(500)],
    "city": ["深圳", "กรุงเทพ", "الرياض", "Genève", "👩‍🚀"] * 100,
    "level": list(range(500)),
    "updated_at": list(range(500)),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ATTRIBUTE_SYNC_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("TENCENT_PUSH_CALLS_PER_SECOND", "1000")
    write_profiles(tmp_path / "profiles/one.parquet", PROFILES)
    return tmp_path


def run_all(folder: Path, attributes: dict[str, Any] | None = None) -> Ran:
    return run(make_sync(folder, attributes or ATTRIBUTES))


def files_of(folder: Path) -> dict[str, bytes]:
    """What must not change: acknowledged attributes and the emulator's app."""
    kept = [*folder.glob("data/acknowledged/**/*"), *folder.glob("data/failed_rows/**/*")]
    return {str(path): path.read_bytes() for path in kept if path.is_file()}


def delete_the_profiles(folder: Path) -> str:
    (folder / "profiles/one.parquet").unlink()
    return "profiles/*.parquet"


def cut_a_file_short(folder: Path) -> str:
    path = folder / "profiles/two.parquet"
    path.write_bytes((folder / "profiles/one.parquet").read_bytes()[:-20])
    return str(path)


def damage_a_page(folder: Path) -> str:
    path = folder / "profiles/two.parquet"
    content = bytearray((folder / "profiles/one.parquet").read_bytes())
    for place in range(8, 400):
        content[place] ^= 0x5A
    path.write_bytes(content)
    return str(path)


def drop_a_column(folder: Path) -> str:
    write_profiles(folder / "profiles/one.parquet", {**PROFILES, "city": PROFILES["city"]} | {"town": PROFILES["city"]})
    table = pq.read_table(folder / "profiles/one.parquet").drop_columns(["level"])
    pq.write_table(table, folder / "profiles/one.parquet")
    return "'level'"


def take_the_engines_own_name(folder: Path) -> str:
    write_profiles(folder / "profiles/one.parquet", {**PROFILES, "file_row_number": [1] * 500})
    return "'file_row_number'"


def make_a_column_a_list(folder: Path) -> str:
    write_profiles(folder / "profiles/one.parquet", {**PROFILES, "city": [["深圳"]] * 500})
    return "'city' is list"


def make_a_column_binary(folder: Path) -> str:
    write_profiles(folder / "profiles/one.parquet", {**PROFILES, "city": pa.array([b"x"] * 500, pa.binary())})
    return "'city' is binary"


def make_a_column_floating(folder: Path) -> str:
    write_profiles(folder / "profiles/one.parquet", {**PROFILES, "level": [0.5] * 500})
    return "decimals"


SOURCE_FAULTS: list[Callable[[Path], str]] = [
    delete_the_profiles,
    cut_a_file_short,
    damage_a_page,
    take_the_engines_own_name,
    drop_a_column,
    make_a_column_a_list,
    make_a_column_binary,
    make_a_column_floating,
]


@pytest.mark.parametrize("fault", SOURCE_FAULTS, ids=lambda fault: fault.__name__)
def test_a_source_that_cannot_be_used_is_told_and_changes_nothing(fault: Callable[[Path], str], folder: Path) -> None:
    assert run_all(folder).succeeded
    before, state_before = files_of(folder), emulator_state(folder / "data")
    named = fault(folder)

    ran = run_all(folder)

    assert not ran.succeeded
    assert named in ran.failure
    assert "深圳" not in ran.failure
    assert files_of(folder) == before
    assert emulator_state(folder / "data") == state_before


@pytest.mark.parametrize("fault", SOURCE_FAULTS[4:], ids=lambda fault: fault.__name__)
def test_a_column_that_does_not_fit_is_told_with_its_line_of_the_yaml(
    fault: Callable[[Path], str], folder: Path
) -> None:
    fault(folder)
    sync = make_sync(folder, ATTRIBUTES)
    lines = sync.yaml_file.read_text(encoding="utf-8").splitlines()
    name = "city" if "city" in fault(folder) else "level"
    number = next(number for number, line in enumerate(lines, start=1) if line.strip().startswith(f"{name}:"))
    assert f"{sync.yaml_file}:{number}" in run(sync).failure


def test_all_mistakes_of_a_mapping_are_told_at_once(folder: Path) -> None:
    write_profiles(folder / "profiles/one.parquet", {**PROFILES, "city": [["x"]] * 500, "level": [0.5] * 500})
    failure = run_all(folder).failure
    assert "'city' is list" in failure
    assert "'level' is double" in failure


def live(monkeypatch: pytest.MonkeyPatch, base_url: str) -> None:
    monkeypatch.setenv("TENCENT_PUSH_SDKAPPID", str(EMULATOR_CREDENTIALS.sdkappid))
    monkeypatch.setenv("TENCENT_PUSH_IDENTIFIER", EMULATOR_CREDENTIALS.identifier)
    monkeypatch.setenv("TENCENT_PUSH_SECRET_KEY", EMULATOR_CREDENTIALS.secret_key)
    monkeypatch.setenv("TENCENT_PUSH_BASE_URL", base_url)


def test_a_target_that_cannot_be_reached_is_told_before_any_profile_is_compared(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    live(monkeypatch, f"http://127.0.0.1:{port}")
    ran = run_all(folder)
    assert not ran.succeeded
    assert f"get_attr_name had no readable answer from 127.0.0.1:{port}" in ran.failure
    assert not (folder / "data/frames").exists()


def test_what_the_app_does_not_declare_or_declares_otherwise_is_told_with_its_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Emulator(folder / "app.sqlite") as emulator:
        emulator.declare({"level": AccountType.REGISTRATION_ID, "spare": AccountType.USER_ID})
        live(monkeypatch, emulator.base_url)
        sync = make_sync(folder, ATTRIBUTES)
        ran = run(sync)
        assert emulator.calls.total == 1, "nothing but the preflight"
    assert not ran.succeeded
    lines = sync.yaml_file.read_text(encoding="utf-8").splitlines()
    for name, told in (
        ("city", "'city' is not declared in the app, which has level, spare"),
        ("level", "'level' is declared for registration_id, not for user_id"),
    ):
        number = next(number for number, line in enumerate(lines, start=1) if line.strip().startswith(f"{name}:"))
        assert f"{sync.yaml_file}:{number}: attribute {told}" in ran.failure
    assert "python -m connectors.tencent_push declare city:user_id" in ran.failure


def test_an_emulator_that_is_gone_is_told_with_what_remembers_it(folder: Path) -> None:
    assert run_all(folder).succeeded
    (folder / "data/emulator/nightly.sqlite").unlink()
    ran = run_all(folder)
    assert not ran.succeeded
    assert "nightly.sqlite is gone" in ran.failure
    shutil.rmtree(folder / "data/acknowledged/target=emulator-1400000000/sync=nightly")
    assert run_all(folder).succeeded
    assert len(emulator_state(folder / "data")) == 500


def test_a_variable_that_is_not_set_is_told_with_its_line(folder: Path) -> None:
    warehouse = {"uri": "{{ env.WAREHOUSE_URI_NOT_SET }}", "query": "select 1"}
    sync = make_sync(folder, {**ATTRIBUTES, "source": {"warehouse": warehouse}})
    assert f"{sync.yaml_file}:5: {{{{ env.WAREHOUSE_URI_NOT_SET }}}} has no value" in run(sync).failure
    storage = {"parquet": "s3://lake/p", "storage": {"endpoint": "{{ env.LAKE_ENDPOINT_NOT_SET }}"}}
    sync = make_sync(folder, {**ATTRIBUTES, "source": storage})
    assert f"{sync.yaml_file}:6: {{{{ env.LAKE_ENDPOINT_NOT_SET }}}} has no value" in run(sync).failure


def test_a_spoiled_failed_rows_file_is_no_history_and_stops_nothing(folder: Path) -> None:
    assert run_all(folder).succeeded
    for file in folder.glob("data/failed_rows/sync=nightly/date=*/*.parquet"):
        file.write_text("opened and saved by another program")
    assert run_all(folder).succeeded


def test_a_state_that_belongs_to_another_target_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_all(folder).succeeded
    acknowledged = folder / "data/acknowledged"
    shutil.copytree(acknowledged / "target=emulator-1400000000", acknowledged / "target=127.0.0.1_9-1400000000")
    before = files_of(folder)
    with Emulator(folder / "app.sqlite") as emulator:
        live(monkeypatch, emulator.base_url)
        shutil.copytree(
            acknowledged / "target=emulator-1400000000",
            acknowledged / f"target=127.0.0.1_{emulator.port}-1400000000",
        )
        emulator.declare({"city": AccountType.USER_ID, "level": AccountType.USER_ID})
        ran = run_all(folder)
        assert emulator.calls.total <= 1, "nothing but the preflight"
    assert not ran.succeeded
    assert "belongs to sync nightly, user_id, app 1400000000 at emulator" in ran.failure
    assert before.items() <= files_of(folder).items()


def test_a_disk_that_is_full_in_mid_push_stops_it_and_the_next_run_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = ledger._write_all
    written = iter(range(1_000_000))

    def until_full(descriptor: int, line: bytes) -> None:
        if next(written) >= 2:  # the header and the first batches still fit
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(descriptor, line)

    with monkeypatch.context() as full:
        full.setattr(ledger, "_write_all", until_full)
        ran = run_all(folder)
    assert not ran.succeeded
    assert "No space left on device" in ran.failure
    assert "Free space" in ran.failure
    assert "u17" not in ran.failure

    assert run_all(folder).succeeded
    assert len(emulator_state(folder / "data")) == 500


def test_a_source_that_changes_while_it_is_read_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def compute(*arguments: Any, **named: Any) -> Any:
        frames = compute_frames(*arguments, **named)
        write_profiles(folder / "profiles/one.parquet", {**PROFILES, "level": list(range(1, 501))})
        return frames

    monkeypatch.setattr(frame_sets, "compute_frames", compute)
    ran = run_all(folder)
    assert not ran.succeeded
    assert "one.parquet changed while the run was reading it" in ran.failure
    assert "acknowledged_attributes:conservation" not in ran.checks()


def test_pushing_old_frames_alone_is_refused_once_another_run_has_pushed(folder: Path) -> None:
    sync = make_sync(folder, ATTRIBUTES)
    with history_in(folder) as instance:
        first = run(sync, instance=instance)
        assert first.succeeded
        write_profiles(folder / "profiles/one.parquet", {**PROFILES, "level": list(range(1, 501))})
        assert run(sync).succeeded  # of another history: the frames on record stay the first run's

        again = run_push_alone(sync, instance)
        assert not again.succeeded
        assert "another run has pushed since these frames were computed" in again.failure
    assert emulator_state(folder / "data")["u7"]["level"] == "8"


def test_pushing_old_frames_alone_is_refused_though_the_state_was_removed_and_grew_anew(folder: Path) -> None:
    sync = make_sync(folder, ATTRIBUTES)
    with history_in(folder) as instance:
        assert run(sync).succeeded
        write_profiles(folder / "profiles/one.parquet", {**PROFILES, "level": list(range(1, 501))})
        assert run(sync, instance=instance).succeeded  # its frames stay on record
        shutil.rmtree(folder / "data/acknowledged")
        write_profiles(folder / "profiles/one.parquet", {**PROFILES, "level": list(range(2, 502))})
        assert run(sync).succeeded
        assert not run_push_alone(sync, instance).succeeded
    assert emulator_state(folder / "data")["u7"]["level"] == "9"


def test_pushing_the_same_frames_again_sends_nothing(folder: Path) -> None:
    sync = make_sync(folder, ATTRIBUTES)
    with history_in(folder) as instance:
        assert run(sync, instance=instance).succeeded
        again = run_push_alone(sync, instance)
        assert again.succeeded, again.failure
        assert all(again.checks().values())
        assert sum(report.calls.total() for report in again.pushed.reports.values()) == 0
        assert sum(again.pushed.passed_over.values()) == 500


def history_in(folder: Path) -> dg.DagsterInstance:
    (folder / "history").mkdir()
    return dg.DagsterInstance.local_temp(str(folder / "history"))


def run_push_alone(sync: Any, instance: dg.DagsterInstance) -> Ran:
    job = dg.Definitions.merge(build_definitions(sync), SHARED).resolve_job_def(sync.name)
    push = [sync.key(name) for name in ("acknowledged_attributes", "failed_rows", "failure_report", "push_calls")]
    return Ran(job.execute_in_process(instance=instance, raise_on_error=False, asset_selection=push), sync)
