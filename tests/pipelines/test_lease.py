"""One run at a time over several hosts: who gets the lease, who is told to wait, and who learns that it has lost it."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.object_store.faults import ObjectStoreError
from connectors.object_store.locations import PATIENCE_SECONDS
from pipelines.errors import AppBusyError, DataFolderError
from pipelines.lease import BEAT_SECONDS, DEAD_SECONDS, KEPT_ENTRIES, TRUSTED_SECONDS, Holder, Holding, Lease
from tests.memory_objects import MemoryObjects

NAME = "locks/app-1"
NEVER = 1e9  # between two beats: tests beat by hand


@dataclass(slots=True)
class Time:
    now: float = 0.0
    on_wait: Callable[[], None] = lambda: None

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.on_wait()


@dataclass(slots=True)
class Hosts:
    objects: MemoryObjects = field(default_factory=MemoryObjects)
    time: Time = field(default_factory=Time)
    names: Iterator[int] = field(default_factory=lambda: iter(range(1_000)))

    def lease(self, host: str | None = None) -> Lease:
        number = next(self.names)
        holder = Holder(f"token-{number}", host or f"host-{number}", 4_000_000 + number, 0.0, f"machine-{number}")
        return Lease(self.objects, NAME, holder=holder, clock=self.time, wait=self.time.wait, beat_seconds=NEVER)


@pytest.fixture
def hosts() -> Hosts:
    return Hosts()


def test_a_free_lease_is_taken_at_once_and_given_back(hosts: Hosts) -> None:
    for _ in range(3):
        with hosts.lease().held() as lease:
            lease.require_held()
    assert hosts.time.now == 0


def test_who_is_alive_keeps_it(hosts: Hosts) -> None:
    with hosts.lease().held() as first:
        hosts.time.on_wait = first.beat
        with pytest.raises(AppBusyError, match="process 4000000 on host-0"), hosts.lease().held():
            pytest.fail("two hold the lease")
        assert hosts.time.now < DEAD_SECONDS, "one beat is enough to know"
        first.require_held()


def test_patience_waits_for_who_is_alive(hosts: Hosts) -> None:
    with ExitStack() as stack:
        first = stack.enter_context(hosts.lease().held())

        def beat_then_end() -> None:
            if hosts.time.now < 100:
                first.beat()
            else:
                stack.close()

        hosts.time.on_wait = beat_then_end
        with hosts.lease().held(patience_seconds=200) as second:
            second.require_held()
            assert 100 <= hosts.time.now < 110


def test_who_is_dead_loses_it_after_a_while_and_learns_of_it(hosts: Hosts, caplog: pytest.LogCaptureFixture) -> None:
    with hosts.lease().held() as first:
        assert caplog.messages == []
        with hosts.lease().held() as second:
            assert hosts.time.now == pytest.approx(DEAD_SECONDS, abs=2)
            second.require_held()
            assert caplog.messages == [
                "Process 4000000 on host-0 holds the data folder; within 30 s it is known whether it lives."
            ]
            assert not first.may_act()
            first.beat()
            with pytest.raises(AppBusyError, match="another run has taken over"):
                first.require_held()
            second.require_held()
            assert newest(hosts)["host"] == "host-1"
        with hosts.lease().held():
            pass  # what the first one gives back, it no longer has
    assert hosts.time.now < DEAD_SECONDS + 5


def test_a_holder_stops_trusting_its_lease_before_another_may_take_it(hosts: Hosts) -> None:
    assert TRUSTED_SECONDS + BEAT_SECONDS < DEAD_SECONDS
    with hosts.lease().held() as first:
        hosts.time.now += TRUSTED_SECONDS - 0.1
        first.require_held()
        hosts.time.now += 0.1
        assert not first.may_act()
        with pytest.raises(AppBusyError, match="could not be renewed for 80 s"):
            first.require_held()
        assert hosts.time.now == pytest.approx(TRUSTED_SECONDS + PATIENCE_SECONDS, abs=1), "so long it waits"


def test_a_holder_that_was_cut_off_goes_on_when_nobody_has_come_meanwhile(hosts: Hosts) -> None:
    with hosts.lease().held() as first:
        hosts.time.now += TRUSTED_SECONDS + 30
        hosts.time.on_wait = first.beat
        first.require_held()
        assert first.may_act()
        assert hosts.time.now < TRUSTED_SECONDS + 31


def test_a_beat_that_does_not_come_through_is_made_up_for_by_the_next(hosts: Hosts) -> None:
    def fail(verb: str, key: str) -> None:
        raise ObjectStoreError("out of reach")

    with hosts.lease().held() as first:
        hosts.time.now += 15
        hosts.objects.before = fail
        first.beat()
        first.require_held()
        hosts.objects.before = lambda verb, key: None
        first.beat()
        hosts.time.now += 15
        first.require_held()


def test_a_dead_process_of_this_machine_loses_it_at_once(hosts: Hosts) -> None:
    me = Holder.this_process()
    assert not me.is_dead_here
    assert replace(me, started_at=me.started_at - 100).is_dead_here, "its number was given to another one"
    unused = next(number for number in range(4_000_000, 5_000_000) if not psutil.pid_exists(number))
    with (
        Lease(hosts.objects, NAME, holder=replace(me, process=unused), beat_seconds=NEVER).held(),
        hosts.lease().held(),
    ):
        assert hosts.time.now == 0
    of_a_namesake = replace(me, process=unused, machine="another one")
    assert not of_a_namesake.is_dead_here, "containers may share a name, and nothing is known of other machines"


def test_a_storage_that_replaces_what_it_must_not_is_refused(hosts: Hosts) -> None:
    hosts.objects.replaces = True
    for _ in range(2):  # it leaves nothing that says something else the next time
        with pytest.raises(DataFolderError, match="could not be kept apart"), hosts.lease().held():
            pytest.fail("two could hold it")


def test_who_wakes_after_a_long_sleep_takes_nothing(hosts: Hosts) -> None:
    """Between its look at the lease and its own entry, others have come and gone, and old entries are removed."""

    def sleep_long(verb: str, key: str) -> None:
        if verb == "create":
            hosts.objects.before = lambda verb, key: None
            for _ in range(KEPT_ENTRIES):
                with hosts.lease().held():
                    pass
            held.append(stack.enter_context(hosts.lease().held()))

    held: list[Lease] = []
    with ExitStack() as stack:
        late = hosts.lease()
        hosts.objects.before = sleep_long
        with pytest.raises(AppBusyError), late.held():
            pytest.fail("it was told of an entry that is long gone")
        held[0].beat()
        held[0].require_held()


@pytest.mark.parametrize("beats", [1, KEPT_ENTRIES - 1, KEPT_ENTRIES, KEPT_ENTRIES + 5, 3 * KEPT_ENTRIES])
def test_a_holder_that_slept_long_gets_nothing_back(hosts: Hosts, beats: int) -> None:
    """The number after its own may be free again, since old entries are removed."""
    with hosts.lease().held() as first, hosts.lease().held() as second:
        for _ in range(beats):
            hosts.time.now += BEAT_SECONDS
            second.beat()
        first.beat()
        with pytest.raises(AppBusyError, match="another run has taken over"):
            first.require_held()
        second.beat()
        second.require_held()
        assert newest(hosts)["host"] == "host-1"


def test_a_machine_that_sleeps_ages_its_lease(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    read, slept_seconds = time.clock_gettime, [0.0]
    monkeypatch.setattr(
        time, "clock_gettime", lambda clock: read(clock) + (slept_seconds[0] if clock == time.CLOCK_BOOTTIME else 0.0)
    )
    with Lease(hosts.objects, NAME, beat_seconds=NEVER).held() as lease:
        lease.require_held()
        slept_seconds[0] = TRUSTED_SECONDS
        assert not lease.may_act()


def test_entries_do_not_pile_up(hosts: Hosts) -> None:
    with hosts.lease().held() as lease:
        for _ in range(3 * KEPT_ENTRIES):
            lease.beat()
        assert len(hosts.objects.list(NAME)) <= KEPT_ENTRIES + 2
    for _ in range(3 * KEPT_ENTRIES):
        with hosts.lease().held():
            pass
    assert len(hosts.objects.list(NAME)) <= KEPT_ENTRIES + 4


def test_a_damaged_entry_is_told(hosts: Hosts) -> None:
    hosts.objects.put(f"{NAME}/000000000007.json", b"{")
    with pytest.raises(DataFolderError, match=r"locks/app-1/000000000007\.json in the data folder is damaged"):
        hosts.lease().held().__enter__()


@given(interruptions=st.lists(st.integers(0, 30), max_size=4, unique=True))
def test_two_who_want_it_at_once_never_both_have_it(interruptions: list[int]) -> None:
    """Another one acts between any two requests of the first."""
    hosts, requests = Hosts(), iter(range(10_000))
    held: list[Lease] = []

    def interrupt(verb: str, key: str) -> None:
        if next(requests) in interruptions:
            before, hosts.objects.before = hosts.objects.before, lambda verb, key: None
            try:
                with hosts.lease().held() as other:
                    other.require_held()
                    held.append(other)
                    assert all(is_lost(each) for each in held[:-1])
                held.pop()
            except AppBusyError:
                pass
            hosts.objects.before = before

    hosts.objects.before = interrupt
    with hosts.lease().held(patience_seconds=300) as first:
        held.append(first)
        first.beat()


def is_lost(lease: Lease) -> bool:
    try:
        return not lease.may_act()
    except AppBusyError:
        return True


def test_nothing_is_written_without_the_lease() -> None:
    with pytest.raises(RuntimeError, match="without its lease"):
        Holding().require_held()


def newest(hosts: Hosts) -> dict[str, object]:
    import json

    holder: dict[str, object] = json.loads(hosts.objects.contents[max(hosts.objects.contents)])["holder"]
    return holder
