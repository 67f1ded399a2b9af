"""The logger of `python -m pipelines`: what the steps tell people, one line each, without Dagster's own events."""

import logging
import sys
from datetime import datetime

import dagster as dg


class _ForPeople(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        meta = getattr(record, "dagster_meta", None)
        message = meta.get("orig_message") if isinstance(meta, dict) else record.getMessage()
        return f"{datetime.fromtimestamp(record.created).astimezone():%H:%M:%S}  {message}"


def _is_for_people(record: logging.LogRecord) -> bool:
    meta = getattr(record, "dagster_meta", None)
    return not (isinstance(meta, dict) and meta.get("dagster_event"))


@dg.logger(None, description="What the steps tell people, one line each; Dagster's own events stay in the UI.")
def progress_logger(_context: dg.InitLoggerContext) -> logging.Logger:
    """One line per message, on standard error."""
    logger = logging.Logger("progress", level=logging.INFO)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_ForPeople())
    handler.addFilter(_is_for_people)
    logger.addHandler(handler)
    return logger
