"""One night's push as a program says, and what must hold of it and of the world: each invariant is a function.

Every message begins with its invariant's name, so that a planted bug can be told by what found it.
"""

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from random import Random

from connectors.tencent_push import ledger
from connectors.tencent_push.errors import LedgerError, Reason
from connectors.tencent_push.ledger import LedgerContents, Sent
from connectors.tencent_push.outcomes import Change, Outcome, StopCause
from connectors.tencent_push.pacing import Backoff, Quota
from connectors.tencent_push.sink import Sink, SinkSettings
from tests.connectors.tencent_push.simulation import ACKNOWLEDGED, REJECTED, REMOVE, SET, TODAY, most_in_a_second
from tests.connectors.tencent_push.stateful_model import (
    Api,
    Fuse,
    FusedLedger,
    InterruptedNight,
    Item,
    ItemStatus,
    Killed,
    LastCall,
    World,
    items_of,
)
from tests.connectors.tencent_push.stateful_programs import Night, Program

FLUSH_SECONDS = SinkSettings().flush_seconds
STOPPED_BY_TAKER = StopCause(None, Reason.RUN_STOPPED, "the taker has seen enough")


class PushedNight:
    """One night's push, as it goes and as it ended."""

    def __init__(self, world: World, night: Night, *, plan: int, changes: list[Change]) -> None:
        self.world = world
        self.night = night
        self.plan = plan
        self.changes = changes
        self.before = {item: LastCall(**vars(last)) for item, last in world.last_calls.items()}
        self.read: list[Change] = []
        self.outcomes: list[Outcome] = []
        self.fuse = Fuse(night.end)
        self.api = Api(world, night, plan=plan, fuse=self.fuse)
        self.ended_early = False
        ledgers = world.ledgers
        self.unsettled_before = ledgers[plan].unsettled_calls if plan in ledgers else 0
        self.unsettled_last_night = next((last.unsettled_calls for last in reversed(ledgers.values())), 0)

    @property
    def path(self) -> Path:
        return self.world.ledger_path(self.plan)

    @property
    def contents(self) -> LedgerContents:
        try:
            return ledger.read_ledger(self.path)
        except LedgerError as error:
            raise AssertionError(f"the_record_can_be_read: {error}") from error

    def push(self) -> None:
        program = self.world.program
        try:
            record = FusedLedger.open(self.path, {"frame": self.plan})
        except LedgerError as error:
            raise AssertionError(f"the_record_can_be_read: {error}") from error
        assert isinstance(record, FusedLedger)
        record.fuse, record.on_sent = self.fuse, self._on_record
        clock = self.api.clock
        pushing = Sink(
            self.api,
            record,
            quota=Quota(program.calls_per_second, clock=clock),
            settings=self._settings(),
            clock=clock,
            now=lambda: TODAY,
            chance=Random(self.plan).random,
            calls=self.api,
        )
        self.fuse.on_stop = lambda: pushing.stop(STOPPED_BY_TAKER)
        with closing(record):
            self._take_all(pushing)
        self.report = pushing.report

    def _settings(self) -> SinkSettings:
        program = self.world.program
        usual = SinkSettings(batch_size=program.batch_size, backoff=Backoff(attempts=program.attempts))
        if not self.night.guarded:
            return usual
        return replace(usual, errored_batches_in_a_row=2, max_failed_fraction=0.3, max_failed_fraction_rows=3)

    def _take_all(self, pushing: Sink) -> None:
        try:
            for yielded in pushing.push(self._changes()):
                self.outcomes += yielded
                contents = self.contents
                acknowledged_is_true(self, yielded, contents)
                rejected_is_on_record(yielded, contents)
                self.fuse.burn()
        except (Killed, InterruptedNight):
            self.ended_early = True
        except RuntimeError as error:
            raise AssertionError(f"conservation: {error}") from error
        finally:
            with suppress(Killed):
                pushing.close()
        if self.fuse.is_dead:
            self.api.carry_out_what_is_left()

    def _changes(self) -> Iterator[Change]:
        for change in self.changes:
            self.fuse.burn()
            self.read.append(change)
            yield change

    def _on_record(self, batch: Sent) -> None:
        """From here on nobody knows whether the batch leaves."""
        for number in batch.numbers:
            for item, value in items_of(self.world.plans[self.plan][number])[batch.command].items():
                self.world.last_calls[item] = LastCall(value, ItemStatus.UNKNOWN)


# What must hold.


def conservation(night: PushedNight) -> None:
    """Each change that was read has exactly one outcome; after a kill or an exception, at most one."""
    given_by_number = Counter(outcome.change.number for outcome in night.outcomes)
    read = [change.number for change in night.read]
    twice = [number for number, times in given_by_number.items() if times > 1]
    assert not twice, f"conservation: changes {twice} have several outcomes"
    assert given_by_number.keys() <= set(read), "conservation: an outcome for a change that nobody read"
    assert night.report.changes == Counter(o.kind for o in night.outcomes), "conservation: the report counts otherwise"
    if not night.ended_early:
        lost = set(read) - given_by_number.keys()
        assert not lost, f"conservation: changes {sorted(lost)} have no outcome"
        everything = night.report.stop is not None or len(read) == len(night.changes)
        assert everything, "conservation: changes were never read, although nothing stopped the push"


def acknowledged_is_true(night: PushedNight, yielded: list[Outcome], contents: LedgerContents) -> None:
    """At the moment of its outcome, what is acknowledged is on record and in the API's state."""
    recorded = {command: set(contents.acknowledged[command].tolist()) for command in (SET, REMOVE)}
    for outcome in yielded:
        if outcome.kind is not ACKNOWLEDGED:
            continue
        for command, wanted in items_of(outcome.change).items():
            on_record = not wanted or outcome.change.number in recorded[command]
            assert on_record, "acknowledged_is_true: an acknowledged change is not on record"
            for (account, name), value in wanted.items():
                written = night.world.writes[account, name]
                position = (night.plan, outcome.change.number)
                assert position in written, "acknowledged_is_true: the API never carried it out"
                held = night.world.state[account].get(name)
                assert held == value or written[-1] > position, "acknowledged_is_true: the API holds something else"
                last = night.world.last_calls[account, name]
                if last.value == value and last.status is ItemStatus.ANSWERED:  # else it is of a later change
                    last.status = ItemStatus.YIELDED


def rejected_is_on_record(yielded: list[Outcome], contents: LedgerContents) -> None:
    """With its code, so that it is remembered what a call was refused for."""
    for outcome in yielded:
        for refusal in outcome.refusals:
            if refusal.kind is REJECTED and refusal.code is not None:
                recorded = contents.refused[refusal.command].get((refusal.code, refusal.whole), ())
                assert outcome.change.number in recorded, "rejected_is_on_record: a rejected change is not"


def within_the_quota(night: PushedNight) -> None:
    for command in (SET, REMOVE):
        arrivals = [call.at for call in night.api.seen if call.command is command]
        most = most_in_a_second(arrivals)
        assert most <= night.world.program.calls_per_second, f"within_the_quota: {most} calls in a second"


def only_what_was_unsettled_is_sent_again(night: PushedNight) -> None:
    """After a kill, at most the rows of calls in flight, or answered since the last write, are sent again."""
    sent = night.api.first_sent()
    again = {item: last for item, value in sent.items() if (last := _last_call(night, item, value))}
    settled = {account for (account, _), last in again.items() if last.status is not ItemStatus.IN_FLIGHT}
    assert not settled, f"only_what_was_unsettled_is_sent_again: {len(settled)} settled rows are sent again"
    killed_last_night = {account for (account, _), last in again.items() if last.night == night.world.nights - 1}
    limit = night.unsettled_last_night * night.world.program.batch_size
    assert len(killed_last_night) <= limit, f"only_what_was_unsettled_is_sent_again: more than {limit} rows"


def _last_call(night: PushedNight, item: Item, value: str | None) -> LastCall | None:
    """The one that wrote `value`, or may have, in an earlier night; None where it was known to have failed."""
    last = night.before.get(item)
    return last if last and last.value == value and last.status is not ItemStatus.UNKNOWN else None


def an_interrupted_push_settles_its_calls(night: PushedNight) -> None:
    if not night.fuse.is_dead:
        unsettled = night.contents.unsettled_calls - night.unsettled_before
        assert not unsettled, f"an_interrupted_push_settles_its_calls: {unsettled} calls are left unsettled"


def the_record_tells_the_truth(world: World) -> None:
    """What is taken for acknowledged is what the API holds; where it may hold something else, it is uncertain."""
    items = {*world.desired, *world.known}
    for account, name in items - world.uncertain:
        held = world.state.get(account, {}).get(name)
        is_known = held == world.known.get((account, name))
        assert is_known, "the_record_tells_the_truth: the API holds something else than what counts as acknowledged"


def no_older_value_overtakes_a_newer_one(world: World) -> None:
    for written in world.writes.values():
        in_order = all(earlier <= later for earlier, later in pairwise(written))
        assert in_order, "no_older_value_overtakes_a_newer_one: the API carried out an older value after a newer one"


def the_api_holds_the_newest_values(world: World) -> None:
    for (account, name), value in world.desired.items():
        if account not in world.program.refused_for_good:
            held = world.state.get(account, {}).get(name)
            assert held == value, "the_api_holds_the_newest_values: it holds another value"


def a_rerun_sends_nothing(night: PushedNight) -> None:
    accounts = {account for call in night.api.seen for account in call.accounts}
    again = accounts - night.world.program.refused_for_good
    assert not again, f"a_rerun_sends_nothing: {len(again)} accounts are sent again after a success"


# How a program runs.


def run(program: Program) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = World(program, Path(folder))
        for night in program.nights:
            push_one_night(world, night)
        push_one_night(world, Night())  # nothing goes wrong any more
        the_api_holds_the_newest_values(world)
        push_one_night(world, Night(), first=a_rerun_sends_nothing)


def push_one_night(world: World, night: Night, *, first: Callable[[PushedNight], None] | None = None) -> PushedNight:
    plan, changes = world.begin(night)
    pushed = PushedNight(world, night, plan=plan, changes=changes)
    pushed.push()
    for invariant in (
        *([first] if first else []),
        conservation,
        within_the_quota,
        only_what_was_unsettled_is_sent_again,
        an_interrupted_push_settles_its_calls,
    ):
        invariant(pushed)
    no_older_value_overtakes_a_newer_one(world)
    world.end(pushed.api, pushed.contents, flush_seconds=FLUSH_SECONDS)
    the_record_tells_the_truth(world)
    return pushed
