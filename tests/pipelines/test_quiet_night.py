"""A night in which nothing has changed makes no call and writes next to nothing, however many profiles there are."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from connectors.tencent_push.emulator import EMULATOR_CREDENTIALS, Emulator
from connectors.tencent_push.protocol import AccountType, Command
from pipelines import acknowledged, folding
from pipelines.narrow import CONTENT
from pipelines.sample_profiles import write_sample_profiles
from tests.running import Ran, example_attributes, make_sync, run, write_profiles

EMPTY_FRAME_BYTES = 4_096
Files = Mapping[Path, tuple[int, int]]  # bytes, nanoseconds of the last change


@pytest.fixture
def app(tmp_path: Path, live_app: Emulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """An app that knows every account: those that it does not know are tried every night."""
    with Emulator(tmp_path / "knowing.sqlite", calls_per_second=None, unknown_accounts=()) as emulator:
        monkeypatch.setenv("TENCENT_PUSH_BASE_URL", emulator.base_url)
        monkeypatch.setenv("TENCENT_PUSH_SDKAPPID", str(EMULATOR_CREDENTIALS.sdkappid))
        yield emulator


def writing_calls(app: Emulator) -> int:
    return len(app.calls.of(Command.SET_ATTR)) + len(app.calls.of(Command.REMOVE_ATTR))


def files_of(data: Path) -> Files:
    """Everything that is kept; locks hold no data."""
    found = [file for file in data.rglob("*") if file.is_file() and file.parent.name != "locks"]
    return {file: (file.stat().st_size, file.stat().st_mtime_ns) for file in found}


def written(before: Files, after: Files) -> dict[Path, int]:
    return {file: facts[0] for file, facts in after.items() if before.get(file) != facts}


def test_a_night_without_changes_makes_no_call_and_writes_no_frame_and_no_state(tmp_path: Path, app: Emulator) -> None:
    files = write_sample_profiles(tmp_path / "profiles", rows=5_000, seed=5)
    sync = make_sync(tmp_path, example_attributes([str(file) for file in files]))
    app.declare(sync.mapping.declared())
    assert run(sync).succeeded
    calls, before = writing_calls(app), files_of(tmp_path / "data")
    assert calls > 50

    ran = run(sync)
    assert ran.succeeded, ran.failure
    assert writing_calls(app) == calls
    news = written(before, files_of(tmp_path / "data"))
    assert not [file for file in news if "acknowledged" in file.parts], "no part, and the state is as it was"
    for frame in ran.pushed.frames.frames:
        assert (frame.rows, pq.read_metadata(frame.path).num_rows) == (0, 0)
        assert news[frame.path] < EMPTY_FRAME_BYTES
    assert pq.read_metadata(ran.pushed.push_calls).num_rows == 0
    reported = pq.read_metadata(ran.pushed.frames.invalid_rows).num_rows
    assert pq.read_metadata(ran.pushed.failed_rows).num_rows == reported == ran.pushed.frames.invalid_found
    rest = sum(news.values()) - news[ran.pushed.frames.invalid_rows] - news[ran.pushed.failed_rows]
    assert rest < 40_000, "whatever else is written does not grow with the profiles"


def nights(folder: Path, *, clean: int, flawed: int) -> tuple[Ran, int]:
    """The second of two equal nights, and the bytes that it wrote; clean profiles come first."""
    users = [f"کاربر-{number}" for number in range(clean + flawed)]
    cities = [f"城市-{number}" for number in range(clean)] + [f"{number:05}" + "長" * 20 for number in range(flawed)]
    write_profiles(folder / "profiles.parquet", {"user_id": users, "city": cities})
    accounts: dict[str, Any] = {"user_id": {"column": "user_id", "attributes": {"city": "city"}}}
    sync = make_sync(folder, {"source": {"parquet": "profiles.parquet"}, "accounts": accounts})
    assert run(sync).succeeded
    before = files_of(folder / "data")
    ran = run(sync)
    assert ran.succeeded, ran.failure
    return ran, sum(written(before, files_of(folder / "data")).values())


def written_with(
    tmp_path: Path, app: Emulator, monkeypatch: pytest.MonkeyPatch, *, clean: int, flawed: int
) -> tuple[int, int]:
    """Rows and bytes that a quiet night writes, in a data folder of its own."""
    folder = tmp_path / f"{clean}-{flawed}"
    monkeypatch.setenv("ATTRIBUTE_SYNC_DATA", str(folder / "data"))
    app.declare({"city": AccountType.USER_ID})
    ran, size = nights(folder, clean=clean, flawed=flawed)
    return pq.read_metadata(ran.pushed.frames.invalid_rows).num_rows, size


def test_what_a_quiet_night_writes_grows_with_what_is_reported_and_with_nothing_else(
    tmp_path: Path, app: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = written_with(tmp_path, app, monkeypatch, clean=400, flawed=20)
    many = written_with(tmp_path, app, monkeypatch, clean=8_000, flawed=20)
    assert few[0] == many[0] == 20
    assert abs(many[1] - few[1]) < 1_000, "twenty times the profiles, the same bytes"
    worse = written_with(tmp_path, app, monkeypatch, clean=400, flawed=2_000)
    assert worse[0] == 2_000
    assert worse[1] > few[1] + 10_000


def test_a_state_that_changed_for_nothing_would_be_seen(
    tmp_path: Path, app: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guard broken on purpose: without their digests, all profiles are learned anew and a part is written."""
    original = folding.touched

    def without_digests(*given: Any, **named: Any) -> Any:
        rows = original(*given, **named)
        return rows.mutate(**{CONTENT: rows[CONTENT].nullif(rows[CONTENT])})

    monkeypatch.setattr(acknowledged, "touched", without_digests)
    small = written_with(tmp_path, app, monkeypatch, clean=400, flawed=0)
    large = written_with(tmp_path, app, monkeypatch, clean=4_000, flawed=0)
    assert large[1] > small[1] + 10_000
