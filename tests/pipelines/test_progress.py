"""The logger of the command line: one line per message, to where standard error is at that moment."""

import io
import logging
import re
import sys
from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest

from pipelines import live_bar, progress
from pipelines.progress import progress_logger


@pytest.fixture(autouse=True)
def _no_terminal() -> Iterator[None]:
    """Standard error is asked for its terminal once per process."""
    live_bar.terminal.cache_clear()
    yield
    live_bar.terminal.cache_clear()


def logger() -> logging.Logger:
    made: logging.Logger = progress_logger(dg.build_init_logger_context())
    return made


def record(message: str, *, level: int = logging.INFO, **meta: Any) -> logging.LogRecord:
    made = logging.LogRecord("dagster", level, __file__, 1, f"run-1 - step - {message}", None, None)
    made.dagster_meta = {"orig_message": message, "dagster_event": None, **meta}
    return made


def test_a_message_is_a_line_with_its_time(capsys: pytest.CaptureFixture[str]) -> None:
    logger().handle(record("12 profiles"))
    assert re.fullmatch(r"\d\d:\d\d:\d\d  12 profiles\n", capsys.readouterr().err)


def test_events_and_debug_words_stay_in_the_ui(capsys: pytest.CaptureFixture[str]) -> None:
    made = logger()
    made.handle(record("an event", dagster_event={"event_type": "STEP_START"}))
    made.handle(record("a detail", level=logging.DEBUG))
    made.handle(record("a warning of Dagster's", level=logging.WARNING))
    assert capsys.readouterr().err == ""


def test_it_writes_to_where_standard_error_is_at_that_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever shows something on the terminal takes its place for a while."""
    before, after = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", before)
    made = logger()
    monkeypatch.setattr(sys, "stderr", after)
    made.handle(record("now"))
    assert before.getvalue() == ""
    assert after.getvalue().endswith("  now\n")


def test_on_a_terminal_lines_go_through_its_console(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It keeps the bar below them; written past it, they would end up inside."""
    lines: list[str] = []

    class Console:
        def out(self, line: str, *, highlight: bool) -> None:
            lines.append(line)

    monkeypatch.setattr(progress, "terminal", Console)
    logger().handle(record("above the bar"))
    assert [line[10:] for line in lines] == ["above the bar"]
    assert capsys.readouterr().err == ""


def test_the_terminal_is_looked_for_before_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """While steps work, Dagster has a file in its place."""
    asked: list[bool] = []
    monkeypatch.setattr(progress, "terminal", lambda: asked.append(True))
    logger()
    assert asked == [True]


def test_a_closed_standard_error_stops_no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        def write(self, _text: str) -> int:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(sys, "stderr", Gone())
    logger().handle(record("nobody reads this"))
