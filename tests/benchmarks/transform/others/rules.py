"""The example's rules in a form that any tool can follow; what the sync's YAML says, without reading it.

Imports nothing but Python's own library and what cuts text between characters as people see them.
"""

from dataclasses import dataclass

import regex

MAX_BYTES = 50
BLANK = r"^[\s\p{Z}]*$"
CONTROL = r"[\x00-\x1f\x7f-\x9f]"
FILTER = "push_enabled"
ORDER = "updated_at"


@dataclass(frozen=True, slots=True)
class Kind:
    """One account type: the account's column, its limit in bytes, and attribute -> column."""

    name: str
    column: str
    most_bytes: int
    attributes: dict[str, str]


KINDS = (
    Kind(
        "user_id",
        "user_id",
        32,
        {name: name for name in ("gender", "city", "level", "balance", "nickname", "vip_until")},
    ),
    Kind(
        "registration_id",
        "device_id",
        36,
        {"device_city": "city", "device_nickname": "nickname", "device_score": "score"},
    ),
)
TRUNCATED, REMOVED = "nickname", "vip_until"  # attributes; all others are left out when too long, and left when null
COLUMNS = (
    *(kind.column for kind in KINDS),
    *("gender", "city", "level", "balance", "nickname", "vip_until", "score"),
    *(FILTER, ORDER),
)


def truncated(text: str) -> str | None:
    """As many whole characters as fit; None when not even one does."""
    kept, size = [], 0
    for cluster in regex.findall(r"\X", text):
        size += len(cluster.encode())
        if size > MAX_BYTES:
            break
        kept.append(cluster)
    return "".join(kept) or None
