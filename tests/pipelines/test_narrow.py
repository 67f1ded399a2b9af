"""What the narrow pass sets aside changes no result: nights in a row, keys that coincide, other rules and engines."""

import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ibis
import ibis.expr.types as ir
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.tencent_push.protocol import AccountType, Command
from pipelines import acknowledged, folding, frames, narrow, state_parts
from pipelines.engine import Engine
from pipelines.errors import EmptySourceError
from pipelines.narrow import CONTENT
from tests.pipelines.frame_cases import Row, expected
from tests.pipelines.ledger_cases import write_ledger
from tests.pipelines.night_cases import Nights
from tests.reference import Change

SCHEMA = pa.schema(
    [
        ("user", pa.string()),
        ("device", pa.string()),
        ("flag", pa.bool_()),
        ("city", pa.string()),
        ("note", pa.string()),
        ("score", pa.float64()),
        ("updated_at", pa.timestamp("us", tz="UTC")),
    ]
)
REMOVING: dict[str, Any] = {
    "city": {"column": "city", "too_long": "truncate", "null": "remove"},
    "note": {"column": "note", "null": "remove"},
    "score": {"column": "score", "decimals": 1},
}
LEAVING: dict[str, Any] = {"city": "city", "note": {"column": "note", "too_long": "truncate"}}
MAPPINGS: list[dict[str, Any]] = [
    {
        "updated_at": "updated_at",
        "accounts": {
            "user_id": {"column": "user", "attributes": attributes},
            "registration_id": {"column": "device", "where": {"flag": True}, "attributes": {"device_city": "city"}},
        },
    }
    for attributes in (REMOVING, LEAVING)
]
MIXED: dict[str, Any] = {
    "accounts": {
        "user_id": {"column": "user", "matches": "u.*", "attributes": REMOVING},
        "registration_id": {"column": "user", "where": {"flag": True}, "attributes": {"device_city": "city"}},
    }
}
_row = st.fixed_dictionaries(
    {
        "user": st.sampled_from(("u1", "u2", "u3", "u4", "d1", None, "", "u\t5")),
        "device": st.sampled_from(("d1", "d2", "u1", None, " ")),
        "flag": st.sampled_from((True, True, False, None)),
        "city": st.sampled_from((None, "", "Bonn", "Köln", "x" * 51, "x" * 50, "x" * 50 + "y", "a\nb")),
        "note": st.sampled_from((None, "n", "m", "y" * 60)),
        "score": st.sampled_from((None, 0.25, 0.251, 0.0, -0.0, float("nan"))),
        "updated_at": st.sampled_from((None, *(datetime(2026, 1, day, tzinfo=UTC) for day in (1, 2)))),
    }
)
_rows = st.lists(_row, min_size=1, max_size=7)
_edits = st.lists(st.tuples(st.integers(0, 6), _row), max_size=2)
_nights = st.lists(st.tuples(_edits, st.sampled_from((*MAPPINGS, MAPPINGS[0], MIXED))), min_size=2, max_size=4)


def edited(rows: list[Row], edits: Sequence[tuple[int, Row]]) -> list[Row]:
    rows = list(rows)
    for place, row in edits:
        rows[place % len(rows)] = row
    return rows


@settings(max_examples=15, deadline=None)
@given(rows=_rows, nights=_nights, key_bits=st.sampled_from((0, 1, 64)), always_copy=st.booleans())
def test_nights_in_a_row_give_what_the_plain_rules_give(
    engine: Engine, rows: list[Row], nights: Sequence[Any], key_bits: int, always_copy: bool
) -> None:
    """Changes, nulls, reported values, other mappings; keys that many accounts share; open profiles copied or not."""
    known: dict[str, dict[str, str]] = {}
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        share_keys(patch, key_bits)
        patch.setattr(narrow, "MOST_OPEN", 1.0 if always_copy else 0.25)
        work = Nights(engine, Path(folder), schema=SCHEMA)
        for edits, sync in nights:
            rows = edited(rows, edits)
            computed = work.compute(rows, sync)
            reference = expected(work.files, sync, acknowledged=known)
            assert computed.changes == reference.changes
            assert computed.invalid_rows == reference.failed_rows
            assert all(frame.counts.is_conserved for frame in computed.frames.frames)
            assert computed.frames.invalid_found == len(reference.failed_rows)
            work.push(computed)
            known = reference.attributes


def share_keys(patch: pytest.MonkeyPatch, bits: int) -> None:
    """Keys of so few bits that accounts share them."""
    original = narrow.account_key

    def few(account: ir.StringValue) -> ir.IntegerValue:
        if bits == 64:
            return original(account)
        return original(account) & ibis.literal((1 << bits) - 1, "uint64")

    for module in (narrow, folding, frames, state_parts):
        patch.setattr(module, "account_key", few)


ROWS: list[Row] = [{"user": f"u{number}", "city": "Bonn", "note": "n"} for number in range(40)]


@pytest.fixture
def nights(engine: Engine, tmp_path: Path) -> Nights:
    return Nights(engine, tmp_path, schema=SCHEMA)


def looked_at(nights: Nights, rows: Sequence[Row], monkeypatch: pytest.MonkeyPatch) -> int:
    """How many profiles of `rows` are open for UserIDs in one more night."""
    seen: list[int] = []
    original = narrow.narrowed

    def watched(*arguments: Any) -> narrow.Narrowed:
        found = original(*arguments)
        seen.append(found.open[AccountType.USER_ID])
        return found

    monkeypatch.setattr(frames, "narrowed", watched)
    nights.compute(rows, MAPPINGS[1])
    return seen[0]


def test_what_was_acknowledged_whole_is_not_looked_at_again(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    nights.push(nights.compute(ROWS, MAPPINGS[1]))
    assert looked_at(nights, ROWS, monkeypatch) == 0
    assert looked_at(nights, edited(ROWS, [(3, {"user": "u3", "city": "Köln"})]), monkeypatch) == 1


def test_accounts_that_share_a_key_are_all_looked_at(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    share_keys(monkeypatch, 1)
    nights.push(nights.compute(ROWS, MAPPINGS[1]))
    assert looked_at(nights, ROWS, monkeypatch) == len(ROWS)


def test_digests_of_another_engine_version_are_not_believed_and_learned_anew(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    nights.push(nights.compute(ROWS, MAPPINGS[1]))
    for module in (acknowledged, narrow):
        monkeypatch.setattr(module, "HASH_VERSION", "duckdb-99")
    (table,) = [nights.state(AccountType.USER_ID).table(nights.engine)]
    assert table is not None
    assert nights.engine.rows(table.aggregate(known=table[CONTENT].count())) == [{"known": 0}]
    assert looked_at(nights, ROWS, monkeypatch) == len(ROWS), "nothing is believed"
    assert looked_at(nights, ROWS, monkeypatch) == 0, "it was learned in the night before"
    assert nights.state(AccountType.USER_ID).current().hash_version == "duckdb-99"


def test_accounts_without_any_attribute_make_no_new_part(nights: Nights) -> None:
    """They are as they should be every night, but the state has no row of them that could keep a digest."""
    rows = [*ROWS, *({"user": f"empty{number}"} for number in range(5))]
    nights.push(nights.compute(rows, MAPPINGS[1]))
    before = nights.state(AccountType.USER_ID).current()
    assert nights.compute(rows, MAPPINGS[1]).rows("user_id") == []
    assert nights.state(AccountType.USER_ID).current() == before


def test_what_has_something_to_report_is_looked_at_every_night(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = edited(ROWS, [(0, {"user": "u0", "city": "x" * 51, "note": "n"})])
    nights.push(nights.compute(rows, MAPPINGS[1]))
    assert looked_at(nights, rows, monkeypatch) == 1


def test_near_accounts_are_looked_at_and_reported_every_night(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when nothing of them changes, and where there is nothing to send."""
    rows = [*ROWS, {"user": "U3", "city": "Bonn"}, {"user": "u3 ", "city": "Bonn"}, {"user": " u3", "city": None}]
    first = nights.compute(rows, MAPPINGS[1])
    assert {row["reason"] for row in first.invalid_rows} == {"account_near_another"}
    near = {" u3": "U3", "U3": " u3", "u3": " u3", "u3 ": " u3"}
    assert {row["account"]: row["value"] for row in first.invalid_rows} == near
    nights.push(first)
    assert looked_at(nights, rows, monkeypatch) == 4
    again = nights.compute(rows, MAPPINGS[1])
    assert again.invalid_rows == [
        {**row, "source_file": row["source_file"].replace("night-1", "night-3")} for row in first.invalid_rows
    ]
    assert (again.rows("user_id"), again.frames.invalid_found) == ([], 4)
    assert nights.compute(ROWS, MAPPINGS[1]).invalid_rows == [], "the others have gone"


def test_an_account_that_comes_near_one_that_is_settled_is_found_at_once(nights: Nights) -> None:
    nights.push(nights.compute(ROWS, MAPPINGS[1]))
    found = nights.compute([*ROWS, {"user": "U3", "city": "Bonn"}], MAPPINGS[1])
    assert {row["account"]: row["value"] for row in found.invalid_rows} == {"U3": "u3", "u3": "U3"}


def test_another_mapping_makes_everything_be_looked_at(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    nights.push(nights.compute(ROWS, MAPPINGS[0]))
    assert looked_at(nights, ROWS, monkeypatch) == len(ROWS)


def test_a_digest_of_a_frame_of_another_engine_version_is_not_believed(
    nights: Nights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A push is cut off, another version is installed, and its first run folds what the old one sent."""
    monkeypatch.setattr(narrow, "MOST_OPEN", 9)
    nights.push(nights.compute(ROWS, MAPPINGS[1]))
    rows = edited(ROWS, [(3, {"user": "u3", "city": "Ulm"})])
    (frame, _) = nights.compute(rows, MAPPINGS[1]).frames.frames
    ledger = nights.state(AccountType.USER_ID).ledger_file("cut-off")
    write_ledger(ledger, str(frame.path.relative_to(tmp_path)), [(Command.SET_ATTR, [0], [0], [])], frame="cut-off")
    for module in (acknowledged, narrow):
        monkeypatch.setattr(module, "HASH_VERSION", "duckdb-99")
    nights.state(AccountType.USER_ID).fold(nights.engine, ledger, root=tmp_path)
    assert looked_at(nights, rows, monkeypatch) == len(rows)


@pytest.mark.parametrize("name", ["values.py", "accounts.py", "comparison.py", "protocol.py"])
def test_another_program_makes_everything_be_looked_at(
    nights: Nights, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    nights.push(nights.compute(ROWS, MAPPINGS[1]))
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read(path) + b"#" * (path.name == name))
    assert looked_at(nights, ROWS, monkeypatch) == len(ROWS)


# Departed accounts --------------------------------------------------------------------------------------------------

LEFT_BEHIND = {**MAPPINGS[1], "departed": "leave"}
REMOVED = {**MAPPINGS[1], "departed": "remove"}


@pytest.mark.parametrize("key_bits", [1, 64])
def test_departed_accounts_are_counted_and_left_alone(
    nights: Nights, monkeypatch: pytest.MonkeyPatch, key_bits: int
) -> None:
    share_keys(monkeypatch, key_bits)
    nights.push(nights.compute(ROWS, LEFT_BEHIND))
    computed = nights.compute(ROWS[2:], LEFT_BEHIND)
    assert computed.frames.frames[0].departed == 2
    assert computed.rows("user_id") == []


@pytest.mark.parametrize("key_bits", [1, 64])
@pytest.mark.parametrize("kept", [2, 39])  # few that are open, or all
def test_departed_accounts_lose_every_attribute_that_is_known(
    nights: Nights, monkeypatch: pytest.MonkeyPatch, key_bits: int, kept: int
) -> None:
    share_keys(monkeypatch, key_bits)
    nights.push(nights.compute(edited(ROWS, [(39, {"user": "u39", "city": "Bonn"})]), REMOVED))
    computed = nights.compute(ROWS[:kept], REMOVED)
    frame = computed.frames.frames[0]
    rows = {row["account"]: row for row in computed.rows("user_id")}
    assert rows.keys() == {f"u{number}" for number in range(kept, 40)}
    assert rows["u39"]["removed"] == ["city"]
    assert (rows["u39"]["city"], rows["u39"]["changed"], rows["u39"]["source_file"]) == (None, [], None)
    assert (frame.departed, frame.counts.departed, frame.counts.is_conserved) == (40 - kept, 40 - kept, True)
    nights.push(computed)
    assert nights.compute(ROWS[:kept], REMOVED).frames.frames[0].departed == 0


@pytest.mark.parametrize("most_open", [0.25, 9])
def test_keys_of_other_days_make_nobody_depart(
    nights: Nights, monkeypatch: pytest.MonkeyPatch, most_open: float
) -> None:
    """Accounts are keyed in another way than when the state was written, and nobody thought of the version."""
    monkeypatch.setattr(narrow, "MOST_OPEN", most_open)
    nights.push(nights.compute(ROWS, REMOVED))
    original = narrow.account_key
    for module in (narrow, folding, frames, state_parts):
        monkeypatch.setattr(module, "account_key", lambda account: original(account + "?"))
    computed = nights.compute(ROWS[1:], REMOVED)
    assert [row["account"] for row in computed.rows("user_id")] == ["u0"]


def test_an_account_that_a_profile_names_wrongly_has_not_departed(nights: Nights) -> None:
    nights.push(nights.compute(ROWS, REMOVED))
    both = edited(ROWS, [(0, {"user": "u0", "device": "u0", "flag": True})])
    assert nights.compute(both, REMOVED).frames.frames[0].departed == 0


def test_an_empty_source_never_means_to_remove_everyone(nights: Nights) -> None:
    nights.push(nights.compute(ROWS, REMOVED))
    with pytest.raises(EmptySourceError, match="would remove the attributes of all 40 accounts") as caught:
        nights.compute([{"user": " "}], REMOVED)
    assert "u1" not in str(caught.value)
    assert nights.compute([], LEFT_BEHIND).frames.frames[0].departed == 40


def is_named(row: Row, sync: Mapping[str, Any], kind: str) -> bool:
    """Whether the profile has an account of the type, however wrong it is."""
    types = sync["accounts"]
    account = row[types[kind]["column"]]
    if account is None or not account.strip():
        return False
    claims = {"user_id": account.startswith("u"), "registration_id": row["flag"] is True}
    if types["user_id"]["column"] == types["registration_id"]["column"]:
        return claims[kind] or not any(claims.values())
    return kind == "user_id" or claims[kind]


def departed_of(
    rows: Sequence[Row], sync: Mapping[str, Any], kind: str, known: Mapping[str, Mapping[str, str]]
) -> dict[str, Change]:
    """By the plain rules: who is known and named by no row loses every attribute of the mapping that is known."""
    mine = sync["accounts"][kind]
    named = {row[mine["column"]] for row in rows if is_named(row, sync, kind)}
    gone = {
        account: Change({}, [name for name in mine["attributes"] if name in attributes])
        for account, attributes in known.items()
        if account not in named
    }
    return {account: change for account, change in gone.items() if change.remove}


@settings(max_examples=15, deadline=None)
@given(rows=_rows, nights=_nights, key_bits=st.sampled_from((0, 1, 64)), kept=st.lists(st.booleans(), min_size=7))
def test_nights_in_a_row_clear_whom_the_plain_rules_miss(
    engine: Engine, rows: list[Row], nights: Sequence[Any], key_bits: int, kept: list[bool]
) -> None:
    """In every second night some profiles are missing; they may come back in the next."""
    known: dict[str, dict[str, str]] = {}
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        share_keys(patch, key_bits)
        patch.setattr(narrow, "MOST_OPEN", 1.0)
        work = Nights(engine, Path(folder), schema=SCHEMA)
        for number, (edits, sync) in enumerate(nights):
            rows = edited(rows, edits)
            tonight = [row for row, stays in zip(rows, kept, strict=False) if stays or number % 2 == 0]
            try:
                computed = work.compute(tonight, {**sync, "departed": "remove"})
            except EmptySourceError:
                computed = None
            reference = expected(work.files, sync, acknowledged=known)
            gone = {kind: departed_of(tonight, sync, kind, known) for kind in reference.counts}
            left = {kind: counts.changed + counts.unchanged for kind, counts in reference.counts.items()}
            if any(gone[kind] and not left[kind] for kind in gone):
                assert computed is None
                return
            assert computed is not None
            assert computed.changes == {kind: reference.changes[kind] | gone[kind] for kind in gone}
            assert [frame.departed for frame in computed.frames.frames] == [len(each) for each in gone.values()]
            assert all(frame.counts.is_conserved for frame in computed.frames.frames)
            work.push(computed)
            known = reference.attributes
            for changes in gone.values():
                for account, change in changes.items():
                    known[account] = {n: v for n, v in known[account].items() if n not in change.remove}
