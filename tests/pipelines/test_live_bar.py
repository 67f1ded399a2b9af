"""The bar on a pseudo terminal: drawn in place, below whole lines, wiped away at the end, and never in the way."""

import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from fcntl import ioctl
from io import StringIO
from pathlib import Path
from typing import TextIO

import pytest

from pipelines.live_bar import LiveBar, terminal_of
from tests.project import Project

TEXT = "user_id: 18,798 of 45,583 acknowledged, 102 failed (70107: 100), 99 calls/s (99 % of the quota), about 3 s left"


@dataclass(slots=True)
class Pseudo:
    """A terminal without a person: `stream` is what a program writes to, `seen` what it would draw."""

    columns: int = 200
    screen: int = -1
    stream: TextIO = field(default_factory=StringIO)

    def __post_init__(self) -> None:
        self.screen, other = pty.openpty()
        ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 40, self.columns, 0, 0))
        self.stream = os.fdopen(other, "w", encoding="utf-8")

    def seen(self) -> str:
        """All that was written since."""
        found = b""
        while select.select([self.screen], [], [], 0.05)[0]:
            found += os.read(self.screen, 65536)
        return found.decode()

    def hang_up(self) -> None:
        if self.screen >= 0:
            os.close(self.screen)
            self.screen = -1

    def close(self) -> None:
        self.hang_up()
        with suppress(OSError):
            self.stream.close()


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


@pytest.fixture
def pseudo() -> Iterator[Pseudo]:
    with closing(Pseudo()) as opened:
        yield opened


def bar_on(pseudo: Pseudo) -> LiveBar:
    console = terminal_of(pseudo.stream)
    assert console is not None
    return LiveBar(console)


def screen_of(written: str) -> list[str]:
    """What a terminal shows after these bytes: enough of one for lines, carriage returns, moves up and erased lines."""
    lines, row = [""], 0
    for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", written):
        if part == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif part.endswith("A") and part.startswith("\x1b"):
            row -= int(part[2:-1] or 1)
        elif part == "\x1b[2K":
            lines[row] = ""
        elif part[0] not in "\r\x1b":
            lines[row] += part
    return lines


# What counts as a terminal ------------------------------------------------------------------------------------------


def test_a_file_is_no_terminal_whatever_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with (tmp_path / "log").open("w", encoding="utf-8") as file:
        assert terminal_of(file) is None
    assert terminal_of(StringIO()) is None


def test_a_terminal_that_cannot_move_its_cursor_gets_no_bar(monkeypatch: pytest.MonkeyPatch, pseudo: Pseudo) -> None:
    assert terminal_of(pseudo.stream) is not None
    monkeypatch.setenv("TERM", "dumb")
    assert terminal_of(pseudo.stream) is None


def test_the_terminal_stays_when_the_stream_is_turned_elsewhere(pseudo: Pseudo, tmp_path: Path) -> None:
    """While a step works, Dagster has a file in the place of standard error."""
    bar = bar_on(pseudo)
    with (tmp_path / "log").open("w", encoding="utf-8") as file:
        os.dup2(file.fileno(), pseudo.stream.fileno())
        bar.show(TEXT, share_done=0.5)
        bar.close()
    assert TEXT in pseudo.seen()
    assert (tmp_path / "log").read_text(encoding="utf-8") == ""


# The bar ------------------------------------------------------------------------------------------------------------


def test_it_is_drawn_in_place_and_wiped_away(pseudo: Pseudo) -> None:
    bar = bar_on(pseudo)
    bar.show("the first", share_done=0.25)
    bar.show("the second", share_done=0.5)
    written = pseudo.seen()
    assert [line.rstrip() for line in screen_of(written)] == ["━" * 40 + "  50 %", "the second"]
    bar.close()
    assert "".join(screen_of(written + pseudo.seen())) == ""


def test_lines_come_out_whole_above_it(pseudo: Pseudo) -> None:
    console = terminal_of(pseudo.stream)
    assert console is not None
    bar = LiveBar(console)
    long = "02:00:00  " + "/a/path/that/is/longer/than/the/terminal" * 8
    bar.show(TEXT, share_done=0.1)
    console.out(long, highlight=False)
    bar.show(TEXT, share_done=0.2)
    console.out("02:00:05  [bold]as it is[/bold] :smile:", highlight=False)
    bar.close()
    shown = [line for line in screen_of(pseudo.seen()) if line]
    assert shown == [long, "02:00:05  [bold]as it is[/bold] :smile:"]


def test_on_a_narrow_terminal_nothing_is_lost() -> None:
    with closing(Pseudo(columns=30)) as narrow:
        console = terminal_of(narrow.stream)
        assert console is not None
        bar = LiveBar(console)
        for share in (0.5, 0.6):
            bar.show(TEXT, share_done=share)
            console.out("a line", highlight=False)
        written = narrow.seen()
        shown = [line.rstrip() for line in screen_of(written)]
        assert shown[:2] == ["a line", "a line"]
        assert " ".join(shown[3:]) == TEXT
        assert max(len(line) for line in shown) < 30
        bar.close()
        assert "".join(screen_of(written + narrow.seen())) == "a line" * 2


def test_the_cursor_is_never_left_hidden(pseudo: Pseudo) -> None:
    """A killed run cannot show it again."""
    bar_on(pseudo).show(TEXT, share_done=0.5)
    assert re.findall(r"\x1b\[\?25[hl]", pseudo.seen())[-1] == "\x1b[?25h"


@pytest.mark.parametrize("share", [0.0, 1.0, 1.5])
def test_any_share_has_a_bar(pseudo: Pseudo, share: float) -> None:
    bar_on(pseudo).show(TEXT, share_done=share)
    assert f" {share * 100:.0f} %" in pseudo.seen()


def test_it_can_be_closed_twice_and_shown_again(pseudo: Pseudo) -> None:
    bar = bar_on(pseudo)
    bar.close()
    bar.show("one", share_done=0.5)
    bar.close()
    bar.close()
    bar.show("two", share_done=0.5)
    assert "two" in pseudo.seen()


def test_a_terminal_that_is_gone_stops_nothing(pseudo: Pseudo) -> None:
    bar = bar_on(pseudo)
    bar.show(TEXT, share_done=0.1)
    pseudo.hang_up()
    with pytest.raises(OSError, match="Input/output"):  # what would have stopped the push
        os.write(pseudo.stream.fileno(), b"x")
    bar.show(TEXT, share_done=0.2)
    bar.show(TEXT, share_done=0.3)
    bar.close()


class Breaking(StringIO):
    """A terminal that still says it is one, and takes nothing any more once it is `broken`."""

    broken = False

    def __init__(self, terminal: TextIO) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.terminal.fileno()

    def write(self, text: str) -> int:
        if self.broken:
            raise OSError(5, "Input/output error")
        return super().write(text)


def test_a_terminal_that_goes_as_the_bar_is_wiped_away_stops_nothing(pseudo: Pseudo) -> None:
    console = terminal_of(pseudo.stream)
    assert console is not None
    console.file = breaking = Breaking(pseudo.stream)
    bar = LiveBar(console)
    bar.show(TEXT, share_done=0.1)
    assert TEXT in breaking.getvalue()
    breaking.broken = True
    bar.close()
    bar.close()


# The command --------------------------------------------------------------------------------------------------------

RUN = ("-m", "pipelines", "run", "example")


def on_a_terminal(project: Project) -> tuple[int, str]:
    """Exit code of the command with standard error on a pseudo terminal, and what was written there."""
    with closing(Pseudo()) as pseudo:
        process = subprocess.Popen(
            [sys.executable, *RUN],
            cwd=project.folder,
            env={**project.environment(), "TERM": "xterm-256color"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=pseudo.stream.fileno(),
        )
        seen = ""
        while process.poll() is None:
            seen += pseudo.seen()
        process.communicate(timeout=60)
        return process.returncode, seen + pseudo.seen()


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project.copy_to(tmp_path_factory.mktemp("project"))
    project.make_profiles(20_000)
    return project


def test_on_a_terminal_the_command_shows_a_bar_below_whole_lines(ready: Project) -> None:
    code, seen = on_a_terminal(ready)
    assert code == 0, seen
    assert len(re.findall(r"━{40}(?:\x1b\[[0-9;]*m)* +\d+ %", seen)) >= 3
    shown = [line for line in screen_of(seen) if line]
    assert not [line for line in shown if "━" in line], "the bar is gone at the end"
    assert all(re.match(r"\d\d:\d\d:\d\d  \S|Sync example to ", line) for line in shown), shown
    assert [line for line in shown if re.search(r"user_id: [\d,]+ of [\d,]+ acknowledged", line)]


def test_without_a_terminal_it_writes_plain_lines(ready: Project) -> None:
    ran = ready.run(*RUN)
    assert ran.returncode == 0, ran.stderr
    assert re.search(r"\d\d:\d\d:\d\d  ", ran.stderr)
    assert not re.search(r"[\x00-\x09\x0b-\x1f━]", ran.stdout + ran.stderr)
