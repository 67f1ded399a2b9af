"""What ledgers say becomes the acknowledged attributes, whole or not at all, for one owner only."""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from connectors.tencent_push.errors import LedgerError
from connectors.tencent_push.protocol import AccountType, Command
from pipelines.acknowledged import AcknowledgedAttributes, Folded, Generation, Owner
from pipelines.engine import Engine
from pipelines.errors import DataFolderError
from pipelines.folding import OWN_COLUMNS
from tests.pipelines.ledger_cases import Call, Set, write_frame, write_ledger

OWNER = Owner(host="emulator", sdkappid=1400000000, sync="small", account_type=AccountType.USER_ID)
SET, REMOVE = Command.SET_ATTR, Command.REMOVE_ATTR
Known = dict[str, tuple[dict[str, str], list[str]]]  # account -> acknowledged attributes, uncertain names


class Pushed:
    """A data folder, and pushes that leave a frame and a ledger in it."""

    def __init__(self, engine: Engine, root: Path) -> None:
        self.engine = engine
        self.root = root
        self.state = AcknowledgedAttributes(root / "acknowledged", OWNER)

    def push(self, frame: str, changes: Sequence[tuple[str, Set, Sequence[str]]], *calls: Call, **options: Any) -> Path:
        write_frame(self.root / f"{frame}.parquet", *changes, **options)
        return write_ledger(self.state.ledger_file(frame), f"{frame}.parquet", calls, frame=frame)

    def fold(self, ledger: Path) -> Folded:
        return self.state.fold(self.engine, ledger, root=self.root)

    def known(self) -> Known:
        table = self.state.table(self.engine)
        assert table is not None
        rows = self.engine.rows(table)
        known = {}
        for row in rows:
            attributes = {name: value for name, value in row.items() if name not in OWN_COLUMNS and value is not None}
            known[row["account"]] = (attributes, row["uncertain"])
        assert len(known) == len(rows)
        return known


@pytest.fixture
def pushed(engine: Engine, tmp_path: Path) -> Pushed:
    return Pushed(engine, tmp_path)


THREE: list[tuple[str, Set, Sequence[str]]] = [
    ("u0", {"city": "Bonn", "note": "n"}, []),
    ("u1", {"city": "上海"}, ["note"]),
    ("u2", {"note": "m"}, []),
]


# Folding ------------------------------------------------------------------------------------------------------------


def test_nothing_is_known_before_the_first_push(pushed: Pushed) -> None:
    assert pushed.state.current() == Generation(number=0)
    assert pushed.state.table(pushed.engine) is None
    assert pushed.state.leftover_ledgers() == []
    assert not pushed.state.folder.exists()


def test_what_was_acknowledged_is_known_with_its_values(pushed: Pushed) -> None:
    folded = pushed.fold(pushed.push("run-1", THREE, (SET, [0, 1, 2], [0, 1], []), (REMOVE, [1], [1], [])))
    assert pushed.known() == {"u0": ({"city": "Bonn", "note": "n"}, []), "u1": ({"city": "上海"}, [])}
    assert (folded.acknowledged, folded.uncertain, folded.unsettled_calls) == (2, 0, 0)
    assert folded.generation == pushed.state.current()
    assert folded.generation.number == 1
    assert pushed.state.leftover_ledgers() == []


def test_a_change_counts_as_acknowledged_when_both_its_commands_were(pushed: Pushed) -> None:
    folded = pushed.fold(pushed.push("run-1", THREE, (SET, [0, 1, 2], [0, 1, 2], []), (REMOVE, [1], [], [])))
    assert folded.acknowledged == 2
    assert pushed.known()["u1"] == ({"city": "上海"}, [])


def test_what_may_be_written_and_what_was_in_flight_is_uncertain(pushed: Pushed) -> None:
    ledger = pushed.push("run-1", THREE, (SET, [0], [], [0]), (SET, [2], None, []), (REMOVE, [1], None, []))
    folded = pushed.fold(ledger)
    assert pushed.known() == {"u0": ({}, ["city", "note"]), "u1": ({}, ["note"]), "u2": ({}, ["note"])}
    assert (folded.acknowledged, folded.uncertain, folded.unsettled_calls) == (0, 3, 2)


def test_what_was_acknowledged_in_a_later_attempt_is_certain(pushed: Pushed) -> None:
    pushed.fold(pushed.push("run-1", THREE, (SET, [0], [], [0]), (SET, [0], [0], []), (SET, [0], None, [])))
    assert pushed.known() == {"u0": ({"city": "Bonn", "note": "n"}, [])}


def test_a_later_push_changes_just_the_attributes_that_it_names(pushed: Pushed) -> None:
    pushed.fold(pushed.push("run-1", THREE, (SET, [0, 1, 2], [0, 1, 2], [])))
    later: list[tuple[str, Set, Sequence[str]]] = [("u0", {"city": "Köln"}, ["note"]), ("u3", {"note": "new"}, [])]
    folded = pushed.fold(pushed.push("run-2", later, (SET, [0, 1], [0, 1], []), (REMOVE, [0], [0], [])))
    assert pushed.known() == {
        "u0": ({"city": "Köln"}, []),
        "u1": ({"city": "上海"}, []),
        "u2": ({"note": "m"}, []),
        "u3": ({"note": "new"}, []),
    }
    assert folded.generation.number == 2
    (part,) = pushed.state.folder.glob("*.parquet")
    assert part.name.startswith("part-00000003-")


def test_an_uncertain_value_keeps_what_was_acknowledged_before_and_is_settled_by_a_later_push(pushed: Pushed) -> None:
    pushed.fold(pushed.push("run-1", THREE[:1], (SET, [0], [0], [])))
    pushed.fold(
        pushed.push("run-2", [("u0", {"city": "Köln"}, ["note"])], (SET, [0], [], [0]), (REMOVE, [0], None, []))
    )
    assert pushed.known() == {"u0": ({"city": "Bonn", "note": "n"}, ["city", "note"])}
    pushed.fold(pushed.push("run-3", [("u0", {"city": "Köln"}, ["note"])], (SET, [0], [0], []), (REMOVE, [0], [], [])))
    assert pushed.known() == {"u0": ({"city": "Köln", "note": "n"}, ["note"])}
    pushed.fold(pushed.push("run-4", [("u0", {}, ["note"])], (REMOVE, [0], [0], [])))
    assert pushed.known() == {"u0": ({"city": "Köln"}, [])}


def test_attributes_come_and_go_with_the_mapping_and_the_old_ones_stay_known(pushed: Pushed) -> None:
    pushed.fold(pushed.push("run-1", THREE, (SET, [0, 1, 2], [0, 1, 2], [])))
    other: list[tuple[str, Set, Sequence[str]]] = [("u0", {"level": "3"}, []), ("u4", {"level": "4"}, [])]
    pushed.fold(pushed.push("run-2", other, (SET, [0, 1], [0, 1], []), names=["level"]))
    assert pushed.known()["u0"] == ({"city": "Bonn", "note": "n", "level": "3"}, [])
    assert pushed.known()["u2"] == ({"note": "m"}, [])
    assert pushed.known()["u4"] == ({"level": "4"}, [])


def test_no_attributes_name_is_taken_for_one_of_our_own(pushed: Pushed) -> None:
    names = ["known_city", "city", "is_set", "maybe_set", "known_uncertain", "set number", "it's"]
    change: tuple[str, dict[str, str], list[str]] = ("u0", {name: name.upper() for name in names}, [])
    for frame in ("run-1", "run-2"):
        pushed.fold(pushed.push(frame, [change], (SET, [0], [0], []), names=names))
        assert pushed.known() == {"u0": (change[1], [])}


def test_a_ledger_without_effect_makes_no_generation_and_goes(pushed: Pushed) -> None:
    folded = pushed.fold(pushed.push("run-1", THREE, (SET, [0, 1], [], [])))
    assert folded == Folded(Generation(0), acknowledged=0, uncertain=0, unsettled_calls=0)
    assert pushed.state.leftover_ledgers() == []


@pytest.mark.parametrize("content", [b"", b"0000004d 1a2b", b'0000004d 1a2b3c4d {"header":{"frame":'])
def test_a_ledger_whose_first_line_was_cut_off_says_that_nothing_was_sent(pushed: Pushed, content: bytes) -> None:
    """As a full disk leaves it: the next run must not stand before it."""
    pushed.fold(pushed.push("run-1", THREE, (SET, [0], [0], [])))
    ledger = pushed.state.ledger_file("run-2")
    ledger.write_bytes(content)
    folded = pushed.fold(ledger)
    assert (folded.generation, folded.acknowledged) == (pushed.state.current(), 0)
    assert pushed.state.leftover_ledgers() == []


def test_a_damaged_ledger_stays_and_changes_nothing(pushed: Pushed) -> None:
    ledger = pushed.push("run-1", THREE, (SET, [0], [0], []), (SET, [1], [1], []))
    content = bytearray(ledger.read_bytes())
    content[len(content) // 2] ^= 1
    ledger.write_bytes(content)
    with pytest.raises(LedgerError, match="damaged"):
        pushed.fold(ledger)
    assert ledger.exists()
    assert pushed.state.current().number == 0


def test_a_ledger_without_its_frame_names_the_file_and_what_to_do(pushed: Pushed) -> None:
    ledger = pushed.push("run-1", THREE, (SET, [0], [0], []))
    (pushed.root / "run-1.parquet").unlink()
    with pytest.raises(DataFolderError, match=r"run-1\.parquet, which is gone: restore"):
        pushed.fold(ledger)
    assert ledger.exists()


# Interrupted folding ------------------------------------------------------------------------------------------------


class Interrupted(BaseException):
    """A kill, as far as the code under test can see one."""


class DiesBeforeState(AcknowledgedAttributes):
    """Is killed after a generation's file was written and before state.json tells of it."""

    def _write_state(self, generation: Generation) -> None:
        if generation.parts:
            raise Interrupted
        super()._write_state(generation)


class DiesBeforeRemoval(AcknowledgedAttributes):
    """Is killed after state.json was written and before the ledger is removed."""

    def _forget(self, ledger: Path, folded: Folded) -> Folded:
        raise Interrupted


@pytest.mark.parametrize("dying", [DiesBeforeState, DiesBeforeRemoval])
@pytest.mark.parametrize("earlier_pushes", [0, 1])
def test_folding_again_after_an_interruption_gives_the_same_state(
    pushed: Pushed, dying: type[AcknowledgedAttributes], earlier_pushes: int
) -> None:
    if earlier_pushes:
        pushed.fold(
            pushed.push("run-0", [("u1", {"note": "old"}, []), ("u9", {"city": "x"}, [])], (SET, [0, 1], [0], [1]))
        )
    ledger = pushed.push("run-1", THREE, (SET, [0, 1, 2], [0, 1], [2]), (REMOVE, [1], None, []))
    undisturbed = Pushed(pushed.engine, pushed.root / "copy")
    shutil.copytree(pushed.state.folder, undisturbed.state.folder)
    shutil.copy(pushed.root / "run-1.parquet", undisturbed.root)
    undisturbed.fold(undisturbed.state.ledger_file("run-1"))
    with pytest.raises(Interrupted):
        dying(pushed.state.folder, OWNER).fold(pushed.engine, ledger, root=pushed.root)
    assert pushed.state.leftover_ledgers() == [ledger]
    since = pushed.state.current() if earlier_pushes else Generation(0)
    folded = pushed.fold(ledger)
    assert pushed.known() == undisturbed.known()
    assert folded.generation.came_only_from("run-1", since=since)
    assert pushed.state.leftover_ledgers() == []
    assert len(list(pushed.state.folder.glob("part-*.parquet"))) == 1


def test_ledgers_of_several_dead_pushes_are_listed_oldest_first(pushed: Pushed) -> None:
    first, second = (pushed.push(frame, THREE, (SET, [0], [0], [])) for frame in ("z", "a"))
    os.utime(first, (1, 1))
    os.utime(second, (2, 2))
    assert pushed.state.leftover_ledgers() == [first, second]


# Whose state it is --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "other",
    [
        Owner("console.tim.qq.com", 1400000000, "small", AccountType.USER_ID),
        Owner("emulator", 1400000001, "small", AccountType.USER_ID),
        Owner("emulator", 1400000000, "large", AccountType.USER_ID),
        Owner("emulator", 1400000000, "small", AccountType.REGISTRATION_ID),
    ],
)
def test_anothers_state_is_refused(pushed: Pushed, other: Owner) -> None:
    pushed.fold(pushed.push("run-1", THREE, (SET, [0], [0], [])))
    with pytest.raises(
        DataFolderError, match=r"belongs to sync small, .*never counts for another; point ATTRIBUTE_SYNC"
    ):
        AcknowledgedAttributes(pushed.state.folder, other).current()


def test_another_layout_is_refused_even_if_all_else_differs(pushed: Pushed) -> None:
    pushed.state.ledger_file("run-1")
    (pushed.state.folder / "state.json").write_text('{"layout": 3, "elsewhere": []}', encoding="utf-8")
    with pytest.raises(DataFolderError, match="layout 3, this program reads 2; use the program that wrote it"):
        pushed.state.current()


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"layout": 1}', b'{"layout": "x"}',
     b'{"layout": 1, "owner": "me", "generation": 1, "file": "f", "frames": []}',
     b'{"layout": 1, "owner": {}, "generation": "x", "file": "f", "frames": []}'],
)  # fmt: skip
def test_a_damaged_state_says_so(pushed: Pushed, content: bytes) -> None:
    pushed.state.ledger_file("run-1")
    (pushed.state.folder / "state.json").write_bytes(content)
    with pytest.raises(DataFolderError, match="is damaged; restore it, or remove"):
        pushed.state.current()


def test_a_generations_file_that_is_gone_is_named(pushed: Pushed) -> None:
    pushed.fold(pushed.push("run-1", THREE, (SET, [0], [0], [])))
    next(pushed.state.folder.glob("part-00000001-*.parquet")).unlink()
    with pytest.raises(DataFolderError, match=r"part-00000001-\w+\.parquet is gone; restore it, or remove"):
        pushed.state.current()


def test_a_state_that_is_gone_while_its_data_are_there_is_not_taken_for_a_first_run(pushed: Pushed) -> None:
    pushed.fold(pushed.push("run-1", THREE, (SET, [0], [0], [])))
    (pushed.state.folder / "state.json").unlink()
    with pytest.raises(DataFolderError, match=r"state\.json is gone, but its data are there"):
        pushed.state.current()


def test_the_state_names_no_account_and_no_value(pushed: Pushed) -> None:
    pushed.fold(pushed.push("run-1", THREE, (SET, [0, 1, 2], [0, 1, 2], [])))
    text = (pushed.state.folder / "state.json").read_text(encoding="utf-8")
    assert json.loads(text)["frames"] == [[1, "run-1"]]
    assert not [word for word in ("u0", "u1", "Bonn", "上海") if word in text]


# Which frame made a generation --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frames", "number", "since", "only"),
    [
        ((), 0, 0, True),
        (((1, "a"),), 1, 1, True),
        (((1, "a"),), 1, 0, True),
        (((1, "b"),), 1, 0, False),
        (((1, "b"), (2, "a")), 2, 1, True),
        (((1, "b"), (2, "a"), (3, "a")), 3, 1, True),
        (((1, "b"), (2, "a"), (3, "b")), 3, 1, False),
        (((2, "a"), (3, "a")), 3, 0, False),  # the first is not on record any more
        (((1, "a"),), 1, 2, False),  # an older state was put back
    ],
)
def test_pushing_a_frame_again_is_safe_while_it_alone_made_what_came_since(
    frames: tuple[tuple[int, str], ...], number: int, since: int, only: bool
) -> None:
    now = Generation(number, (), frames, lineage="one")
    assert now.came_only_from("a", since=Generation(since, (), lineage="one" if since else "")) is only


def test_a_folder_that_was_removed_and_grew_anew_is_of_another_lineage() -> None:
    grown_anew = Generation(2, (), ((1, "b"), (2, "b")), lineage="new")
    assert not grown_anew.came_only_from("a", since=Generation(2, (), ((1, "x"), (2, "y")), lineage="old"))
