"""The job killed with SIGKILL at random moments and started again until it succeeds, against an app that lives on.

The emulator runs in the test's process and answers late, so that calls are in flight when the job dies, and what they
wrote stays written.
"""

import random
import re
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import dagster as dg
import pytest

from connectors.tencent_push.emulator import EMULATOR_CREDENTIALS, Emulator, SeenCall, Slow
from connectors.tencent_push.ledger import read_ledger
from connectors.tencent_push.protocol import MAX_ACCOUNTS_PER_CALL, AccountType, Command
from connectors.tencent_push.sink import SinkSettings
from tests.project import Project
from tests.reference import Expected, expect
from tests.running import example_attributes

KILLS, LONG_KILLS = 6, 20
PROFILES_PER_KILL = 1_000  # some 12 calls: no run that is killed in its push comes to its end
CALLS_PER_SECOND = 20
ANSWER_SECONDS = 0.3
ATTRIBUTES = example_attributes("")["accounts"]
NEVER = 3600.0
WRITING = (Command.SET_ATTR, Command.REMOVE_ATTR)
ENDING = re.compile(r"registration_id: [\d,]+ of [\d,]+ acknowledged")


@dataclass(slots=True)
class Seen:
    """What reached the app: how often each account came in a call of each command. Asked about each call."""

    rows: Counter[tuple[Command, str]] = field(default_factory=Counter)
    on_call: Callable[[Command], None] = lambda command: None

    def __call__(self, call: SeenCall) -> bool:
        if call.command is not None:
            self.on_call(call.command)
        if call.command not in WRITING:
            return False
        self.rows.update((call.command, account) for account in call.accounts)
        return True


@dataclass(slots=True)
class Moment:
    """When the job dies: `seconds` after its start, after a line that it writes, or after its nth call of a kind."""

    seconds: float
    line: re.Pattern[str] | None = None
    commands: tuple[Command, ...] = ()
    calls: int = 0
    _timer: threading.Timer | None = None

    def arm(self, process: subprocess.Popen[str]) -> None:
        self._timer = threading.Timer(self.seconds, process.kill)
        self._timer.daemon = True
        if self.line is None and not self.commands:
            self._timer.start()

    def on_line(self, line: str) -> None:
        if self.line is not None and self.line.search(line):
            self._start()

    def on_call(self, command: Command) -> None:
        if command in self.commands:
            self.calls -= 1
            if self.calls == 0:
                self._start()

    def disarm(self) -> None:
        """The job has ended, whoever was faster."""
        if self._timer is not None:
            self._timer.cancel()

    def _start(self) -> None:
        if self._timer is not None and self._timer.ident is None:  # not running, and never has been
            self._timer.start()


@dataclass(slots=True)
class Ended:
    """A run that has ended, killed or by itself; the counts are of the ledgers that it left."""

    returncode: int
    out: str
    err: str
    unsettled_calls: int
    uncertain_rows: int


@dataclass(frozen=True, slots=True)
class Site:
    """A project of its own that pushes to the emulator as to a live app."""

    project: Project
    emulator: Emulator
    seen: Seen
    profiles: int

    @property
    def files(self) -> list[Path]:
        return sorted((self.project.folder / "data/sample_profiles").glob("*.parquet"))

    def expected(self) -> Expected:
        return expect(self.files, example_attributes([str(file) for file in self.files]))

    def run(self, moment: Moment, *, calls_per_second: float = CALLS_PER_SECOND) -> Ended:
        before = self.ledgers()
        environ = {**self.project.environ, "TENCENT_PUSH_CALLS_PER_SECOND": f"{calls_per_second:g}"}
        process = replace(self.project, environ=environ).start("-m", "pipelines", "run", "example")
        moment.arm(process)
        self.seen.on_call = moment.on_call
        assert process.stderr is not None
        err = ""
        for line in process.stderr:
            err += line
            moment.on_line(line)
        moment.disarm()
        out, rest = process.communicate(timeout=60)
        left = [path for path in self.ledgers() if path not in before and b"\n" in path.read_bytes()]
        ledgers = [read_ledger(path) for path in left]
        uncertain = sum(len(numbers) for ledger in ledgers for numbers in ledger.uncertain.values())
        return Ended(process.returncode, out, err + rest, sum(each.unsettled_calls for each in ledgers), uncertain)

    def ledgers(self) -> list[Path]:
        return list(self.project.folder.glob("data/acknowledged/*/*/*/*.ledger"))

    def history(self) -> list[dg.DagsterRunStatus]:
        """How each run ended as Dagster remembers it, the oldest first."""
        home = self.project.run("-m", "pipelines", "home").stdout.strip()
        with dg.DagsterInstance.from_config(home) as instance:
            return [run.status for run in reversed(instance.get_runs())]


@pytest.fixture
def kills(long_proofs: bool) -> int:
    return LONG_KILLS if long_proofs else KILLS


@pytest.fixture
def site(tmp_path: Path, kills: int) -> Iterator[Site]:
    app = EMULATOR_CREDENTIALS
    with Emulator(tmp_path / "app.sqlite", calls_per_second=None) as emulator:
        emulator.declare({name: AccountType(kind) for kind, each in ATTRIBUTES.items() for name in each["attributes"]})
        seen = Seen()
        emulator.faults.add(Slow(ANSWER_SECONDS), when=seen, times=None)
        live = {
            "TENCENT_PUSH_BASE_URL": emulator.base_url,
            "TENCENT_PUSH_SDKAPPID": str(app.sdkappid),
            "TENCENT_PUSH_IDENTIFIER": app.identifier,
            "TENCENT_PUSH_SECRET_KEY": app.secret_key,
        }
        project = Project(Project.copy_to(tmp_path / "project").folder, live)
        profiles = kills * PROFILES_PER_KILL
        project.make_profiles(profiles)
        yield Site(project, emulator, seen, profiles)


def moments(kills: int, *, chance: random.Random) -> Iterator[Moment]:
    """A quarter while a run starts and computes, the others in its push."""
    for number in range(kills):
        if number % 4 == 1:
            yield Moment(chance.uniform(0.2, 3.0))
        else:
            yield Moment(chance.uniform(0, 1.5 * ANSWER_SECONDS), commands=WRITING, calls=chance.randint(1, 4))


def test_a_job_that_is_killed_again_and_again_comes_to_the_same_end(site: Site, kills: int) -> None:
    chance = random.Random(kills)
    ended = [site.run(moment) for moment in moments(kills, chance=chance)]
    in_push = [each for each in ended if each.unsettled_calls]
    assert len(in_push) > kills / 2, "the kills must hit the push, with calls in flight"
    ended.append(site.run(Moment(chance.uniform(0, 0.3), line=ENDING), calls_per_second=1000))
    ended.append(site.run(Moment(0.0, commands=(Command.GET_ATTR,), calls=1), calls_per_second=1000))
    assert [each.returncode for each in ended] == [-signal.SIGKILL] * (kills + 2)

    last = site.run(Moment(NEVER), calls_per_second=1000)
    assert last.returncode == 0, last.err
    _check_state(site, last)
    _check_history(site, in_push)
    _check_resent(site, ended)
    _check_nothing_left_to_send(site)


def _check_state(site: Site, last: Ended) -> None:
    expected = site.expected()
    assert dict(site.emulator.attributes()) == expected.attributes
    assert site.ledgers() == []
    assert list((site.project.folder / "data/temporary").iterdir()) == []
    for kind, counts in expected.counts.items():
        told = _summary(last.out, kind)
        kept_out = (counts.without_account, counts.superseded, counts.invalid)
        assert (told["profiles"], told["without account"], told["superseded"], told["invalid"]) == (
            site.profiles,
            *kept_out,
        )
        assert sum(kept_out) + told["unchanged"] + told["changed"] == site.profiles, "conservation of profiles"
        assert told["changed"] == told["acknowledged"] + told["failed"], "conservation of changes"
        assert told["failed"] == told["rejected"] == counts.rejected
        assert told["unchanged"] + told["acknowledged"] == counts.unchanged + counts.acknowledged


def _summary(text: str, kind: str) -> dict[str, int]:
    """The numbers of one account type as the job's last words give them."""
    (block,) = re.findall(rf"^  {kind}\n((?:    .*\n)+)", text, re.MULTILINE)
    numbers = dict(re.findall(r"^    (\w+)\s+([\d,]+)", block, re.MULTILINE))
    numbers |= {name: count for count, name in re.findall(r"([\d,]+) ([a-z ]+?)(?:,|\n)", block)}
    return {name: int(count.replace(",", "")) for name, count in numbers.items()}


def _check_history(site: Site, in_push: list[Ended]) -> None:
    """Every run that was cut off is a failed one; some had no place in the history yet."""
    *earlier, last = site.history()
    assert last is dg.DagsterRunStatus.SUCCESS
    assert set(earlier) == {dg.DagsterRunStatus.FAILURE}
    assert len(earlier) >= len(in_push) + 2


def _check_resent(site: Site, ended: list[Ended]) -> None:
    """What was sent again had been in flight at a kill; what had been acknowledged was not sent again."""
    unknown = _unknown_accounts(site)
    resent = sum(count - 1 for (_, account), count in site.seen.rows.items() if account not in unknown)
    unsettled = sum(each.unsettled_calls for each in ended)
    assert resent <= sum(each.uncertain_rows for each in ended)
    assert resent <= unsettled * MAX_ACCOUNTS_PER_CALL
    assert all(each.unsettled_calls <= SinkSettings().max_in_flight for each in ended)


def _check_nothing_left_to_send(site: Site) -> None:
    site.seen.rows.clear()
    further = site.run(Moment(NEVER), calls_per_second=1000)
    assert further.returncode == 0, further.err
    assert {account for _, account in site.seen.rows} <= _unknown_accounts(site)


def _unknown_accounts(site: Site) -> set[str]:
    rows = site.expected().failed_rows
    return {row["account"] for row in rows if row["reason"] == "account_unknown"}
