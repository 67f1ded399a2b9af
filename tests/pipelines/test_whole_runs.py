"""Whole runs against the embedded emulator: what arrives, what a second night sends, and what is told."""

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipelines.sample_profiles import write_sample_profiles
from tests.reference import FAILED_ROW_COLUMNS, expect
from tests.running import Ran, emulator_state, example_attributes, make_sync, run

FAST = "2000"  # calls a second: the embedded emulator allows what the setting asks for


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "data"
    monkeypatch.setenv("ATTRIBUTE_SYNC_DATA", str(folder))
    monkeypatch.setenv("TENCENT_PUSH_CALLS_PER_SECOND", FAST)
    for name in ("TENCENT_PUSH_SDKAPPID", "TENCENT_PUSH_IDENTIFIER", "TENCENT_PUSH_SECRET_KEY"):
        monkeypatch.delenv(name, raising=False)
    return folder


def failed_rows_as_told(rows: list[dict[str, Any]]) -> Counter[tuple[Any, ...]]:
    return Counter(tuple(row[name] for name in FAILED_ROW_COLUMNS) for row in rows)


def test_200_000_sample_profiles_come_to_just_what_plain_python_says(tmp_path: Path, data: Path) -> None:
    files = write_sample_profiles(tmp_path / "profiles", rows=200_000, seed=1)
    attributes = example_attributes([str(file) for file in files])
    expected = expect(files, attributes)

    ran = run(make_sync(tmp_path, attributes))

    assert ran.succeeded, ran.failure
    assert all(ran.checks().values()), ran.checks()
    assert emulator_state(data) == expected.attributes
    assert failed_rows_as_told(ran.failed_rows) == failed_rows_as_told(expected.failed_rows)
    for kind, tally in ran.pushed.tallies.items():
        counts = expected.counts[kind.value]
        assert (tally.changed, tally.acknowledged, tally.rejected) == (
            counts.changed,
            counts.acknowledged,
            counts.rejected,
        )


def test_a_second_night_tries_the_unknown_accounts_alone_and_then_just_what_was_edited(
    tmp_path: Path, data: Path
) -> None:
    files = write_sample_profiles(tmp_path / "profiles", rows=10_000, seed=2)
    attributes = example_attributes([str(file) for file in files])
    sync = make_sync(tmp_path, attributes)
    first = expect(files, attributes)
    assert run(sync).succeeded

    second = run(sync)
    unknown = {row["account"] for row in first.failed_rows if row["reason"] == "account_unknown"}
    assert accounts_sent(second) == unknown
    assert sum(tally.acknowledged for tally in second.pushed.tallies.values()) == 0
    assert {row["failed_runs"] for row in second.failed_rows if row["reason"] == "account_unknown"} == {2}

    edited = edit_cities(files[0], known=set(first.attributes), count=10)
    third = run(sync)
    after = expect(files, attributes, acknowledged=first.attributes)
    assert accounts_sent(third) == unknown | edited
    assert {name for sent in changes(third).values() for name in sent["changed"]} >= {"city"}
    for account in edited:
        assert changes(third)[account]["changed"] == ["city"]
    assert emulator_state(data) == after.attributes


def accounts_sent(ran: Ran) -> set[str]:
    return set(changes(ran))


def changes(ran: Ran) -> dict[str, dict[str, Any]]:
    """The frames' rows by account: what this run asked Tencent to change."""
    rows = [row for frame in ran.pushed.frames.frames for row in pq.read_table(frame.path).to_pylist()]
    return {row["account"]: row for row in rows}


def edit_cities(file: Path, *, known: set[str], count: int) -> set[str]:
    """Gives `count` accounts without a device a new city in their newest profile; returns the accounts."""
    table = pq.read_table(file, partitioning=None)
    rows = table.to_pylist()
    seen = Counter(row["user_id"] for row in rows)
    chosen = [
        number
        for number, row in enumerate(rows)
        if row["user_id"] in known and seen[row["user_id"]] == 1 and row["device_id"] is None
    ][:count]
    is_chosen = pa.array([number in set(chosen) for number in range(len(rows))])
    cities = pc.if_else(is_chosen, pa.scalar("東京都千代田区"), table["city"])
    latest = pc.if_else(is_chosen, pc.max(table["updated_at"]), table["updated_at"])
    for name, column in (("city", cities), ("updated_at", latest)):
        table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), column)
    pq.write_table(table, file)
    return {rows[number]["user_id"] for number in chosen}


def test_an_empty_source_sends_nothing_and_leaves_an_empty_failed_rows_file(tmp_path: Path, data: Path) -> None:
    [*_, file] = write_sample_profiles(tmp_path / "profiles", rows=100, seed=3)
    pq.write_table(pq.read_table(file, partitioning=None).slice(0, 0), file)
    ran = run(make_sync(tmp_path, example_attributes(str(file))))
    assert ran.succeeded, ran.failure
    assert ran.failed_rows == []
    assert sum(report.calls.total() for report in ran.pushed.reports.values()) == 0


def test_every_asset_says_that_the_target_is_the_emulator(tmp_path: Path, data: Path) -> None:
    files = write_sample_profiles(tmp_path / "profiles", rows=300, seed=4)
    ran = run(make_sync(tmp_path, example_attributes([str(file) for file in files])))
    for asset in (
        "user_profiles",
        "user_id_attributes",
        "registration_id_attributes",
        "invalid_rows",
        "acknowledged_attributes",
        "failed_rows",
        "failure_report",
    ):
        assert ran.metadata(asset)["target"] == "emulator"
        assert ran.metadata(asset)["target_is_emulator"] is True
