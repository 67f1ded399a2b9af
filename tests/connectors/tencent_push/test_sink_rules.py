"""Whatever is changed and whatever goes wrong: the rules that every push keeps."""

from collections import defaultdict
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.tencent_push.client import Fault
from connectors.tencent_push.errors import CATALOGUE
from connectors.tencent_push.outcomes import Change, Outcome, OutcomeKind
from connectors.tencent_push.pacing import Backoff
from connectors.tencent_push.protocol import RowError
from connectors.tencent_push.sink import SinkSettings
from tests.connectors.tencent_push.simulation import (
    REMOVE,
    SET,
    Answer,
    Push,
    Seen,
    accepted,
    faulty,
    most_in_a_second,
    one_by_number,
    refused,
)

CODES = [*sorted(CATALOGUE), 1, 99_999]
GENTLE_CODES = [code for code in CODES if code not in CATALOGUE or CATALOGUE[code].on_call != "stop"]


@st.composite
def frames(draw: st.DrawFn) -> list[Change]:
    """Changes that set, remove or both, with accounts that repeat; every value tells its change."""
    wanted = draw(st.lists(st.tuples(st.integers(0, 60), st.sampled_from(["set", "remove", "both"])), max_size=80))
    return [
        Change(
            number,
            f"user-{account}",
            {"city": f"v{number}"} if what != "remove" else {},
            (f"gone{number}",) if what != "set" else (),
        )
        for number, (account, what) in enumerate(wanted)
    ]


class Trouble:
    """Does something wrong with a share of the calls, in all the ways that calls can go wrong."""

    def __init__(self, seed: int, share: float, codes: list[int]) -> None:
        self._random = Random(seed)
        self._share = share
        self._codes = codes

    def __call__(self, call: Seen) -> Answer:
        random = self._random
        if random.random() >= self._share:
            return accepted(call)
        kind = random.choice(["row errors", "row errors", "refused", "fault", "fault", "status", "stranger"])
        if kind == "row errors":
            hit = [account for account in call.accounts if random.random() < 0.3]
            return accepted(call, [RowError(account, random.choice(self._codes)) for account in hit])
        if kind == "refused":
            return refused(random.choice(self._codes))
        if kind == "stranger":
            return accepted(call, [RowError("nobody", 70107)])
        if kind == "status":
            status = random.choice([502, 503, 429, 408])
            return faulty(call, Fault.HTTP_STATUS, http_status=status, written=random.random() < 0.5 and status != 429)
        fault = random.choice([Fault.TIMEOUT, Fault.BROKEN_CONNECTION, Fault.UNREADABLE_REPLY, Fault.CONNECT_FAILED])
        return faulty(call, fault, written=fault is not Fault.CONNECT_FAILED and random.random() < 0.5)


@settings(max_examples=150, deadline=None)
@given(
    changes=frames(),
    seed=st.integers(0, 10**6),
    share=st.sampled_from([0.0, 0.1, 0.4, 0.8, 1.0]),
    codes=st.sampled_from([CODES, GENTLE_CODES]),
    batch_size=st.sampled_from([1, 2, 7, 100]),
    quota=st.sampled_from([3, 100]),
    latency=st.sampled_from([0.0, 0.05, 2.0]),
)
def test_every_push_keeps_the_rules(
    *,
    tmp_path_factory: pytest.TempPathFactory,
    changes: list[Change],
    seed: int,
    share: float,
    codes: list[int],
    batch_size: int,
    quota: float,
    latency: float,
) -> None:
    limits = SinkSettings(batch_size=batch_size, max_in_flight=5, backoff=Backoff(attempts=4))
    push = Push(
        tmp_path_factory.mktemp("push") / "ledger",
        Trouble(seed, share, codes),
        quota=quota,
        settings=limits,
        latency=lambda: latency,
        seed=seed,
        on_record=len(changes) < 20,
    )
    count = len(changes)
    outcomes = one_by_number(push.run(changes))

    changes = changes[: push.read]
    assert sorted(outcomes) == [change.number for change in changes], "one outcome for each change that was read"
    assert sum(push.sink.report.changes.values()) == len(changes)
    assert push.sink.report.stop is not None or push.read == count
    check_ledger(push, outcomes)
    check_refusals(push, outcomes)
    check_final_state(push, changes, outcomes)
    assert push.calls.most_in_flight <= 5
    for command in (SET, REMOVE):
        assert most_in_a_second([call.at for call in push.calls.seen if call.command is command]) <= quota


def check_ledger(push: Push, outcomes: dict[int, Outcome]) -> None:
    """The ledger says of every (change, command) what its outcome says."""
    contents = push.contents
    assert contents.unsettled_calls == 0
    for command in (SET, REMOVE):
        acknowledged, uncertain = set(), set()
        for number, outcome in outcomes.items():
            asked = outcome.change.set if command is SET else outcome.change.remove
            refusal = next((refusal for refusal in outcome.refusals if refusal.command is command), None)
            if asked and refusal is None:
                acknowledged.add(number)
            if refusal is not None and refusal.maybe_written:
                uncertain.add(number)
        assert set(contents.acknowledged[command].tolist()) == acknowledged
        assert set(contents.uncertain[command].tolist()) == uncertain


def check_refusals(push: Push, outcomes: dict[int, Outcome]) -> None:
    for outcome in outcomes.values():
        assert (outcome.kind is OutcomeKind.ACKNOWLEDGED) == (not outcome.refusals)
        for refusal in outcome.refusals:
            assert refusal.kind is not OutcomeKind.ACKNOWLEDGED
            sent = refusal.kind is not OutcomeKind.NOT_ATTEMPTED
            assert sent == (refusal.call_attempts > 0) == (refusal.batch_id is not None)
            bound = 4 + 12 + 7 + 2 * 7
            assert refusal.call_attempts <= bound, "attempts, throttled ones, halves and narrowed ones are bounded"
    if any(outcome.kind is OutcomeKind.NOT_ATTEMPTED for outcome in outcomes.values()):
        assert push.sink.report.stop is not None


def check_final_state(push: Push, changes: list[Change], outcomes: dict[int, Outcome]) -> None:
    """Where everything about an account was acknowledged, Tencent holds the newest value."""
    by_account = defaultdict(list)
    for change in changes:
        by_account[change.account].append(change)
    for account, own in by_account.items():
        if all(outcomes[change.number].kind is OutcomeKind.ACKNOWLEDGED for change in own):
            newest = [change.set["city"] for change in own if change.set][-1:]
            assert list(push.calls.state.get(account, {}).values()) == newest


def test_the_rules_notice_a_lost_outcome_and_a_false_record(tmp_path: Path) -> None:
    push = Push(tmp_path / "ledger", Trouble(3, 0.5, GENTLE_CODES))
    changes = [Change(number, f"user-{number}", {"city": "x"}) for number in range(50)]
    outcomes = one_by_number(push.run(changes))
    acknowledged = next(n for n, outcome in outcomes.items() if outcome.kind is OutcomeKind.ACKNOWLEDGED)
    without = {number: outcome for number, outcome in outcomes.items() if number != acknowledged}
    with pytest.raises(AssertionError):
        check_ledger(push, without)


class Interruption(BaseException):
    pass


@settings(max_examples=80, deadline=None)
@given(
    changes=frames(),
    seed=st.integers(0, 10**6),
    share=st.sampled_from([0.0, 0.3, 0.8]),
    batch_size=st.sampled_from([1, 7, 100]),
    waits=st.integers(1, 40),  # always in the end: a call that hangs is waited for as long as nobody interrupts
    hangs=st.booleans(),
)
def test_after_an_interruption_at_any_moment_the_record_denies_nothing_that_was_written(
    *,
    tmp_path_factory: pytest.TempPathFactory,
    changes: list[Change],
    seed: int,
    share: float,
    batch_size: int,
    waits: int,
    hangs: bool,
) -> None:
    random = Random(seed)
    push = Push(
        tmp_path_factory.mktemp("push") / "ledger",
        Trouble(seed, share, GENTLE_CODES),
        settings=SinkSettings(batch_size=batch_size, max_in_flight=5),
        latency=lambda: 1e9 if hangs and random.random() < 0.1 else 0.05,
        seed=seed,
    )
    left = waits

    def interrupt() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise Interruption

    push.calls.on_wait = interrupt
    taken: list[Outcome] = []
    try:
        for outcomes in push.sink.push(changes):
            taken += outcomes
    except Interruption:
        pass
    calls_before = len(push.calls.seen)
    push.sink.close()
    assert len(push.calls.seen) == calls_before, "nothing is sent after an interruption"

    yielded = one_by_number(taken)
    contents = push.contents
    recorded = {
        command: {*contents.acknowledged[command].tolist(), *contents.uncertain[command].tolist()}
        for command in (SET, REMOVE)
    }
    for number, outcome in yielded.items():
        refused_commands = {refusal.command for refusal in outcome.refusals}
        if outcome.change.set and SET not in refused_commands:
            assert number in contents.acknowledged[SET]
        if outcome.change.remove and REMOVE not in refused_commands:
            assert number in contents.acknowledged[REMOVE]
    for attributes in push.calls.state.values():
        for value in attributes.values():
            assert int(value.removeprefix("v")) in recorded[SET], "written, and the record knows nothing of it"
