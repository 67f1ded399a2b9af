"""A sample that is read back says what share can be trusted, and a late write is no mismatch."""

import math
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from connectors.tencent_push.client import Client, Credentials
from connectors.tencent_push.emulator import EMULATOR_CREDENTIALS as APP
from connectors.tencent_push.emulator import Emulator, RefuseCall
from connectors.tencent_push.errors import CallRefusedError, TargetUnreachableError
from connectors.tencent_push.pacing import Pacer, Quota
from connectors.tencent_push.protocol import AccountType, Command
from connectors.tencent_push.settings import Settings
from pipelines.read_back import WAITS_SECONDS, ReadBack, ReadingClient, read_back, upper_bound

NAMES = {"city": AccountType.USER_ID, "note": AccountType.USER_ID}


@pytest.fixture
def emulator(tmp_path: Path) -> Iterator[Emulator]:
    with Emulator(tmp_path / "app.sqlite", calls_per_second=None) as running:
        running.declare(NAMES)
        yield running


@pytest.fixture
def client(emulator: Emulator) -> Iterator[Client]:
    settings = Settings(Credentials(APP.sdkappid, APP.identifier, APP.secret_key), base_url=emulator.base_url)
    opened = settings.make_client()
    yield opened
    opened.close()


class Waits(list[float]):
    """Notes how long it was asked to wait, and does something while it does. Time passes in waits alone.

    The waits for the quota, of a few hundredths of a second, are not noted.
    """

    def __init__(self, *meanwhile: Mapping[str, str], client: Client | None = None) -> None:
        super().__init__()
        self.meanwhile = list(meanwhile)
        self.client = client
        self.now = 0.0

    def __call__(self, seconds: float) -> None:
        self.now += seconds
        if seconds < min(WAITS_SECONDS):
            return
        self.append(seconds)
        if self.meanwhile and self.client:
            self.client.set_attr([("u1", self.meanwhile.pop(0))])

    def clock(self) -> float:
        return self.now


def read(client: ReadingClient, expected: Mapping[str, Mapping[str, str | None]], *, waits: Waits) -> ReadBack:
    pacer = Pacer(100, clock=waits.clock)
    return read_back(client, expected, pacer=pacer, wait=waits, clock=waits.clock)


def test_accounts_that_hold_what_was_acknowledged_match_without_waiting(client: Client) -> None:
    client.set_attr([("u1", {"city": "上海", "note": "n"}), ("u2", {"city": "Bonn"})])
    waits = Waits()
    found = read(client, {"u1": {"city": "上海"}, "u2": {"city": "Bonn", "note": None}}, waits=waits)
    assert found == ReadBack(sampled=2, matching=2)
    assert (found.mismatched, waits) == (0, [])


@pytest.mark.parametrize(
    "expected", [{"city": "Köln"}, {"note": "gone"}, {"city": None}, {"city": "Bonn", "note": "x"}]
)
def test_another_value_a_missing_and_an_unremoved_one_are_mismatches(
    client: Client, expected: dict[str, str | None]
) -> None:
    client.set_attr([("u1", {"city": "Bonn"})])
    waits = Waits()
    assert read(client, {"u1": expected}, waits=waits).mismatched == 1
    assert tuple(waits) == WAITS_SECONDS


def test_an_account_that_the_target_does_not_know_is_a_mismatch(client: Client) -> None:
    assert read(client, {"new-1": {"city": "Bonn"}}, waits=Waits()).mismatched == 1


@pytest.mark.parametrize("late", [1, 2])
def test_a_write_that_shows_late_is_no_mismatch_and_only_its_account_is_read_again(
    emulator: Emulator, client: Client, late: int
) -> None:
    client.set_attr([("u1", {"city": "old"}), ("u2", {"city": "Bonn"})])
    waits = Waits(*[{"city": "old"}] * (late - 1), {"city": "new"}, client=client)
    found = read(client, {"u1": {"city": "new"}, "u2": {"city": "Bonn"}}, waits=waits)
    assert found.mismatched == 0
    assert tuple(waits) == WAITS_SECONDS[:late]
    reads = [call.accounts for call in emulator.calls if call.command == Command.GET_ATTR]
    assert reads == [2] + [1] * late


def test_a_sample_is_read_a_hundred_at_a_time(emulator: Emulator, client: Client) -> None:
    accounts = [f"u{number}" for number in range(250)]
    for start in range(0, 250, 100):
        client.set_attr([(account, {"city": account}) for account in accounts[start : start + 100]])
    found = read(client, {account: {"city": account} for account in accounts}, waits=Waits())
    assert found == ReadBack(sampled=250, matching=250)
    assert [call.accounts for call in emulator.calls if call.command == Command.GET_ATTR] == [100, 100, 50]


def test_nothing_to_sample_asks_for_nothing(emulator: Emulator, client: Client) -> None:
    found = read(client, {}, waits=Waits())
    assert found == ReadBack(sampled=0, matching=0)
    assert found.mismatch_share_bound == 1.0
    assert not list(emulator.calls)


def test_a_refused_call_is_raised(emulator: Emulator, client: Client) -> None:
    emulator.faults.add(RefuseCall(60004))
    with pytest.raises(CallRefusedError):
        read(client, {"u1": {"city": "Bonn"}}, waits=Waits())


# The quota ----------------------------------------------------------------------------------------------------------


class Answering:
    """Answers after `round_trip_seconds` of virtual time, and notes when the questions arrived."""

    def __init__(self, waits: Waits, *, round_trip_seconds: float = 0.0) -> None:
        self.waits = waits
        self.half_seconds = round_trip_seconds / 2
        self.arrived_at: list[float] = []
        self.failures: list[Exception] = []

    def get_attr(self, accounts: Sequence[str]) -> tuple[dict[str, dict[str, str]], tuple[()]]:
        self.waits.now += self.half_seconds
        self.arrived_at.append(self.waits.now)
        self.waits.now += self.half_seconds
        if self.failures:
            raise self.failures.pop()
        return {account: {"city": "Bonn"} for account in accounts}, ()

    def worst_second(self) -> int:
        """The most arrivals in any second, its end not included."""
        return max(
            bisect_left(self.arrived_at, start + 1.0 - 1e-9) - number for number, start in enumerate(self.arrived_at)
        )


MANY = {f"u{number}": {"city": "Bonn"} for number in range(30_000)}  # 300 calls


@pytest.mark.parametrize("round_trip_seconds", [0.0, 0.002, 0.05])
def test_no_second_sees_more_reads_than_the_quota(round_trip_seconds: float) -> None:
    waits = Waits()
    target = Answering(waits, round_trip_seconds=round_trip_seconds)
    assert read(target, MANY, waits=waits).mismatched == 0
    assert len(target.arrived_at) == 300
    assert target.worst_second() <= 100
    assert waits.now == pytest.approx(max(3.0, 300 * round_trip_seconds), rel=0.03), "and the quota is used"


def test_the_measure_sees_reads_beyond_the_quota() -> None:
    waits = Waits()
    target = Answering(waits, round_trip_seconds=0.001)
    read_back(target, MANY, pacer=Pacer(110, clock=waits.clock), wait=waits, clock=waits.clock)
    assert target.worst_second() > 100


def test_what_else_reads_by_the_same_pacer_is_counted_too() -> None:
    waits = Waits()
    quota = Quota(1, clock=waits.clock)
    target = Answering(waits)
    for _ in range(2):
        pacer = quota.pacer(Command.GET_ATTR)
        read_back(target, {"u1": {"city": "Bonn"}}, pacer=pacer, wait=waits, clock=waits.clock)
    assert target.arrived_at[1] - target.arrived_at[0] >= 1.0


def test_a_call_without_an_answer_gives_its_permit_back() -> None:
    waits = Waits()
    target = Answering(waits)
    pacer = Pacer(1, clock=waits.clock)
    target.failures = [TargetUnreachableError("no answer")]
    with pytest.raises(TargetUnreachableError):
        read_back(target, {"u1": {"city": "Bonn"}}, pacer=pacer, wait=waits, clock=waits.clock)
    assert read_back(target, {"u1": {"city": "Bonn"}}, pacer=pacer, wait=waits, clock=waits.clock).mismatched == 0


# The bound ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hits", "drawn", "bound"),
    [
        # Clopper and Pearson's one-sided bounds, from tables of the binomial distribution
        (0, 10, 0.2589),
        (0, 20, 0.1391),
        (1, 20, 0.2161),
        (2, 20, 0.2826),
        (5, 10, 0.7776),
        (0, 300, 0.00994),
        (3, 300, 0.0256),
    ],
)
def test_the_bound_is_clopper_and_pearsons(hits: int, drawn: int, bound: float) -> None:
    assert upper_bound(hits, drawn) == pytest.approx(bound, abs=1.5e-4)


def test_without_a_mismatch_the_bound_is_the_closed_form() -> None:
    for drawn in (1, 7, 300, 100_000):
        assert upper_bound(0, drawn) == pytest.approx(1 - 0.05 ** (1 / drawn), rel=1e-9)


def test_the_bound_is_above_the_share_and_falls_with_the_sample() -> None:
    bounds = [upper_bound(drawn // 10, drawn) for drawn in (10, 100, 1_000, 5_000)]
    assert bounds == sorted(bounds, reverse=True)
    assert all(0.1 < bound < 1 for bound in bounds)


def test_the_bound_holds_for_large_samples_too() -> None:
    """Half of many: the binomial coefficients are beyond any float."""
    assert upper_bound(5_000, 10_000) == pytest.approx(0.5 + 1.645 * math.sqrt(0.25 / 10_000), abs=2e-4)


@pytest.mark.parametrize(("hits", "drawn"), [(0, 0), (7, 7)])
def test_nothing_seen_or_nothing_right_bounds_nothing(hits: int, drawn: int) -> None:
    assert upper_bound(hits, drawn) == 1.0
