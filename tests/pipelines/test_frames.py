"""Frames and invalid rows are, row by row, what the plain rules of `tests/reference.py` make of the same source."""

import tempfile
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines import sample_profiles
from pipelines.engine import Engine
from pipelines.errors import ValuePolicyError
from pipelines.frames import Counts, frame_columns
from pipelines.narrow import CONTENT
from pipelines.sample_profiles import write_sample_profiles
from tests.pipelines.frame_cases import (
    METADATA,
    Computed,
    Row,
    compute,
    expected,
    require_agreement,
    sync_of,
    write_source,
)
from tests.pipelines.value_texts import texts
from tests.reference import Change, FailedByPolicyError

EXAMPLE = Path(sample_profiles.__file__).parent / "defs" / "example" / "defs.yaml"
DEVICE = "379C2F0D-290D-47AE-94D1-919058C39C77"
SCHEMA = pa.schema(
    [
        ("user", pa.string()),
        ("device", pa.string()),
        ("kind", pa.string()),
        ("flag", pa.bool_()),
        ("city", pa.string()),
        ("note", pa.string()),
        ("score", pa.float64()),
        ("updated_at", pa.timestamp("us", tz="UTC")),
    ]
)
USER_ATTRIBUTES = {
    "city": "city",
    "note": {"column": "note", "too_long": "truncate", None: "remove"},
    "score": {"column": "score", "decimals": 1, "null": "remove"},
}
DEVICE_ATTRIBUTES = {"device_city": {"column": "city", "null": "remove"}, "device_note": "note"}


def sync(user: dict[str, Any] | None, device: dict[str, Any] | None, **options: Any) -> dict[str, Any]:
    accounts: dict[str, Any] = {}
    if user:
        accounts["user_id"] = {"attributes": USER_ATTRIBUTES, **user}
    if device:
        accounts["registration_id"] = {"attributes": DEVICE_ATTRIBUTES, **device}
    return {"accounts": accounts, **options}


TWO_COLUMNS = sync({"column": "user"}, {"column": "device", "where": {"flag": True}}, updated_at="updated_at")
MAPPINGS = {
    "two columns": TWO_COLUMNS,
    "all rows": {**TWO_COLUMNS, "frames": "all"},
    "two columns by patterns": sync(
        {"column": "user", "matches": "u.*"}, {"column": "device", "matches": "[0-9A-Fdu-]+"}, updated_at="updated_at"
    ),
    "mixed by where": sync(
        {"column": "user", "where": {"kind": "u"}},
        {"column": "user", "where": {"kind": "d"}},
        updated_at="updated_at",
    ),
    "mixed by matches": sync({"column": "user", "matches": "u.*"}, {"column": "user", "matches": "[^u].*|u2"}),
    "mixed by where and matches": sync(
        {"column": "user", "where": {"flag": True}}, {"column": "user", "matches": "[a-d].*"}, updated_at="updated_at"
    ),
    "users alone, the later row wins": sync({"column": "user", "where": {"kind": "u"}}, None),
    "devices alone": sync(None, {"column": "device"}, updated_at="updated_at"),
}

_accounts = st.sampled_from(("u1", "u2", "u3", "d1", "d2", None, "", " \u3000", "u\t4", "u5" + "x" * 31, DEVICE))
_values = st.one_of(st.sampled_from((None, "", "上海", "x" * 51, "a\nb", "Bonn", "old")), texts)
_rows = st.fixed_dictionaries(
    {
        "user": _accounts,
        "device": _accounts,
        "kind": st.sampled_from(("u", "d", None)),
        "flag": st.sampled_from((True, False, None)),
        "city": _values,
        "note": _values,
        "score": st.sampled_from((None, 0.25, -0.01, 7.0, float("nan"), float("inf"))),
        "updated_at": st.sampled_from((None, *(datetime(2026, 1, day, tzinfo=UTC) for day in (1, 2)))),
    }
)
_known = st.dictionaries(
    st.sampled_from(("u1", "u2", "u3", "d1", "d2")),
    st.dictionaries(
        st.sampled_from(("city", "note", "score", "device_city", "device_note")),
        st.sampled_from(("上海", "Bonn", "old", "0.2", "7.0")),
        max_size=5,
    ),
)
_uncertain = st.dictionaries(
    st.sampled_from(("u1", "u2", "d1", "u9")),
    st.lists(st.sampled_from(("city", "note", "score", "device_city", "device_note")), unique=True, max_size=3),
)


# Against the reference ----------------------------------------------------------------------------------------------


def test_the_sample_gives_the_references_frames_on_the_first_run_and_on_the_next(
    engine: Engine, tmp_path: Path
) -> None:
    example = {**yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))["attributes"]}
    files = write_sample_profiles(tmp_path / "profiles", 12_000, 3)
    assert len(files) == 2
    first = expected(files, example)
    require_agreement(compute(engine, files, example, folder=tmp_path / "first"), first)
    known = {account: attributes for account, attributes in first.attributes.items() if account[-1] not in "37"}
    again = expected(files, example, acknowledged=known)
    computed = compute(engine, files, example, acknowledged=known, folder=tmp_path / "again")
    require_agreement(computed, again)
    assert 0 < computed.counts["user_id"]["changed"] < first.counts["user_id"].changed


@pytest.mark.parametrize("name", MAPPINGS)
@settings(max_examples=7, deadline=None)
@given(files=st.lists(st.lists(_rows, max_size=8), min_size=1, max_size=3), known=_known, uncertain=_uncertain)
def test_small_tables_give_the_references_frames(
    engine: Engine, name: str, files: list[list[Row]], known: dict[str, dict[str, str]], uncertain: dict[str, list[str]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths = write_source(Path(folder), *files, schema=SCHEMA)
        computed = compute(engine, paths, MAPPINGS[name], acknowledged=known, uncertain=uncertain)
        reference = expected(paths, MAPPINGS[name], acknowledged=known, uncertain=uncertain)
        require_agreement(computed, reference)


@pytest.mark.parametrize("name", MAPPINGS)
def test_every_combination_of_accounts_gives_the_references_frames(engine: Engine, tmp_path: Path, name: str) -> None:
    """All pairs of accounts, all kinds and flags, with equal, different and null times."""
    accounts = ("u1", "u2", "d1", "d2", None, " ", "u\t4", "u5" + "x" * 31, DEVICE)
    moments = (None, datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC))
    rows = [
        {"user": user, "device": device, "kind": kind, "flag": flag, "city": f"{kind}{flag}{moment}", "note": device,
         "updated_at": moment}
        for flag in (True, False, None) for kind in ("u", "d", None) for user in accounts for device in accounts
        for moment in moments
    ]  # fmt: skip
    paths = write_source(tmp_path, rows[::2], rows[1::2], schema=SCHEMA)
    known = {"u1": {"note": "d1", "city": "elsewhere"}, "d2": {"device_city": "elsewhere"}}
    computed = compute(engine, paths, MAPPINGS[name], acknowledged=known, uncertain={"u2": ["note", "score"]})
    require_agreement(
        computed, expected(paths, MAPPINGS[name], acknowledged=known, uncertain={"u2": ["note", "score"]})
    )


# One rule at a time -------------------------------------------------------------------------------------------------


def small(engine: Engine, folder: Path, *rows: Row, wanted: dict[str, Any] = TWO_COLUMNS, **before: Any) -> Computed:
    return compute(engine, write_source(folder, rows, schema=SCHEMA), wanted, **before)


def test_a_frame_holds_what_differs_and_where_it_stood(engine: Engine, tmp_path: Path) -> None:
    rows: list[Row] = [{"user": "u1", "city": "Bonn"}, {"user": "u2", "city": "Bonn", "note": "n"}]
    known = {"u1": {"city": "Bonn"}, "u2": {"city": "Bonn"}}
    computed = small(engine, tmp_path, *rows, acknowledged=known)
    assert [{name: value for name, value in row.items() if name != CONTENT} for row in computed.rows("user_id")] == [
        {
            "account": "u2",
            "city": "Bonn",
            "note": "n",
            "score": None,
            "changed": ["note"],
            "removed": [],
            "source_file": str(tmp_path / "0.parquet"),
            "source_row": 1,
        }
    ]


def test_what_is_uncertain_is_sent_or_removed_again_though_nothing_differs(engine: Engine, tmp_path: Path) -> None:
    rows: list[Row] = [{"user": "u1", "city": "Bonn", "note": None}, {"user": "u2", "city": "Bonn"}]
    known = {"u1": {"city": "Bonn"}, "u2": {"city": "Bonn"}}
    uncertain = {"u1": ["city", "note"]}
    paths = write_source(tmp_path, rows, schema=SCHEMA)
    computed = compute(engine, paths, TWO_COLUMNS, acknowledged=known, uncertain=uncertain)
    assert computed.changes["user_id"] == {"u1": Change({"city": "Bonn"}, ["note"])}
    require_agreement(computed, expected(paths, TWO_COLUMNS, acknowledged=known, uncertain=uncertain))


def test_all_writes_the_unchanged_accounts_too_and_counts_them_the_same(engine: Engine, tmp_path: Path) -> None:
    rows: list[Row] = [{"user": "u1", "city": "Bonn"}, {"user": "u2", "city": "Bonn"}, {"user": "u3"}]
    known = {"u1": {"city": "Bonn"}}
    wanted = {**TWO_COLUMNS, "frames": "all"}
    computed = small(engine, tmp_path, *rows, wanted=wanted, acknowledged=known)
    (frame, _) = computed.frames.frames
    assert [
        (row["account"], row["changed"]) for row in sorted(computed.rows("user_id"), key=lambda row: row["account"])
    ] == [
        ("u1", []),
        ("u2", ["city"]),
        ("u3", []),
    ]
    assert (frame.rows, frame.accounts, frame.counts.changed, frame.counts.unchanged) == (3, 3, 1, 2)


def test_a_frame_counts_its_calls_attributes_and_bytes(engine: Engine, tmp_path: Path) -> None:
    rows: list[Row] = [{"user": "u1", "city": "上海"}, {"user": "u2", "city": "B"}, {"user": "u3", "note": None}]
    known = {"u2": {"note": "gone"}, "u3": {"note": "gone"}}
    (frame, devices) = small(engine, tmp_path, *rows, acknowledged=known).frames.frames
    assert (frame.set_accounts, frame.remove_accounts, frame.accounts, frame.rows) == (2, 2, 3, 3)
    assert frame.changed_attributes == {"city": 2, "note": 0, "score": 0}
    assert (frame.largest_value_bytes, frame.smallest_value_bytes) == (6, 1)
    assert (devices.rows, devices.largest_value_bytes, devices.smallest_value_bytes) == (0, 0, 1)


def test_an_empty_source_gives_empty_files_with_all_columns(engine: Engine, tmp_path: Path) -> None:
    computed = small(engine, tmp_path)
    for frame in computed.frames.frames:
        schema = pq.read_schema(frame.path)
        assert schema.names[0] == "account"
        assert schema.names[-5:] == ["changed", "removed", "source_file", "source_row", CONTENT]
        assert frame.counts == Counts(0, 0, 0, 0, 0, 0, 0)
    assert computed.invalid_rows == []
    assert computed.frames.invalid_by_reason == {}


def test_files_carry_what_they_were_made_for(engine: Engine, tmp_path: Path) -> None:
    computed = small(engine, tmp_path, {"user": "u1"})
    for path in (computed.frames.invalid_rows, *(frame.path for frame in computed.frames.frames)):
        metadata = pq.read_metadata(path).metadata
        assert {name: metadata[name.encode()].decode() for name in METADATA} == METADATA


def test_invalid_rows_are_counted_by_reason_and_explained(engine: Engine, tmp_path: Path) -> None:
    rows: list[Row] = [{"user": "u1", "city": "x" * 51}, {"user": "u1", "city": "x" * 52}, {"user": None}]
    computed = small(engine, tmp_path, *rows)
    assert computed.frames.invalid_by_reason == {"account_missing": 1, "superseded": 1, "value_too_long": 1}
    written = pq.read_table(computed.frames.invalid_rows).to_pylist()
    assert all(row["explanation"] and row["fix"] for row in written)
    assert {(row["severity"], row["outcome"]) for row in written} == {("error", "invalid"), ("notice", None)}


def test_names_with_quotes_spaces_and_other_scripts_are_only_names(engine: Engine, tmp_path: Path) -> None:
    schema = pa.schema([("User 'id\"", pa.string()), ("城市; drop", pa.string()), ("rows", pa.string())])
    attributes = {"it's": "城市; drop", 'Größe "x"': "rows", "known_it's": "rows", "x": "城市; drop"}
    wanted = {"accounts": {"user_id": {"column": "User 'id\"", "where": {"rows": "it's"}, "attributes": attributes}}}
    rows = [{"User 'id\"": "u'1", "城市; drop": "x'\"y", "rows": "it's"}]
    folder = tmp_path / "it's here"
    folder.mkdir()
    paths = write_source(folder, rows, schema=schema)
    require_agreement(compute(engine, paths, wanted), expected(paths, wanted))


def test_a_list_of_files_keeps_its_order_whatever_their_names(engine: Engine, tmp_path: Path) -> None:
    paths = write_source(tmp_path, [{"user": "u1", "city": "a"}], [{"user": "u1", "city": "b"}], schema=SCHEMA)
    computed = compute(engine, list(reversed(paths)), TWO_COLUMNS)
    assert computed.changes["user_id"]["u1"].set == {"city": "a"}


# too_long: fail -----------------------------------------------------------------------------------------------------


def test_a_too_long_value_stops_the_run_where_the_yaml_says_so_and_is_written_down_first(
    engine: Engine, tmp_path: Path
) -> None:
    wanted = sync({"column": "user", "attributes": {"city": {"column": "city", "too_long": "fail"}}}, None)
    secret = "secret-" * 8
    paths = write_source(tmp_path, [{"user": "u1"}], [{"user": "u2"}, {"user": "u3", "city": secret}], schema=SCHEMA)
    with pytest.raises(ValuePolicyError) as caught:
        compute(engine, paths, wanted)
    text = str(caught.value)
    assert "city" in text
    assert str(paths[1]) in text
    assert "secret" not in text
    assert "u3" not in text.replace(str(tmp_path), "")
    (row,) = pq.read_table(tmp_path / "frames" / "invalid_rows.parquet").to_pylist()
    assert (row["reason"], row["source_file"], row["source_row"]) == ("value_too_long", str(paths[1]), 1)
    assert not (tmp_path / "frames" / "user_id.parquet").exists()
    with pytest.raises(FailedByPolicyError):
        expected(paths, wanted)


def test_a_value_that_is_not_sent_stops_nothing(engine: Engine, tmp_path: Path) -> None:
    """Neither one of a superseded profile, nor one that is invalid already, nor one under another policy."""
    attributes = {"city": {"column": "city", "too_long": "fail"}, "note": {"column": "note", "too_long": "truncate"}}
    wanted = sync({"column": "user", "attributes": attributes}, None)
    rows: list[Row] = [
        {"user": "u1", "city": "x" * 51},
        {"user": "u1", "city": "x"},
        {"user": "u2", "city": "x" * 51 + "\n"},
        {"user": "u3", "note": "x" * 51},
    ]
    paths = write_source(tmp_path, rows, schema=SCHEMA)
    require_agreement(compute(engine, paths, wanted), expected(paths, wanted))


# Counts -------------------------------------------------------------------------------------------------------------


def test_counts_are_conserved_only_if_no_profile_is_lost() -> None:
    counts = Counts(
        profiles=10, classified=10, without_account=1, superseded=2, invalid=1, unchanged=2, changed=5, departed=1
    )
    assert counts.is_conserved
    for name in asdict(counts):
        assert not replace(counts, **{name: getattr(counts, name) + 1}).is_conserved


def test_every_column_of_a_frame_that_comes_from_the_source_says_from_which() -> None:
    mapping = sync_of(TWO_COLUMNS)
    (users, devices) = mapping.account_types()
    assert list(frame_columns(mapping, users)) == [
        ("account", "user"), ("city", "city"), ("note", "note"), ("score", "score"),
    ]  # fmt: skip
    assert list(frame_columns(mapping, devices)) == [
        ("account", "device"), ("device_city", "city"), ("device_note", "note"),
    ]  # fmt: skip
