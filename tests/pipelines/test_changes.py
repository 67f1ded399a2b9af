"""Which rows of a frame become changes, and which of a stopped push were never read."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.tencent_push.outcomes import Change
from connectors.tencent_push.protocol import AccountType, Command
from pipelines import changes
from pipelines.changes import Exceptions, FrameChanges, PlannedCalls, unread_rows
from pipelines.engine import Engine
from pipelines.frames import Counts, Frame
from pipelines.refusal_memory import Withheld
from tests.pipelines.ledger_cases import Set, write_frame

SET, REMOVE = Command.SET_ATTR, Command.REMOVE_ATTR
ROWS: list[tuple[str, Set, Sequence[str]]] = [
    ("u0", {"city": "Bonn", "note": "n"}, []),
    ("u1", {}, []),
    ("u2", {"city": "上海"}, ["note"]),
    ("u3", {}, ["city", "note"]),
    ("u4", {"note": "ü"}, []),
    ("u5", {}, []),
]


@pytest.fixture
def frame(tmp_path: Path) -> Frame:
    return frame_at(write_frame(tmp_path / "frame.parquet", *ROWS))


def frame_at(path: Path) -> Frame:
    counts = Counts(profiles=6, classified=6, without_account=0, superseded=0, invalid=0, unchanged=2, changed=4)
    return Frame(
        account_type=AccountType.USER_ID,
        path=path,
        rows=6,
        chosen_rows=6,
        accounts=6,
        set_accounts=3,
        remove_accounts=2,
        changed_attributes={"city": 2, "note": 2},
        largest_value_bytes=6,
        smallest_value_bytes=1,
        counts=counts,
    )


def numbers(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def test_a_row_that_asks_for_nothing_is_no_change(frame: Frame) -> None:
    assert list(FrameChanges(frame, Exceptions())) == [
        Change(0, "u0", {"city": "Bonn", "note": "n"}),
        Change(2, "u2", {"city": "上海"}, ("note",)),
        Change(3, "u3", {}, ("city", "note")),
        Change(4, "u4", {"note": "ü"}),
    ]


@pytest.mark.parametrize("chunk_rows", [1, 2, 3, 100])
def test_exceptions_hold_whatever_the_chunks(frame: Frame, chunk_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "CHUNK_ROWS", chunk_rows)
    withheld = Withheld({SET: numbers(2, 4), REMOVE: numbers(3)}, alone=numbers(2))
    exceptions = Exceptions(acknowledged=numbers(0), withheld=withheld)
    assert list(FrameChanges(frame, exceptions)) == [Change(2, "u2", {}, ("note",), alone=True)]


@given(numbers=st.sets(st.integers(0, 60)), first=st.integers(0, 60), count=st.integers(0, 20))
def test_a_row_is_marked_if_and_only_if_its_number_is_listed(numbers: set[int], first: int, count: int) -> None:
    flags = changes.marked(np.array(sorted(numbers), dtype=np.int64), first, count)
    assert flags.tolist() == [number in numbers for number in range(first, first + count)]


def test_the_last_number_is_that_of_the_change_handed_out_last(frame: Frame) -> None:
    read = FrameChanges(frame, Exceptions())
    assert read.last_number == -1
    handed_out = iter(read)
    assert [next(handed_out).number, read.last_number] == [0, 0]
    assert [next(handed_out).number, read.last_number] == [2, 2]


@pytest.mark.parametrize(
    ("exceptions", "calls"),
    [
        (Exceptions(), (1, 1)),
        (Exceptions(withheld=Withheld({SET: numbers(0, 4)})), (1, 1)),
        (Exceptions(numbers(2), Withheld({SET: numbers(0, 4)})), (0, 1)),
        (Exceptions(numbers(2, 3), Withheld({SET: numbers(0, 2)})), (1, 0)),
        (Exceptions(withheld=Withheld(alone=numbers(0, 2, 3))), (3, 2)),
        (Exceptions(numbers(2), Withheld({SET: numbers(0)}, numbers(0, 2, 3))), (1, 1)),
        (Exceptions(numbers(0, 2, 3, 4), Withheld(alone=numbers(0, 2))), (0, 0)),
    ],
)
def test_what_is_acknowledged_or_withheld_takes_no_call_and_what_goes_alone_takes_one(
    frame: Frame, engine: Engine, exceptions: Exceptions, calls: tuple[int, int]
) -> None:
    assert changes.planned_calls(engine, frame, exceptions) == PlannedCalls(*calls)


@pytest.mark.parametrize("after", [-1, 0, 1, 2, 3, 4])
def test_read_and_unread_rows_are_the_frame_and_none_is_both(frame: Frame, after: int, engine: Engine) -> None:
    """Of every request, whatever the push had withheld, passed over or read."""
    withheld = engine.register(
        "withheld", pa.table({"number": [2, 3], "command": [SET.value, REMOVE.value], "code": [90033, 90033]})
    )
    done = engine.register("done", pa.table({"number": pa.array([0], pa.int64())}))
    rows = engine.numbered_parquet("rows", frame.path)
    unread = {
        command: set(
            engine.numbers(unread_rows(rows, command, after=after, withheld=withheld, acknowledged=done)).tolist()
        )
        for command in (SET, REMOVE)
    }
    assert unread == {SET: {n for n in (4,) if n > after}, REMOVE: {n for n in (2,) if n > after}}
    everything = {
        command: set(
            engine.numbers(
                unread_rows(rows, command, after=-1, withheld=None, acknowledged=done.filter(done.number < 0))
            ).tolist()
        )
        for command in (SET, REMOVE)
    }
    assert everything == {SET: {0, 2, 4}, REMOVE: {2, 3}}
