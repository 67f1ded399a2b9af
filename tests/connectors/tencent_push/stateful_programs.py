"""Programs for the sink's stateful test, drawn by hypothesis: several nights of changes, faults, kills and stops.

A `Program` says everything that happens; running it draws nothing more, so a failing one can be written down as it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from hypothesis import strategies as st

ACCOUNTS = ("用户-0", "user-1", "ユーザー-2", "مستخدم-3", "Ünal-4", "👩🏽‍🚀-5")
ATTRIBUTES = ("city", "等级")
VALUES = ("北京", "Zürich", "القاهرة", "🏝️🏝️")


class Trouble(StrEnum):
    """What may happen to one call."""

    NONE = "none"
    BROKEN = "broken"
    TIMEOUT = "timeout"
    CONNECT_FAILED = "connect_failed"
    UNREADABLE = "unreadable"
    HTTP_502 = "http_502"
    HTTP_429 = "http_429"
    HTTP_403 = "http_403"
    CODE = "code"
    ROWS = "rows"
    FOREIGN_ROW = "foreign_row"
    EXPIRED = "expired"


CALL_CODES = (91000, 60007, 60008, 93000, 90033, 12345, 60003, 70009)
ROW_CODES = (91000, 70107, 60007, 90012, 90033, 12345, 0, 70009)


@dataclass(frozen=True)
class CallTrouble:
    """`written`: whether the API carries out what it may have carried out. `rows`: a bit for each row in trouble."""

    kind: Trouble = Trouble.NONE
    written: bool = False
    code: int = CALL_CODES[0]
    row_code: int = ROW_CODES[0]
    rows: int = 1


class EndKind(StrEnum):
    BY_ITSELF = "by_itself"
    KILLED = "killed"
    INTERRUPTED = "interrupted"
    STOPPED = "stopped"


@dataclass(frozen=True)
class End:
    """How a night ends, at its `step`th moment; `in_a_write`: a kill comes in its `step`th write to the ledger.

    After that, `torn_bytes` of the line being written are missing. `carried_out` has a bit for each call in flight at
    a kill that the API still carries out.
    """

    kind: EndKind = EndKind.BY_ITSELF
    step: int = 0
    in_a_write: bool = False
    torn_bytes: int = 0
    carried_out: int = 0


@dataclass(frozen=True)
class Update:
    account: int
    attribute: str
    value: str | None


@dataclass(frozen=True)
class Night:
    """`later` becomes second changes for accounts that already have one. `crowd` accounts get one value each.

    `resumed`: where the night before ended early, its changes are pushed on in its ledger, and nothing else. `guarded`:
    a few failures stop the push.
    """

    updates: Sequence[Update] = ()
    later: Sequence[Update] = ()
    troubles: Sequence[CallTrouble] = ()
    end: End = End()
    crowd: int = 0
    crowd_value: str | None = VALUES[0]
    resumed: bool = False
    latencies: Sequence[float] = (0.05,)
    carried_out_at_once: bool = True
    guarded: bool = False


@dataclass(frozen=True)
class Program:
    """`poison` accounts are refused with the whole call, `strangers` by name, always."""

    nights: Sequence[Night]
    batch_size: int = 100
    calls_per_second: int = 100
    attempts: int = 6
    poison: frozenset[int] = frozenset()
    poison_written: bool = False
    strangers: frozenset[int] = frozenset()

    @property
    def refused_for_good(self) -> frozenset[str]:
        return frozenset(ACCOUNTS[number] for number in self.poison | self.strangers)


def programs(
    ends: Sequence[EndKind] = tuple(EndKind), crowds: Sequence[int] = (0, 0, 0, 7, 7, 120)
) -> st.SearchStrategy[Program]:
    """`ends` and `crowds` are what each night's are drawn from."""
    few = st.frozensets(st.integers(0, len(ACCOUNTS) - 1), max_size=2)
    update = st.builds(
        Update,
        st.integers(0, len(ACCOUNTS) - 1),
        st.sampled_from(ATTRIBUTES),
        st.sampled_from(VALUES) | st.none(),
    )
    trouble = st.builds(
        CallTrouble,
        st.sampled_from(Trouble),
        written=st.booleans(),
        code=st.sampled_from(CALL_CODES),
        row_code=st.sampled_from(ROW_CODES),
        rows=st.integers(1, 2 ** len(ACCOUNTS) - 1),
    )
    end = st.builds(
        End,
        st.sampled_from(ends),
        step=st.integers(0, 12) | st.integers(0, 60),
        in_a_write=st.sampled_from([False, False, True]),
        torn_bytes=st.integers(0, 40) | st.integers(0, 200),
        carried_out=st.integers(0, 255),
    )
    night = st.builds(
        Night,
        updates=st.lists(update, max_size=8),
        later=st.lists(update, max_size=3),
        troubles=st.lists(trouble, max_size=12),
        end=end,
        crowd=st.sampled_from(crowds),
        crowd_value=st.sampled_from(VALUES) | st.none(),
        resumed=st.booleans(),
        latencies=st.lists(st.sampled_from([0.05, 0.0, 0.3, 1.5]), min_size=1, max_size=4),
        carried_out_at_once=st.booleans(),
        guarded=st.sampled_from([False, False, True]),
    )
    return st.builds(
        Program,
        st.lists(night, min_size=1, max_size=4),
        batch_size=st.sampled_from([100, 1, 2, 3]),
        calls_per_second=st.sampled_from([100, 10, 3]),
        attempts=st.sampled_from([6, 2, 1]),
        poison=few,
        poison_written=st.booleans(),
        strangers=few,
    )
