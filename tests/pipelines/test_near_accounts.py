"""Near accounts are found by what differs: case and surrounding blanks of every script, and nothing else."""

import unicodedata
from collections.abc import Iterable, Sequence

import ibis.expr.types as ir
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.engine import Engine
from pipelines.near_accounts import folded, near_accounts
from pipelines.source_rows import FILE, ROW
from tests.reference_values import nearness

BLANKS = [chr(code) for code in range(0x11000) if unicodedata.category(chr(code))[0] == "Z"]


def table(engine: Engine, name: str, accounts: Sequence[str]) -> ir.Table:
    rows = pa.array(range(len(accounts)), pa.int64())
    return engine.register(
        name, pa.table({FILE: pa.nulls(len(accounts), pa.int64()).fill_null(0), ROW: rows, "account": accounts})
    )


def found(engine: Engine, accounts: Iterable[str], among: Sequence[str]) -> dict[str, str]:
    mine = list(dict.fromkeys(accounts))
    rows = engine.rows(near_accounts(table(engine, "mine", mine), table(engine, "others", among)))
    assert all(mine[row[ROW]] == row["account"] for row in rows)
    assert len({row[ROW] for row in rows}) == len(rows)
    return {row["account"]: row["near"] for row in rows}


def by_the_rules(accounts: Iterable[str], among: Iterable[str]) -> dict[str, str]:
    groups: dict[str, set[str]] = {}
    for other in among:
        groups.setdefault(nearness(other), set()).add(other)
    others = {account: groups.get(nearness(account), set()) - {account} for account in accounts}
    return {account: min(near) for account, near in others.items() if near}


@pytest.mark.parametrize(
    ("account", "other"),
    [
        ("U1", "u1"),
        ("u1 ", "u1"),
        (" u1", "U1\u3000"),
        ("\u00a0ü", "Ü"),
        ("МИР", "мир"),
        ("ΣΑΣ", "σασ"),
        ("straße", "STRAẞE"),
        ("ｕ１", "Ｕ１"),
        ("\u2029上海", "上海\u2028 "),
    ],
)
def test_case_and_surrounding_blanks_make_a_neighbour(engine: Engine, account: str, other: str) -> None:
    assert found(engine, [account], [other]) == {account: other}
    assert found(engine, [other], [account]) == {other: account}


@pytest.mark.parametrize(
    ("account", "other"),
    [
        ("u1", "u1"),
        ("u1", "u 1"),
        ("e\u0301", "é"),
        ("ss", "ß"),
        ("ς", "σ"),
        ("u1\u200b", "u1"),
        ("u01", "u1"),
        ("u1", "ｕ１"),
        ("上海", "上 海"),
    ],
)
def test_nothing_else_does(engine: Engine, account: str, other: str) -> None:
    assert found(engine, [account], [other]) == {}


def test_of_several_neighbours_the_first_is_named(engine: Engine) -> None:
    spelled = ["Ab", "aB", "AB", "ab", " ab", "other"]
    assert found(engine, spelled, spelled * 2) == {
        "Ab": " ab", "aB": " ab", "AB": " ab", "ab": " ab", " ab": "AB",
    }  # fmt: skip


def test_every_letter_and_every_blank_is_folded_as_plain_python_folds_it(engine: Engine) -> None:
    letters = [chr(code) for code in range(0x20, 0x1F000) if not 0xD800 <= code <= 0xDFFF]
    for around in ("x{}y", "{}y", "x{}"):
        texts = [around.format(char) for char in letters]
        rows = table(engine, "letters", texts)
        result = engine.rows(rows.select(ROW, folded=folded(rows.account)))
        assert [row["folded"] for row in sorted(result, key=lambda row: row[ROW])] == [nearness(text) for text in texts]
    assert {nearness(f"{blank}x{blank}") for blank in BLANKS} == {"x"}


_pieces = st.sampled_from(("a", "A", "é", "É", " ", "\u3000", "ß", "上", "1", "İ", "i", "~", "\x7f"))


@settings(max_examples=30, deadline=None)
@given(accounts=st.lists(st.lists(_pieces, min_size=1, max_size=5).map("".join), min_size=1, max_size=60))
def test_neighbours_are_those_of_the_plain_rules(engine: Engine, accounts: list[str]) -> None:
    assert found(engine, accounts, accounts) == by_the_rules(accounts, accounts)
