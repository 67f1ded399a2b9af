"""Parts of what is acknowledged: the last one counts, a compaction loses nothing wherever it ends."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from connectors.tencent_push.protocol import AccountType, Command
from pipelines import store
from pipelines.acknowledged import AcknowledgedAttributes, Owner
from pipelines.engine import Engine
from pipelines.errors import DataFolderError
from pipelines.folding import OWN_COLUMNS
from pipelines.narrow import CONTENT, HASH_VERSION, KEY
from tests.pipelines.ledger_cases import Set, write_frame, write_ledger

OWNER = Owner("emulator", 1400000000, "small", AccountType.USER_ID)
Cities = dict[str, str]


class Interrupted(BaseException):
    """A kill, as far as the code under test can see one."""


def state_in(root: Path) -> AcknowledgedAttributes:
    return AcknowledgedAttributes(root / "acknowledged", OWNER)


def push(engine: Engine, root: Path, frame: str, cities: Cities) -> None:
    changes: list[tuple[str, Set, Sequence[str]]] = [(account, {"city": city}, []) for account, city in cities.items()]
    write_frame(root / f"{frame}.parquet", *changes)
    numbers = list(range(len(changes)))
    ledger = state_in(root).ledger_file(frame)
    write_ledger(ledger, f"{frame}.parquet", [(Command.SET_ATTR, numbers, numbers, [])], frame=frame)


def fold(engine: Engine, root: Path) -> None:
    for ledger in state_in(root).leftover_ledgers():
        state_in(root).fold(engine, ledger, root=root)


def cities_in(engine: Engine, root: Path) -> Cities:
    table = state_in(root).table(engine)
    assert table is not None
    rows = engine.rows(table.select("account", "city"))
    assert len({row["account"] for row in rows}) == len(rows)
    return {row["account"]: row["city"] for row in rows}


MANY = {f"u{number}": "Bonn" for number in range(40)}


def test_a_small_push_adds_a_part_and_leaves_the_base_alone(engine: Engine, tmp_path: Path) -> None:
    push(engine, tmp_path, "run-1", MANY)
    fold(engine, tmp_path)
    (base,) = state_in(tmp_path).current().parts
    before = base.stat()
    push(engine, tmp_path, "run-2", {"u1": "Köln", "new": "Ulm"})
    fold(engine, tmp_path)
    parts = state_in(tmp_path).current().parts
    assert [pq.read_metadata(part).num_rows for part in parts] == [40, 2]
    assert (parts[0], base.stat().st_mtime_ns) == (base, before.st_mtime_ns)
    assert cities_in(engine, tmp_path) == {**MANY, "u1": "Köln", "new": "Ulm"}


def test_the_last_part_that_has_an_account_counts(engine: Engine, tmp_path: Path) -> None:
    push(engine, tmp_path, "run-0", MANY)
    fold(engine, tmp_path)
    for number, city in enumerate(("Köln", "Ulm", "Trier"), start=1):
        push(engine, tmp_path, f"run-{number}", {"u1": city, f"u{number + 1}": city})
        fold(engine, tmp_path)
    assert len(state_in(tmp_path).current().parts) == 4
    assert cities_in(engine, tmp_path) == {**MANY, "u1": "Trier", "u2": "Köln", "u3": "Ulm", "u4": "Trier"}


def test_parts_become_one_when_there_are_too_many(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.state_parts.MOST_PARTS", 3)
    expected = dict(MANY)
    for number in range(5):
        added = MANY if number == 0 else {f"u{number}": "Köln"}
        expected |= added
        push(engine, tmp_path, f"run-{number}", added)
        fold(engine, tmp_path)
        assert len(state_in(tmp_path).current().parts) <= 3
    assert cities_in(engine, tmp_path) == expected
    kept = {file.name for file in state_in(tmp_path).folder.glob("*.parquet")}
    assert kept == {part.name for part in state_in(tmp_path).current().parts}


@contextmanager
def killed_at(write: int, patch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Ends at the nth file that gets its name, before or after it got it; yields the names that were written."""
    names: list[str] = []
    original = store._flush

    def flush(path: Path) -> None:
        names.append(path.name)
        if len(names) == write:
            raise Interrupted
        original(path)

    with patch.context() as inside:
        inside.setattr(store, "_flush", flush)
        yield names


@pytest.mark.parametrize("write", range(1, 10))
def test_a_compaction_that_ends_anywhere_loses_nothing(
    engine: Engine, tmp_path: Path, write: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(engine, tmp_path, "run-1", MANY)
    fold(engine, tmp_path)
    changed = dict.fromkeys(list(MANY)[:20], "Köln")
    push(engine, tmp_path, "run-2", changed)
    with killed_at(write, monkeypatch) as names:
        try:
            fold(engine, tmp_path)
            finished = True
        except Interrupted:
            finished = False
    assert finished is (write > 8), names  # two parts and twice the state, each of them and its folder
    assert cities_in(engine, tmp_path) in (MANY, MANY | changed)
    fold(engine, tmp_path)
    assert cities_in(engine, tmp_path) == MANY | changed
    push(engine, tmp_path, "run-3", {"u1": "Ulm"})
    fold(engine, tmp_path)
    assert cities_in(engine, tmp_path) == MANY | changed | {"u1": "Ulm"}


def test_a_compaction_takes_with_it_what_a_kill_cut_off(engine: Engine, tmp_path: Path) -> None:
    """A killed process removes nothing, and its number is in the name: nobody else would write there again."""
    push(engine, tmp_path, "run-1", MANY)
    fold(engine, tmp_path)
    cut_off = state_in(tmp_path).folder / ".part-00000002.parquet.4194304.part"
    cut_off.write_bytes(b"PAR1")
    push(engine, tmp_path, "run-2", dict.fromkeys(MANY, "Köln"))
    fold(engine, tmp_path)
    assert not cut_off.exists()
    assert cities_in(engine, tmp_path) == dict.fromkeys(MANY, "Köln")


def to_first_layout(root: Path) -> Path:
    """The state as the program before wrote it: one file, without keys and digests."""
    folder = state_in(root).folder
    (part,) = state_in(root).current().parts
    file = folder / "generation-00000001.parquet"
    pq.write_table(pq.read_table(part).drop_columns([KEY, CONTENT]), file)
    part.unlink()
    state = json.loads((folder / "state.json").read_text())
    del state["parts"], state["hash_version"]
    (folder / "state.json").write_text(json.dumps({**state, "layout": 1, "file": file.name}))
    return file


def test_the_first_layout_is_read_and_migrated_by_the_next_push(engine: Engine, tmp_path: Path) -> None:
    push(engine, tmp_path, "run-1", MANY)
    fold(engine, tmp_path)
    file = to_first_layout(tmp_path)
    before = state_in(tmp_path).current()
    assert (before.number, before.parts, before.hash_version) == (1, (file,), "")
    assert cities_in(engine, tmp_path) == MANY
    table = state_in(tmp_path).table(engine)
    assert table is not None
    assert set(OWN_COLUMNS) <= {*table.columns}
    push(engine, tmp_path, "run-2", {"u1": "Köln"})
    fold(engine, tmp_path)
    after = state_in(tmp_path).current()
    assert (after.number, after.hash_version, file.exists()) == (2, HASH_VERSION, False)
    assert after.came_only_from("run-2", since=before)
    assert cities_in(engine, tmp_path) == {**MANY, "u1": "Köln"}


def test_a_part_that_is_gone_is_named(engine: Engine, tmp_path: Path) -> None:
    push(engine, tmp_path, "run-1", MANY)
    fold(engine, tmp_path)
    push(engine, tmp_path, "run-2", {"u1": "Köln"})
    fold(engine, tmp_path)
    gone = state_in(tmp_path).current().parts[1]
    gone.unlink()
    with pytest.raises(DataFolderError, match=rf"{gone.name} is gone; restore it"):
        state_in(tmp_path).current()
