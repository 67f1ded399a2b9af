"""A Parquet file with columns that are asked for, and larger ones that are not."""

from typing import Any

from tests.object_storage import parquet_bytes

ROWS = 40_000
COLUMNS: dict[str, Any] = {
    "user": [f"user-{number:06}" for number in range(ROWS)],
    "blob": [f"{number * 7919:032x}" * 16 for number in range(ROWS)],  # what nobody asked for: most of the file
    "town": [("Bonn", "上海", "القاهرة", None)[number % 4] for number in range(ROWS)],
    "nested": [{"user": number, "tags": [str(number)]} for number in range(ROWS)],
    "level": list(range(ROWS)),
}
ASKED = ["user", "town", "level"]


def staged_file() -> bytes:
    """In several row groups, one column with a dictionary."""
    return parquet_bytes(COLUMNS, row_group_size=9_000, use_dictionary=["town"], compression="snappy")
