"""The failed rows keep their columns, say what happened to whom, and remember since when."""

import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectors.tencent_push.errors import Reason as RefusalReason
from connectors.tencent_push.errors import lookup
from connectors.tencent_push.outcomes import Outcome, OutcomeKind
from connectors.tencent_push.protocol import AccountType, Command
from pipelines.engine import Engine
from pipelines.failed_rows import RunFacts, latest_before, write_failed_rows
from pipelines.refusals import RefusalWriter
from tests.pipelines.frame_cases import Row, compute, sync_of, write_source
from tests.pipelines.refusal_cases import FAILED, outcome, refusal

TIME = pa.timestamp("us", "UTC")
CONTRACT = {
    "run_id": pa.string(), "sync": pa.string(), "target": pa.string(),
    "run_started_at": TIME, "failed_at": TIME,
    "stage": pa.string(), "severity": pa.string(), "outcome": pa.string(),
    "account": pa.string(), "account_type": pa.string(),
    "attribute": pa.string(), "column": pa.string(), "reason": pa.string(),
    "error_code": pa.int32(), "error_info": pa.string(),
    "explanation": pa.string(), "fix": pa.string(), "retryable": pa.bool_(),
    "value": pa.string(), "sent_value": pa.string(), "value_bytes": pa.int32(),
    "source_file": pa.string(), "source_row": pa.int64(),
    "batch_id": pa.string(), "call_attempts": pa.int32(), "http_status": pa.int32(),
    "first_failed_at": TIME, "failed_runs": pa.int32(),
}  # fmt: skip
SYNC: dict[str, Any] = {
    "accounts": {
        "user_id": {"column": "user", "attributes": {"city": {"column": "town", "too_long": "truncate"}}},
        "registration_id": {"column": "device", "attributes": {"device_city": "town"}},
    }
}
SCHEMA = pa.schema([("user", pa.string()), ("device", pa.string()), ("town", pa.string())])
STARTED = datetime(2026, 1, 1, 2, tzinfo=UTC)
USER, DEVICE = AccountType.USER_ID, AccountType.REGISTRATION_ID


def write(
    engine: Engine,
    folder: Path,
    rows: Sequence[Row],
    *,
    refused: Sequence[tuple[Outcome, AccountType]] = (),
    day: int = 0,
    history: Path | None = None,
    target: str = "emulator",
    zone: tzinfo = UTC,
) -> Path:
    """The failed-rows file of one run over `rows`, after a push that refused `refused`."""
    folder = folder / f"run-{day}"
    folder.mkdir()
    computed = compute(engine, write_source(folder, rows, schema=SCHEMA), SYNC)
    with RefusalWriter(folder / "refusals.parquet") as writer:
        for each, kind in refused:
            writer.add([each], kind)
    path = folder / "failed_rows.parquet"
    moment = (STARTED + timedelta(days=day)).astimezone(zone)
    written = write_failed_rows(
        engine,
        path,
        facts=RunFacts(
            f"run-{day}",
            "small",
            target,
            f"{target}-1",
            run_started_at=moment,
            validated_at=moment + timedelta(minutes=1),
        ),
        mapping=sync_of(SYNC),
        invalid_rows=computed.frames.invalid_rows,
        refused=engine.parquet("refused", folder / "refusals.parquet"),
        frames={frame.account_type: frame.path for frame in computed.frames.frames},
        history=history,
    )
    assert written == pq.read_metadata(path).num_rows
    return path


def read(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return sorted(
        rows, key=lambda row: (row["stage"], row["source_row"], row["account_type"] or "", row["attribute"] or "")
    )


@pytest.mark.parametrize("rows", [[], [{"user": "u1", "town": "x" * 51}]], ids=["empty", "one row"])
def test_the_files_columns_are_the_contract_also_when_it_is_empty(
    engine: Engine, tmp_path: Path, rows: list[Row]
) -> None:
    path = write(engine, tmp_path, rows)
    schema = pq.read_schema(path)
    assert dict(zip(schema.names, schema.types, strict=True)) == CONTRACT
    assert pq.read_metadata(path).metadata[b"schema_version"] == b"1"
    assert pq.read_metadata(path).num_rows == len(rows)


def test_a_row_of_the_validation_says_what_was_cut_and_where(engine: Engine, tmp_path: Path) -> None:
    (row,) = read(write(engine, tmp_path, [{"user": "u0"}, {"user": "u1", "town": "上" * 17}]))
    explanation, fix = row.pop("explanation"), row.pop("fix")
    assert explanation.endswith(".")
    assert fix.endswith(".")
    assert row == {
        "run_id": "run-0", "sync": "small", "target": "emulator",
        "run_started_at": STARTED, "failed_at": STARTED + timedelta(minutes=1),
        "stage": "validate", "severity": "notice", "outcome": None,
        "account": "u1", "account_type": "user_id", "attribute": "city", "column": "town",
        "reason": "value_truncated", "error_code": None, "error_info": None, "retryable": False,
        "value": "上" * 17, "sent_value": "上" * 16, "value_bytes": 51,
        "source_file": str(tmp_path / "run-0" / "0.parquet"), "source_row": 1,
        "batch_id": None, "call_attempts": None, "http_status": None,
        "first_failed_at": STARTED + timedelta(minutes=1), "failed_runs": 1,
    }  # fmt: skip


def test_a_row_of_the_push_says_whose_it_is_and_what_tencent_said(engine: Engine, tmp_path: Path) -> None:
    rows = [{"user": "u0", "town": "Bonn"}, {"device": "d1", "town": "Bonn"}]
    (row,) = read(write(engine, tmp_path, rows, refused=[(outcome(0, refusal()), DEVICE)]))
    entry = lookup(70107)
    assert row == {
        "run_id": "run-0", "sync": "small", "target": "emulator", "run_started_at": STARTED, "failed_at": FAILED,
        "stage": "push", "severity": "error", "outcome": "rejected",
        "account": "d1", "account_type": "registration_id", "attribute": None, "column": "device",
        "reason": "account_unknown", "error_code": 70107, "error_info": "no such user",
        "explanation": entry.meaning, "fix": entry.fix, "retryable": entry.retryable,
        "value": None, "sent_value": None, "value_bytes": None,
        "source_file": str(tmp_path / "run-0" / "0.parquet"), "source_row": 1,
        "batch_id": "b-1", "call_attempts": 1, "http_status": 200,
        "first_failed_at": FAILED, "failed_runs": 1,
    }  # fmt: skip


def test_a_change_that_failed_twice_is_two_rows_and_validations_rows_stand_beside_them(
    engine: Engine, tmp_path: Path
) -> None:
    stopped = {"kind": OutcomeKind.NOT_ATTEMPTED, "reason": RefusalReason.RUN_STOPPED, "code": None, "info": None,
               "http_status": None, "batch_id": None, "call_attempts": 0}  # fmt: skip
    refused = [(outcome(0, refusal(), refusal(Command.REMOVE_ATTR, **stopped)), USER)]
    rows = read(write(engine, tmp_path, [{"user": "u0", "town": "Bonn"}, {"town": "x"}], refused=refused))
    assert [(row["stage"], row["account"], row["reason"], row["outcome"]) for row in rows] == [
        ("push", "u0", "account_unknown", "rejected"),
        ("remove", "u0", "run_stopped", "not_attempted"),
        ("validate", None, "account_missing", "invalid"),
    ]
    assert (rows[1]["error_code"], rows[1]["http_status"], rows[1]["call_attempts"]) == (None, None, 0)


# History ------------------------------------------------------------------------------------------------------------


def test_a_failure_remembers_since_when_and_in_how_many_runs(engine: Engine, tmp_path: Path) -> None:
    failing: list[Row] = [{"user": "u0", "town": "a\n"}, {"user": "u1", "town": "b"}]
    refused = [(outcome(0, refusal()), USER)]
    history = None
    for day in range(3):
        history = write(engine, tmp_path, failing, refused=refused, day=day, history=history)
        rows = read(history)
        assert [row["failed_runs"] for row in rows] == [day + 1] * len(rows)
    assert [(row["reason"], row["first_failed_at"]) for row in rows] == [
        ("account_unknown", FAILED),
        ("value_invalid", STARTED + timedelta(minutes=1)),
    ]
    rows = read(write(engine, tmp_path, [{"user": "u0", "town": "x" * 51}], day=3, history=history))
    assert [row["failed_runs"] for row in rows] == [1]  # another reason is another failure


def test_equal_failures_of_one_account_do_not_multiply(engine: Engine, tmp_path: Path) -> None:
    rows: list[Row] = [{"user": "u0", "town": str(number)} for number in range(4)]
    first = write(engine, tmp_path, rows)
    second = read(write(engine, tmp_path, rows, day=1, history=first))
    assert [(row["reason"], row["failed_runs"]) for row in second] == [("superseded", 2)] * 3


def test_a_row_without_account_has_no_history(engine: Engine, tmp_path: Path) -> None:
    first = write(engine, tmp_path, [{"town": "x"}])
    (row,) = read(write(engine, tmp_path, [{"town": "x"}], day=1, history=first))
    assert (row["failed_runs"], row["first_failed_at"]) == (1, row["failed_at"])


def test_another_targets_failures_are_no_history(engine: Engine, tmp_path: Path) -> None:
    first = write(engine, tmp_path, [{"user": "u0", "town": "a\n"}], target="console.tim.qq.com")
    rows = read(write(engine, tmp_path, [{"user": "u0", "town": "a\n"}], day=1, history=first))
    assert [row["failed_runs"] for row in rows] == [1]


def test_the_run_before_is_the_newest_other_run_against_the_same_target(engine: Engine, tmp_path: Path) -> None:
    folder = tmp_path / "sync=nightly"

    def before(run_id: str, target: str = "emulator") -> str | None:
        found = latest_before(folder, run_id=run_id, app=f"{target}-1")
        return found.stem if found else None

    assert before("run-3") is None
    for day, target in enumerate(("emulator", "emulator", "console.tim.qq.com")):
        written = write(engine, tmp_path, [{"user": "u0", "town": "a\n"}], day=day, target=target)
        (folder / f"date=2026-01-0{day + 1}").mkdir(parents=True)
        written.rename(folder / f"date=2026-01-0{day + 1}" / f"kept-{day}.parquet")
    (folder / "date=2026-01-03" / "notes.parquet").write_text("no Parquet at all")
    os.utime(folder / "date=2026-01-01/kept-0.parquet", None)  # copied back from somewhere
    assert before("run-4") == "kept-1"
    assert before("run-1") == "kept-0"
    assert before("run-4", "console.tim.qq.com") == "kept-2"
    assert before("run-4", "adminapisgp.im.qcloud.com") is None


def test_moments_are_utc_whatever_zone_they_came_in(engine: Engine, tmp_path: Path) -> None:
    (row,) = read(write(engine, tmp_path, [{"user": "u0", "town": "a\n"}], zone=ZoneInfo("Asia/Shanghai")))
    assert row["run_started_at"] == STARTED
    assert row["run_started_at"] < row["failed_at"]


# Refusals -----------------------------------------------------------------------------------------------------------
