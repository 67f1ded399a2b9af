"""Nothing secret and nobody's data in any text: planted, and looked for in all that a run with faults says."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow.parquet as pq
import pytest

from connectors.tencent_push import usersig
from connectors.tencent_push.emulator import (
    Emulator,
    HalfBody,
    NotJson,
    RefuseCall,
    RefuseRows,
    ResetAfterWrite,
    ResetBeforeWrite,
    Status,
)
from connectors.tencent_push.emulator.faults import Fault
from connectors.tencent_push.protocol import AccountType, Command
from tests.running import Ran, make_sync, run, write_profiles

SDKAPPID = 1400009999
IDENTIFIER = "planted-administrator"
SECRET_KEY = "planted-secret-key-0123456789abcdef"
ACCOUNT = "planted-account-张小红"
VALUE = "planted-value-深圳"

ATTRIBUTES: dict[str, Any] = {
    "source": {"parquet": "profiles/*.parquet"},
    "accounts": {"user_id": {"column": "user_id", "attributes": {"city": "city"}}},
}


@pytest.fixture
def emulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    monkeypatch.setenv("ATTRIBUTE_SYNC_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    write_profiles(
        tmp_path / "profiles/one.parquet",
        {
            "user_id": [f"{ACCOUNT}-{number}" for number in range(2_500)] + [f"{ACCOUNT}-{'x' * 40}"],
            "city": [f"{VALUE}-{number}" for number in range(2_500)] + [VALUE * 9],
        },
    )
    with Emulator(
        tmp_path / "app.sqlite",
        sdkappid=SDKAPPID,
        identifier=IDENTIFIER,
        secret_key=SECRET_KEY,
        calls_per_second=1000,
    ) as emulator:
        emulator.declare({"city": AccountType.USER_ID})
        monkeypatch.setenv("TENCENT_PUSH_SDKAPPID", str(SDKAPPID))
        monkeypatch.setenv("TENCENT_PUSH_IDENTIFIER", IDENTIFIER)
        monkeypatch.setenv("TENCENT_PUSH_SECRET_KEY", SECRET_KEY)
        monkeypatch.setenv("TENCENT_PUSH_BASE_URL", emulator.base_url)
        monkeypatch.setenv("TENCENT_PUSH_CALLS_PER_SECOND", "900")
        yield emulator


@pytest.fixture
def signatures(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every signature that is made while the test runs."""
    made: list[str] = []
    original = usersig.make_usersig

    def remember(**named: Any) -> str:
        made.append(original(**named))
        return made[-1]

    monkeypatch.setattr(usersig, "make_usersig", remember)
    return made


def everything_told(ran: Ran, instance: dg.DagsterInstance, caplog: pytest.LogCaptureFixture, told: str) -> str:
    """Log lines of all loggers, Dagster's whole event log with metadata and errors, what was printed, the report, and
    the record of the calls.
    """
    entries = instance.all_logs(ran.result.run_id)
    texts = [told, caplog.text, *(dg.serialize_value(entry) for entry in entries), *map(repr, entries)]
    texts += [record.getMessage() + str(record.exc_info) + str(record.args) for record in caplog.records]
    reports = Path(str(ran.metadata("failure_report").get("dagster/uri", "")))
    calls = Path(str(ran.metadata("push_calls").get("dagster/uri", "")))
    if calls.is_file():
        texts.append(str(pq.read_table(calls, partitioning=None).to_pylist()) + str(pq.read_metadata(calls).metadata))
    return "\n".join([*texts, reports.read_text(encoding="utf-8") if reports.is_file() else ""])


@pytest.mark.parametrize("stops", [False, True], ids=["with faults", "stopped by a code"])
def test_no_signature_key_account_or_value_is_told(  # noqa: PLR0917  fixtures come by name
    stops: bool,
    tmp_path: Path,
    emulator: Emulator,
    signatures: list[str],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    quoting = f"{ACCOUNT} has {VALUE}"
    at_the_wire: tuple[Fault, ...] = (
        Status(502),
        ResetBeforeWrite(),
        ResetAfterWrite(),
        HalfBody(),
        NotJson(quoting.encode()),
    )
    for skip, fault in enumerate(at_the_wire):
        emulator.faults.add(fault, command=Command.SET_ATTR, skip=skip)
    emulator.faults.add(RefuseCall(60007, quoting), command=Command.SET_ATTR, skip=8)
    emulator.faults.add(RefuseCall(70001, quoting), command=Command.SET_ATTR, skip=9)
    emulator.faults.add(RefuseCall(90033, quoting), command=Command.SET_ATTR, skip=10)
    refused = {f"{ACCOUNT}-{number}": code for number, code in ((3, 90033), (4, 70107), (5, 99999))}
    emulator.faults.add(RefuseRows(refused, quoting), command=Command.SET_ATTR, accounts=set(refused), times=None)
    emulator.faults.add(RefuseRows({f"{ACCOUNT}-6": 91000}, quoting), command=Command.SET_ATTR, skip=11)
    if stops:
        emulator.faults.add(RefuseCall(60021, quoting), command=Command.SET_ATTR, skip=15, times=None)
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        ran = run(make_sync(tmp_path, ATTRIBUTES), instance=instance)
        printed = capfd.readouterr()
        told = everything_told(ran, instance, caplog, printed.out + printed.err)

    assert ran.succeeded is not stops, ran.failure
    assert signatures, "the guard must have something to look for"
    assert len(told) > 10_000, "the guard must have something to look in"
    assert "'fault': 'http_status'" in told, "the record of the calls is looked through"
    assert any(row["account"].startswith(ACCOUNT) for row in ran.failed_rows), "failed rows are where accounts stand"
    for planted in (*signatures, SECRET_KEY, ACCOUNT, VALUE, ascii(VALUE)[1:-1], ascii(ACCOUNT)[1:-1]):
        assert planted not in told


def test_the_search_finds_what_is_told(
    tmp_path: Path, emulator: Emulator, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guard broken on purpose: a sync whose log quotes an account is caught."""
    from pipelines import push_progress

    monkeypatch.setattr(push_progress, "progress_text", lambda *_, **__: f"pushed {ACCOUNT}")
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        ran = run(make_sync(tmp_path, ATTRIBUTES), instance=instance)
        assert ACCOUNT in everything_told(ran, instance, caplog, "")
