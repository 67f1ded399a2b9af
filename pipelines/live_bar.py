"""The terminal of this process and the bar on it: the only importer of rich. It draws what it is given."""

import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import TextIO

from rich.console import Console, ConsoleDimensions, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

BAR_COLUMNS = 40


@cache
def terminal() -> Console | None:
    """The terminal on standard error, or None when something else is there. One per process, as there is one screen.

    It must be asked for before the first step: while steps work, Dagster has a file in the place of standard error,
    and copies that to the terminal some time later.
    """
    return terminal_of(sys.stderr)


def terminal_of(stream: TextIO) -> Console | None:
    """A console of its own on the stream's terminal, which stays when the stream is turned elsewhere."""
    if not stream.isatty():
        return None
    own = os.fdopen(os.dup(stream.fileno()), "w", encoding=stream.encoding, errors="replace")
    console = Console(file=own)
    if console.is_interactive:
        return console
    own.close()  # TERM=dumb, or the user wants no such things
    return None


class LiveBar:
    """The newest text below everything that is printed to the same console. A terminal that is gone stops nothing."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._gone = False

    def show(self, text: str, *, share_done: float) -> None:
        if self._gone:
            return
        try:
            columns, lines = os.get_terminal_size(self._console.file.fileno())
            if columns and lines:  # a terminal without a size is one that nobody told of it, not one without room
                self._console.size = ConsoleDimensions(columns, lines)
            self._opened().update(_Shown(text, share_done), refresh=True)
        except OSError:
            self._gone = True

    def close(self) -> None:
        """The bar is wiped away; what was printed above it stays."""
        live, self._live = self._live, None
        if live is not None:
            with suppress(OSError):
                live.stop()

    def _opened(self) -> Live:
        if self._live is None:
            # No thread of its own: it would take time from the thread that sends.
            self._live = Live(
                console=self._console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
            )
            self._live.start()
            self._console.show_cursor(True)  # a killed run must not leave a terminal without one
        return self._live


@dataclass(frozen=True, slots=True)
class _Shown:
    text: str
    share_done: float

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        done, left = ("#", "-") if options.ascii_only else ("━", "━")
        columns = max(1, min(BAR_COLUMNS, options.max_width - 7))
        filled = round(columns * min(1.0, self.share_done))
        line = Text.assemble(
            (done * filled, "green"), (left * (columns - filled), "dim"), f" {self.share_done * 100:3.0f} %"
        )
        # Wrapped here: when a line is printed above, the console wraps nothing, and would lose count of the rows.
        yield Text("\n").join([line, Text(self.text)]).wrap(console, max(1, options.max_width - 1))


def bar() -> LiveBar | None:
    """A bar where there is a terminal."""
    console = terminal()
    return LiveBar(console) if console is not None else None
