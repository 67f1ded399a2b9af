"""The reference's rules for single values: canonical text, limits, truncation. Plain Python and `regex` alone.

Belongs to `reference.py`, which says why; nothing here knows of profiles or accounts.
"""

import unicodedata
from datetime import UTC, date, datetime
from decimal import Decimal
from math import isfinite
from typing import Any

import regex

VALUE_BYTES = 50


class FailedByPolicyError(Exception):
    """A value is too long for an attribute with `too_long: fail`: the run stops before its first call."""


def sendable(
    value: object, *, too_long: str = "reject", decimals: int | None = None
) -> tuple[str | None, dict[str, Any]]:
    """(the text to send or None where the attribute is left out, what is to be reported)."""
    text = canonical(value, decimals=decimals)
    size = len(text.encode())
    report: dict[str, Any] = {"value": text, "value_bytes": size}
    if has_control_character(text) or (isinstance(value, float) and not isfinite(value)):
        return None, {"reason": "value_invalid", **report}
    if size <= VALUE_BYTES:
        return text, {}
    if too_long == "fail":
        raise FailedByPolicyError(f"a value of {size} bytes")
    shortened = truncated(text) if too_long == "truncate" else ""
    if not shortened:
        return None, {"reason": "value_too_long", **report}
    return shortened, {"reason": "value_truncated", "sent_value": shortened, **report}


def canonical(value: object, *, decimals: int | None = None) -> str:
    """The text of a value as it is sent; raises TypeError for what has none."""
    match value:
        case str():
            text = value
        case bool():
            text = "true" if value else "false"
        case int():
            text = str(value)
        case Decimal():
            text = format(value, "f")
        case datetime():
            in_utc = value.astimezone(UTC) if value.tzinfo else value
            text = in_utc.replace(tzinfo=None).isoformat(timespec="seconds") + "Z"
        case date():
            text = value.isoformat()
        case float() if decimals is not None:
            text = format(value, f".{decimals}f")
            text = text.removeprefix("-") if not text.strip("-0.") else text  # there is no negative zero
        case _:
            raise TypeError(f"no canonical text for {type(value).__name__}")
    return text


def truncated(text: str) -> str:
    """The longest run of whole extended grapheme clusters from the start that has at most 50 bytes."""
    kept, size = [], 0
    for cluster in regex.findall(r"\X", text):
        size += len(cluster.encode())
        if size > VALUE_BYTES:
            break
        kept.append(cluster)
    return "".join(kept)


def has_control_character(text: str) -> bool:
    return not text.isprintable() and any(unicodedata.category(char) == "Cc" for char in text)


def nearness(account: str) -> str:
    """Equal for accounts that differ only by case, letter by letter, or by surrounding blanks."""
    blanks = "".join({char for char in account if unicodedata.category(char)[0] == "Z"})
    return "".join(char.lower()[0] for char in (account.strip(blanks) if blanks else account))
