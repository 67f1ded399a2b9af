"""The contract of single values in hand-computed cases: canonical text, limits, truncation."""

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import pytest

from tests.reference_values import FailedByPolicyError, canonical, nearness, sendable, truncated

FAMILY = "👨‍👩‍👧‍👦"  # 25 bytes, one grapheme cluster


@pytest.mark.parametrize(
    ("value", "decimals", "text"),
    [
        ("  e\u0301 ", None, "  e\u0301 "),
        (True, None, "true"),
        (False, None, "false"),
        (-120, None, "-120"),
        (Decimal("12.50"), None, "12.50"),
        (Decimal("1E+3"), None, "1000"),
        (Decimal("0.0000001"), None, "0.0000001"),
        (date(2026, 2, 3), None, "2026-02-03"),
        (date(7, 2, 3), None, "0007-02-03"),
        (datetime(2026, 2, 3, 4, 5, 6, 999_999), None, "2026-02-03T04:05:06Z"),
        (datetime(2026, 2, 3, 1, tzinfo=timezone(timedelta(hours=8))), None, "2026-02-02T17:00:00Z"),
        (datetime(1969, 12, 31, 23, 59, 59, 900_000, tzinfo=UTC), None, "1969-12-31T23:59:59Z"),
        (12.25, 1, "12.2"),
        (0.5, 0, "0"),
        (-0.04, 1, "0.0"),
        (-0.0, 2, "0.00"),
        (-0.4, 0, "0"),
        (-0.06, 1, "-0.1"),
        (1e21, 1, "1000000000000000000000.0"),
    ],
)
def test_canonical_text(value: object, decimals: int | None, text: str) -> None:
    assert canonical(value, decimals=decimals) == text


@pytest.mark.parametrize("value", [1.5, [1], {"a": 1}, b"x"])
def test_what_has_no_canonical_text_is_a_mistake_of_the_mapping(value: object) -> None:
    with pytest.raises(TypeError):
        canonical(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_float_that_is_no_number_is_invalid(value: float) -> None:
    sent, problem = sendable(value, decimals=1)
    assert sent is None
    assert problem == {"reason": "value_invalid", "value": str(value), "value_bytes": len(str(value))}


@pytest.mark.parametrize("char", ["\x00", "\t", "\n", "\x1f", "\x7f", "\x9f"])
def test_a_control_character_makes_a_value_invalid_even_behind_the_cut(char: str) -> None:
    text = "x" * 60 + char
    assert sendable(text, too_long="truncate") == (
        None,
        {"reason": "value_invalid", "value": text, "value_bytes": 60 + len(char.encode())},
    )


@pytest.mark.parametrize("text", ["\u200d", "\u202e", "\xad", "\ufffe", "\u2028", " "])
def test_other_invisible_characters_are_text(text: str) -> None:
    assert sendable(text) == (text, {})


def test_a_value_has_at_most_50_bytes() -> None:
    assert sendable("é" * 25) == ("é" * 25, {})
    assert sendable("é" * 25 + "x") == (None, {"reason": "value_too_long", "value": "é" * 25 + "x", "value_bytes": 51})


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("x" * 51, "x" * 50),
        ("上" * 17, "上" * 16),
        ("x" * 26 + FAMILY, "x" * 26),
        ("x" * 25 + FAMILY + "y", "x" * 25 + FAMILY),
        ("x" * 46 + "🇨🇳🇹🇭", "x" * 46),
        ("x" * 42 + "🇨🇳🇹🇭", "x" * 42 + "🇨🇳"),
        ("x" * 46 + "👍🏽", "x" * 46),
        ("x" * 49 + "e\u0301", "x" * 49),
        ("x" * 46 + "น้ำ", "x" * 46),
        ("x" * 47 + FAMILY + "y", "x" * 47),  # what follows the first cluster that is too much is left out as well
    ],
)
def test_truncation_keeps_whole_grapheme_clusters(text: str, kept: str) -> None:
    assert truncated(text) == kept
    assert sendable(text, too_long="truncate")[0] == kept


def test_a_first_cluster_of_more_than_50_bytes_is_too_long_even_for_truncate() -> None:
    text = "Z" + "\u0337" * 25
    sent, problem = sendable(text, too_long="truncate")
    assert (sent, problem["reason"], problem["value_bytes"]) == (None, "value_too_long", 51)


def test_fail_stops_the_run() -> None:
    with pytest.raises(FailedByPolicyError):
        sendable("x" * 51, too_long="fail")


def test_case_and_surrounding_blanks_alone_make_accounts_near() -> None:
    near = ["Ü1", "ü1", " ü1\u3000", "\u2029Ü1"]
    assert {nearness(account) for account in near} == {"ü1"}
    assert nearness("u 1") != nearness("u1") != nearness("u1\u200b")
    assert (nearness("ς"), nearness("Σ"), nearness("ß"), nearness("İ")) == ("ς", "σ", "ß", "i")
