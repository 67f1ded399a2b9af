"""`python -m pipelines`, run as its users run it."""

import re
from pathlib import Path

import pytest
from filelock import FileLock

from connectors.tencent_push.emulator import Emulator
from pipelines.instance import dagster_instance
from pipelines.runs import is_from_a_shell, is_replay
from tests.project import Project
from tests.reference import expect
from tests.running import example_attributes


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with a few profiles and one successful run."""
    project = Project.copy_to(tmp_path_factory.mktemp("project"))
    project.make_profiles(2_000)
    return project


def test_the_main_command_shows_progress_and_ends_with_a_summary(ready: Project) -> None:
    ran = ready.run("-m", "pipelines", "run", "example")
    assert ran.returncode == 0, ran.stderr
    assert "embedded emulator" in ran.stderr
    assert "user_id: " in ran.stderr
    for told in (
        r"profiles\s+2,000",
        r"changed\s+\d",
        r"acknowledged\s+\d",
        r"calls\s+\d",
        r"error\s+\d+\s+account_unknown \(code 70107\)",
        r"notice\s+\d+\s+superseded",
        r"failed rows\s+\S+\.parquet",
        r"report\s+\S+\.html",
    ):
        assert re.search(told, ran.stdout), told
    for path in re.findall(r"(/\S+\.(?:parquet|html))", ran.stdout):
        assert Path(path).is_file()
    assert "DEBUG" not in ran.stderr
    assert "Warning" not in ran.stderr


def test_the_syncs_are_listed(ready: Project) -> None:
    assert ready.run("-m", "pipelines", "list").stdout == "example\n"


def test_a_replay_is_a_run_with_a_tag(ready: Project) -> None:
    assert "what Tencent refused for good" in ready.run("-m", "pipelines", "replay", "--help").stdout
    home = {"DAGSTER_HOME": str(ready.folder / "home")}
    ran = Project(ready.folder, home).run("-m", "pipelines", "replay", "example")
    assert ran.returncode == 0, ran.stderr
    with dagster_instance(home) as instance:
        (run,) = instance.get_runs()
    assert is_replay(run)
    assert is_from_a_shell(run)


def test_an_unknown_sync_is_told_with_the_known_ones(ready: Project) -> None:
    ran = ready.run("-m", "pipelines", "run", "exmaple")
    assert ran.returncode == 1
    assert "no sync is named 'exmaple'; there are: example" in ran.stderr


def test_a_second_run_beside_the_first_ends_at_once_with_75(ready: Project) -> None:
    lock = ready.folder / "data/locks/emulator-1400000000.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        ran = ready.run("-m", "pipelines", "run", "example")
    assert ran.returncode == 75
    assert "another run pushes to app 1400000000" in ran.stderr
    assert "profiles" not in ran.stderr


def test_half_set_credentials_are_told_before_anything_else(ready: Project) -> None:
    half = Project(ready.folder, {"TENCENT_PUSH_SDKAPPID": "1400000001"})
    ran = half.run("-m", "pipelines", "run", "example")
    assert ran.returncode == 1
    assert "TENCENT_PUSH_IDENTIFIER and TENCENT_PUSH_SECRET_KEY are missing" in ran.stderr


def test_two_mistakes_in_the_yaml_are_told_with_their_lines(tmp_path: Path) -> None:
    project = Project.copy_to(tmp_path / "project")
    project.edit_yaml("too_long: truncate", "too_long: truncat")
    project.edit_yaml("column: device_id", "colunm: device_id")
    ran = project.run("-m", "pipelines", "run", "example")
    assert ran.returncode == 1
    lines = project.yaml.read_text(encoding="utf-8").splitlines()
    for mistake in ("truncat}", "colunm"):
        number = next(number for number, line in enumerate(lines, start=1) if mistake in line)
        assert f"{project.yaml}:{number}: " in ran.stderr
    assert "Traceback" not in ran.stderr


FRACTION = "write a number above 0 and below 1, such as 0.05 for 5 %"
POLICY = "write leave (the accounts that no profile has any more keep what they have) or remove"


@pytest.mark.parametrize(
    "told",
    [
        {
            "  guards:": "",
            "    max_changed_fraction: 50": f"guards.max_changed_fraction: {FRACTION}",
            "    max_failed_fraction: 5 %": f"guards.max_failed_fraction: {FRACTION}",
            "    min_profiles: 0.5": "guards.min_profiles: write a whole number from 1 on",
            "    min_profile: 1": "guards.min_profile: this key is not known here",
            "  departed: delete": f"departed: {POLICY}",
        },
        {"  guards:": "guards: guards holds limits by their names", "  departed:": f"departed: {POLICY}"},
        {"  guards: {min_profiles: 100,000}": "guards: guards holds limits by their names", "  departed: true": POLICY},
    ],
    ids=["values", "nothing", "kinds"],
)
def test_mistakes_in_guards_and_departed_are_told_in_our_words_with_their_lines(
    tmp_path: Path, told: dict[str, str]
) -> None:
    project = Project.copy_to(tmp_path / "project")
    project.edit_yaml("  owners:", "\n".join([*told, "  owners:"]))
    ran = project.run("-m", "pipelines", "list")
    assert ran.returncode == 1
    lines = project.yaml.read_text(encoding="utf-8").splitlines()
    for key, text in told.items():
        if text:
            assert f"{project.yaml}:{lines.index(key) + 1}: attributes." in ran.stderr
            assert text in ran.stderr
    for foreign in ("Value error", "Input should", "pydantic", "Traceback"):
        assert foreign not in ran.stderr


def test_a_variable_in_the_middle_of_an_address_that_is_not_set_is_told(tmp_path: Path) -> None:
    project = Project.copy_to(tmp_path / "project")
    address = '"postgresql://u:{{ env.PASSWORD_NOT_SET }}@no-such-host.invalid/d"'
    project.edit_yaml("parquet: data/sample_profiles/*.parquet", f"warehouse: {{uri: {address}, query: select 1}}")
    assert project.run("-m", "pipelines", "list").stdout == "example\n", "the others must load"
    ran = project.run("-m", "pipelines", "run", "example")
    assert ran.returncode == 1
    assert re.search(rf"{re.escape(str(project.yaml))}:\d+: .*PASSWORD_NOT_SET.* has no value", ran.stderr)
    given = Project(project.folder, {"PASSWORD_NOT_SET": "planted"}).run("-m", "pipelines", "run", "example")
    assert "cannot be reached" in given.stderr
    assert "planted" not in given.stderr
    (tmp_path / "secret").write_text("planted\n", encoding="utf-8")
    by_file = Project(project.folder, {"PASSWORD_NOT_SET_FILE": str(tmp_path / "secret")})
    told = by_file.run("-m", "pipelines", "run", "example")
    assert "cannot be reached" in told.stderr
    assert "planted" not in told.stderr
    assert not [path for path in project.folder.rglob("*") if path.is_file() and b"planted" in path.read_bytes()]


def test_a_slip_in_the_yaml_is_told_without_the_line_it_stands_on(tmp_path: Path) -> None:
    project = Project.copy_to(tmp_path / "project")
    project.edit_yaml("  source:\n", "  source: {warehouse: {uri: postgresql://u:planted: secret@h/d, query: x}\n")
    ran = project.run("-m", "pipelines", "list")
    assert ran.returncode == 1
    assert re.search(rf"{re.escape(str(project.yaml))}:\d+: ", ran.stderr)
    assert "planted" not in ran.stderr


def test_a_run_that_was_killed_is_gone_on_with(tmp_path: Path) -> None:
    """Nothing acknowledged is forgotten or sent again, and the end is the same as that of a run in one piece."""
    project = Project.copy_to(tmp_path / "project")
    project.make_profiles(40_000)
    process = project.start("-m", "pipelines", "run", "example")
    assert process.stderr is not None
    for line in process.stderr:
        if re.search(r"user_id: [1-9][\d,]* of", line):
            break
    process.kill()
    process.communicate(timeout=60)
    assert process.returncode != 0

    fast = Project(project.folder, {"TENCENT_PUSH_CALLS_PER_SECOND": "2000"})
    ran = fast.run("-m", "pipelines", "run", "example")
    assert ran.returncode == 0, ran.stderr
    assert "it is marked as failed now" in ran.stderr
    assert re.search(r"cut off; [1-9][\d,]* changes that it had acknowledged are kept", ran.stderr)
    assert re.search(r", [1-9][\d,]* unchanged\n", ran.stdout)
    files = sorted((project.folder / "data/sample_profiles").glob("*.parquet"))
    with Emulator(project.folder / "data/emulator/example.sqlite") as emulator:
        state = dict(emulator.attributes())
    assert state == expect(files, example_attributes([str(file) for file in files])).attributes
    assert list((project.folder / "data/temporary").iterdir()) == []
    assert list((project.folder / "data").glob("acknowledged/*/*/*/*.ledger")) == []
