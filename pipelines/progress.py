"""The logger of `python -m pipelines`: what the steps tell people, one line each, without Dagster's own events."""

import logging
import sys
from datetime import datetime

import dagster as dg

from pipelines.live_bar import terminal


class _ForPeople(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        meta = getattr(record, "dagster_meta", None)
        message = meta.get("orig_message") if isinstance(meta, dict) else record.getMessage()
        return f"{datetime.fromtimestamp(record.created).astimezone():%H:%M:%S}  {message}"


def _is_for_people(record: logging.LogRecord) -> bool:
    """What a step says itself: no event of Dagster's, and none of its words about steps that did not run."""
    meta = getattr(record, "dagster_meta", None)
    return record.levelno == logging.INFO and isinstance(meta, dict) and not meta.get("dagster_event")


class _LineHandler(logging.Handler):
    """Writes to the terminal's console, which keeps a bar below; else to standard error as it is at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        console = terminal()
        try:
            line = self.format(record)
            if console is not None:
                console.out(line, highlight=False)
            else:
                sys.stderr.write(f"{line}\n")
                sys.stderr.flush()
        except OSError:
            self.handleError(record)


@dg.logger(None, description="What the steps tell people, one line each; Dagster's own events stay in the UI.")
def progress_logger(_context: dg.InitLoggerContext) -> logging.Logger:
    """One line per message, on standard error."""
    terminal()  # before the first step puts a file in the place of standard error
    logger = logging.Logger("progress", level=logging.INFO)
    handler = _LineHandler()
    handler.setFormatter(_ForPeople())
    handler.addFilter(_is_for_people)
    logger.addHandler(handler)
    return logger
