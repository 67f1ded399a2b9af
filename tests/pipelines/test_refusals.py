"""The push's refusals as rows: explained for people, collected in chunks, and alike ones made by the engine."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectors.tencent_push.client import CallResult, Fault
from connectors.tencent_push.errors import CATALOGUE
from connectors.tencent_push.errors import Reason as RefusalReason
from connectors.tencent_push.outcomes import FAULT_REASONS, OutcomeKind, settle
from connectors.tencent_push.protocol import AccountType, Command
from pipelines.engine import Engine
from pipelines.errors import DataFolderError
from pipelines.reasons import EXPLAINED_REFUSALS
from pipelines.refusals import REFUSAL_SCHEMA, RefusalWriter, not_attempted, refusal_row, refused_before
from tests.pipelines.refusal_cases import FAILED, outcome, refusal

USER = AccountType.USER_ID


def test_every_code_of_the_catalogue_is_explained_as_the_catalogue_does() -> None:
    for code, entry in CATALOGUE.items():
        row = refusal_row(0, refusal(code=code, reason=entry.reason), USER)
        assert (row["explanation"], row["fix"], row["retryable"]) == (entry.meaning, entry.fix, entry.retryable)


def test_whatever_befalls_a_call_has_its_explanation() -> None:
    assert {reason for reason, _ in FAULT_REASONS.values()} <= set(EXPLAINED_REFUSALS)
    for status in (204, 302, 404, 408, 429, 500, 502):
        settled = settle(("u0",), CallResult(None, Fault.HTTP_STATUS, f"HTTP {status}", status, 0.1))
        causes = [*settled.resend.values(), *settled.errored.values()]
        assert [cause.reason in EXPLAINED_REFUSALS for cause in causes] == [True]


@pytest.mark.parametrize("reason", EXPLAINED_REFUSALS)
def test_a_refusal_without_a_code_is_explained_and_can_be_tried_again(reason: RefusalReason) -> None:
    row = refusal_row(0, refusal(code=None, reason=reason), USER)
    assert row["explanation"].endswith(".")
    assert row["fix"].endswith(".")
    assert row["retryable"] is True


def test_refusals_are_collected_in_chunks_and_keep_their_nulls(tmp_path: Path) -> None:
    path = tmp_path / "below" / "refusals.parquet"
    without_code = refusal(code=None, reason=RefusalReason.TIMEOUT, info=None, http_status=None)
    with RefusalWriter(path) as writer:
        for start in range(0, 25_000, 1_000):
            writer.add([outcome(n, refusal() if n % 2 else without_code) for n in range(start, start + 1_000)], USER)
    table = pq.read_table(path)
    assert table["number"].to_pylist() == list(range(25_000))
    assert table["error_code"].to_pylist() == [None, 70107] * 12_500
    assert table.schema.field("error_code").type == pa.int32()
    assert pq.read_metadata(path).num_row_groups == 3


def test_a_push_without_refusals_leaves_an_empty_file(tmp_path: Path) -> None:
    with RefusalWriter(tmp_path / "refusals.parquet"):
        pass
    assert pq.read_metadata(tmp_path / "refusals.parquet").num_rows == 0


def test_a_full_disk_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "refusals.parquet"
    path.symlink_to("/dev/full")
    with pytest.raises(DataFolderError, match="free space or point ATTRIBUTE_SYNC_DATA"), RefusalWriter(path) as writer:
        writer.add([outcome(0, refusal())], USER)


def test_rows_that_were_never_sent_are_what_the_sink_says_of_them(engine: Engine) -> None:
    """Both ways to the failed rows give the same words."""
    numbers = engine.register("unsent", pa.table({"number": pa.array([3, 5], pa.int64())}))
    stopped = {"kind": OutcomeKind.NOT_ATTEMPTED, "reason": RefusalReason.RUN_STOPPED, "code": None, "info": None}
    never_sent = {"http_status": None, "batch_id": None, "call_attempts": 0}
    for command in (Command.SET_ATTR, Command.REMOVE_ATTR):
        rows = engine.rows(not_attempted(numbers, USER, command, now=FAILED))
        given = refusal(command, **stopped, **never_sent)
        assert rows == [refusal_row(number, given, USER) for number in (3, 5)]
        assert list(rows[0]) == REFUSAL_SCHEMA.names


def test_what_was_refused_before_says_so_and_how_to_send_it_again(engine: Engine) -> None:
    numbers = engine.register("before", pa.table({"number": pa.array([3], pa.int64())}))
    (row,) = engine.rows(refused_before(numbers, USER, Command.SET_ATTR, code=90033, sync="small", now=FAILED))
    given = refusal(reason=RefusalReason.ATTRIBUTE_UNDECLARED, code=90033, info=None)
    same = refusal_row(3, given, USER)
    differing = {name for name in row if row[name] != same[name]}
    assert differing == {"explanation", "fix", "batch_id", "call_attempts", "http_status"}
    assert row["explanation"].startswith(CATALOGUE[90033].meaning)
    assert "python -m pipelines replay small" in row["fix"]
    assert row["call_attempts"] == 0
