"""Different values that truncation made equal: two segments of users would become one without a word."""

from pathlib import Path

from pipelines.engine import Engine
from pipelines.reasons import Reason


def count_merged_values(engine: Engine, invalid_rows: Path) -> dict[str, int]:
    """Per attribute, how many texts that are sent stand for several different values of the source.

    Among values that were cut: one that had just the limit's length is not looked for. Attributes without are left out.
    """
    rows = engine.parquet("cut_values", invalid_rows)
    cut = rows.filter(rows.reason == Reason.VALUE_TRUNCATED.value)
    sent = cut.group_by("attribute", "sent_value").agg(first=cut.value.min(), last=cut.value.max())
    merged = sent.filter(sent.first != sent.last)
    counted = engine.rows(merged.group_by("attribute").agg(texts=merged.count()).order_by("attribute"))
    return {row["attribute"]: int(row["texts"]) for row in counted}
