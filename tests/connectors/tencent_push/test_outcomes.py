from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.tencent_push.client import CallResult, Fault
from connectors.tencent_push.errors import CATALOGUE, Action, Reason
from connectors.tencent_push.outcomes import (
    FAULT_REASONS,
    Change,
    Outcome,
    OutcomeKind,
    Refusal,
    Settlement,
    settle,
)
from connectors.tencent_push.protocol import Command, Reply, RowError

ACCOUNTS = ("a", "b", "c", "d")


def replied(code: int, *errors: RowError, info: str | None = None) -> CallResult:
    return CallResult(Reply(code, info, errors), None, None, 200, 0.1)


def failed(fault: Fault, status: int | None = None) -> CallResult:
    return CallResult(None, fault, "detail", status, 0.1)


def shares(settlement: Settlement) -> dict[str, list[str]]:
    parts = {
        "acknowledged": settlement.acknowledged,
        "rejected": settlement.rejected,
        "errored": settlement.errored,
        "resend": settlement.resend,
        "split": settlement.split,
    }
    return {name: sorted(accounts) for name, accounts in parts.items() if accounts}


def test_code_0_without_an_error_list_is_the_only_whole_success() -> None:
    settlement = settle(ACCOUNTS, replied(0))
    assert shares(settlement) == {"acknowledged": list(ACCOUNTS)}
    assert settlement.answered


def test_every_account_of_an_error_list_goes_its_own_way() -> None:
    settlement = settle(ACCOUNTS, replied(0, RowError("b", 70107, "info"), RowError("c", 91000)))
    assert shares(settlement) == {"acknowledged": ["a", "d"], "rejected": ["b"], "resend": ["c"]}
    assert settlement.rejected["b"].reason is Reason.ACCOUNT_UNKNOWN
    assert settlement.rejected["b"].info == "info"
    assert not settlement.whole


def test_an_error_list_that_names_a_stranger_counts_for_nothing() -> None:
    settlement = settle(ACCOUNTS, replied(0, RowError("b", 70107), RowError("z", 70107)))
    assert shares(settlement) == {"resend": list(ACCOUNTS)}
    assert {cause.reason for cause in settlement.resend.values()} == {Reason.UNREADABLE_REPLY}
    assert all(cause.maybe_written for cause in settlement.resend.values())
    assert not settlement.answered


@pytest.mark.parametrize(
    ("codes", "counts"),
    [
        ((70107, 70107), 70107),
        ((91000, 70107), 70107),
        ((70107, 91000), 70107),
        ((91000, 60007), 60007),
        ((0, 91000), 91000),
    ],
)
def test_of_an_account_named_twice_the_more_severe_code_counts(codes: tuple[int, int], counts: int) -> None:
    settlement = settle(ACCOUNTS, replied(0, *(RowError("b", code) for code in codes)))
    causes = {**settlement.rejected, **settlement.resend}
    assert {account: cause.code for account, cause in causes.items()} == {"b": counts}
    assert settlement.acknowledged == ("a", "c", "d")


def test_an_entry_with_code_0_is_no_error() -> None:
    assert shares(settle(ACCOUNTS, replied(0, RowError("b", 0)))) == {"acknowledged": list(ACCOUNTS)}


def test_a_row_code_that_ends_the_run_leaves_the_other_rows_acknowledged() -> None:
    stopping = next(code for code, entry in CATALOGUE.items() if entry.on_row is Action.STOP)
    settlement = settle(ACCOUNTS, replied(0, RowError("b", stopping)))
    assert shares(settlement) == {"acknowledged": ["a", "c", "d"], "errored": ["b"]}
    assert settlement.stop is not None
    assert settlement.stop.code == stopping


@pytest.mark.parametrize(("code", "entry"), CATALOGUE.items())
def test_every_code_on_a_call_does_what_the_catalogue_says(code: int, entry: object) -> None:
    settlement = settle(ACCOUNTS, replied(code, info="text"))
    action = CATALOGUE[code].on_call
    expected = {Action.STOP: "errored", Action.SPLIT: "split", Action.REJECT: "rejected"}.get(action, "resend")
    assert shares(settlement) == {expected: list(ACCOUNTS)}
    assert settlement.slow_down is (action is Action.SLOW_DOWN)
    assert settlement.renew_usersig is (action is Action.RENEW_USERSIG)
    assert (settlement.stop is not None) is (action is Action.STOP)
    assert settlement.whole


@pytest.mark.parametrize("code", CATALOGUE)
def test_every_code_on_a_row_does_what_the_catalogue_says(code: int) -> None:
    settlement = settle(ACCOUNTS, replied(0, RowError("b", code)))
    action = CATALOGUE[code].on_row
    expected = {Action.STOP: "errored", Action.SPLIT: "rejected", Action.REJECT: "rejected"}.get(action, "resend")
    assert shares(settlement) == {"acknowledged": ["a", "c", "d"], expected: ["b"]}
    assert settlement.slow_down is (action is Action.SLOW_DOWN)


def test_an_error_list_beside_a_code_of_the_call_acknowledges_nothing() -> None:
    assert shares(settle(ACCOUNTS, replied(91000, RowError("b", 70107)))) == {"resend": list(ACCOUNTS)}


def test_a_row_that_stands_alone_is_rejected_instead_of_split() -> None:
    assert shares(settle(("a",), replied(90033))) == {"rejected": ["a"]}


def test_a_lone_row_whose_code_blames_the_program_stops_the_run() -> None:
    settlement = settle(("a",), replied(60003))
    assert shares(settlement) == {"errored": ["a"]}
    assert settlement.stop is not None


def test_an_unknown_code_is_loud() -> None:
    on_call, on_row = settle(ACCOUNTS, replied(4711)), settle(ACCOUNTS, replied(0, RowError("b", 4711)))
    assert shares(on_call) == {"resend": list(ACCOUNTS)}
    assert on_call.resend["a"].stops is not None
    assert on_call.resend["a"].reason is Reason.UNKNOWN_CODE
    assert shares(on_row) == {"acknowledged": ["a", "c", "d"], "rejected": ["b"]}
    assert on_row.rejected["b"].reason is Reason.UNKNOWN_CODE


@pytest.mark.parametrize("fault", [fault for fault in Fault if fault is not Fault.HTTP_STATUS])
def test_every_fault_has_a_reason_and_is_sent_again(fault: Fault) -> None:
    settlement = settle(ACCOUNTS, failed(fault))
    assert shares(settlement) == {"resend": list(ACCOUNTS)}
    assert fault in FAULT_REASONS
    assert settlement.resend["a"].maybe_written is (fault is not Fault.CONNECT_FAILED)
    assert not settlement.answered


@pytest.mark.parametrize(
    ("status", "reason", "maybe_written"),
    [
        (500, Reason.UNREADABLE_REPLY, True),
        (502, Reason.UNREADABLE_REPLY, True),
        (204, Reason.UNREADABLE_REPLY, True),
        (408, Reason.TIMEOUT, True),
        (429, Reason.THROTTLED, False),
    ],
)
def test_a_status_that_may_pass_is_sent_again(status: int, reason: Reason, maybe_written: bool) -> None:
    settlement = settle(ACCOUNTS, failed(Fault.HTTP_STATUS, status))
    assert shares(settlement) == {"resend": list(ACCOUNTS)}
    cause = settlement.resend["a"]
    assert (cause.reason, cause.http_status, cause.maybe_written) == (reason, status, maybe_written)
    assert settlement.slow_down is (status == 429)


@pytest.mark.parametrize("status", [302, 400, 401, 403, 404, 413])
def test_a_status_that_stays_stops_the_run(status: int) -> None:
    settlement = settle(ACCOUNTS, failed(Fault.HTTP_STATUS, status))
    assert shares(settlement) == {"errored": list(ACCOUNTS)}
    assert settlement.stop is not None
    assert f"HTTP {status}" in settlement.stop.text


@given(
    code=st.sampled_from([0, 0, *CATALOGUE, 1]),
    errors=st.lists(st.tuples(st.sampled_from([*ACCOUNTS, "z"]), st.sampled_from([0, *CATALOGUE, 1]))),
)
def test_every_account_of_a_call_stands_in_exactly_one_place(code: int, errors: list[tuple[str, int]]) -> None:
    settlement = settle(ACCOUNTS, replied(code, *(RowError(account, row_code) for account, row_code in errors)))
    assert sorted(account for accounts in shares(settlement).values() for account in accounts) == list(ACCOUNTS)


def test_tencents_text_is_in_no_stop_cause_and_no_repr() -> None:
    settlement = settle(ACCOUNTS, replied(70009, info="secret account"))
    assert "secret account" not in f"{settlement!r}"
    change = Change(1, "secret account", {"city": "secret value"})
    refusal = Refusal(
        command=Command.SET_ATTR,
        kind=OutcomeKind.REJECTED,
        reason=Reason.CALL_REFUSED,
        code=1,
        info="secret text",
        http_status=200,
        batch_id="b",
        call_attempts=1,
        failed_at=datetime.now(UTC),
        maybe_written=False,
    )
    assert "secret" not in repr(Outcome.of(change, (refusal,)))


def refusal_of(kind: OutcomeKind) -> Refusal:
    return Refusal(
        command=Command.SET_ATTR,
        kind=kind,
        reason=Reason.CALL_REFUSED,
        code=None,
        info=None,
        http_status=None,
        batch_id=None,
        call_attempts=0,
        failed_at=datetime.now(UTC),
        maybe_written=False,
    )


@pytest.mark.parametrize(
    ("kinds", "worst"),
    [
        ([], OutcomeKind.ACKNOWLEDGED),
        ([OutcomeKind.NOT_ATTEMPTED], OutcomeKind.NOT_ATTEMPTED),
        ([OutcomeKind.NOT_ATTEMPTED, OutcomeKind.ERRORED], OutcomeKind.ERRORED),
        ([OutcomeKind.REJECTED, OutcomeKind.ERRORED], OutcomeKind.REJECTED),
    ],
)
def test_an_outcome_is_the_worst_of_its_refusals(kinds: list[OutcomeKind], worst: OutcomeKind) -> None:
    assert Outcome.of(Change(0, "a", {}), tuple(refusal_of(kind) for kind in kinds)).kind is worst
