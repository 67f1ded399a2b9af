"""The benchmark measures what it says: on a few thousand profiles, and on processes whose doings are known."""

import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipelines.mapping import mapping_from
from tests.benchmarks.transform.inputs import EDITED_EVERY, FEW, FEW_ROWS, SYNC, Inputs
from tests.benchmarks.transform.measuring import (
    DATABASE,
    Measured,
    MemoryGuardError,
    StepError,
    Watch,
    measure,
    measure_command,
)
from tests.benchmarks.transform.others.rules import COLUMNS, KINDS
from tests.benchmarks.transform.running import (
    Beside,
    DisagreementError,
    Ours,
    Settings,
    Step,
    expected_mb,
    measure_tool,
    nights,
    peak_mb,
    plan_of,
    require_agreement,
    require_night,
)
from tests.benchmarks.transform.tables import beside_table, growth_curves, growth_table, ours_table, written_table
from tests.benchmarks.transform.task import Task
from tests.benchmarks.transform.tools import Tool
from tests.running import example_attributes

ROWS = 3_000
SETTINGS = Settings(repeat=1, memory_limit="1GB", most_mb=10_000, tell=lambda _: None)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inputs]:
    made = Inputs(tmp_path_factory.mktemp("transform"), ROWS)
    made.make()
    yield made
    shutil.rmtree(made.folder)


@pytest.fixture(scope="module")
def ours(inputs: Inputs) -> Ours:
    """Both nights, and the command."""
    project = inputs.make_project()
    runs: Ours = {step: [measured] for step, measured in nights(inputs, SETTINGS)}
    inputs.restore_folded()
    runs[Step.PLAN] = [plan_of(project, SYNC, SETTINGS)]
    runs[Step.START] = [plan_of(project, FEW, SETTINGS)]
    return runs


def test_only_cities_of_every_fiftieth_profile_are_edited(inputs: Inputs) -> None:
    source, edited = pq.read_table(inputs.source), pq.read_table(inputs.edited)
    others = [repr(table.drop_columns("city").to_pylist()) for table in (source, edited)]  # NaN is not equal to itself
    assert others[0] == others[1]
    same = pc.equal(pc.fill_null(source["city"], ""), pc.fill_null(edited["city"], "")).to_pylist()
    assert [number for number, is_same in enumerate(same) if not is_same] == list(range(0, ROWS, EDITED_EVERY))


def test_profiles_that_are_there_are_not_made_again(inputs: Inputs) -> None:
    before = [file.stat().st_ino for file in sorted(inputs.source.iterdir())]
    inputs.make()
    assert [file.stat().st_ino for file in sorted(inputs.source.iterdir())] == before
    other = Inputs(inputs.folder, ROWS + 1)
    other.make()
    assert pq.read_table(inputs.source).num_rows == ROWS + 1
    inputs.make()
    assert pq.read_table(inputs.source).num_rows == ROWS


def test_the_nights_are_what_they_are_called(ours: Ours) -> None:
    first, delta, same, whole = (ours[step][0] for step in (Step.FIRST, Step.DELTA, Step.SAME, Step.ALL))
    assert first.changes["user_id"] > ROWS * 0.8
    assert ours[Step.FOLD][0].changes == first.changes
    assert 0 < delta.changes["user_id"] <= ROWS / EDITED_EVERY
    assert same.changes == whole.changes == {"user_id": 0, "registration_id": 0}
    assert whole.written_mb > same.written_mb
    assert ours[Step.PLAN][0].changes == delta.changes
    assert ours[Step.PLAN][0].seconds > delta.seconds
    assert FEW_ROWS * 0.8 < ours[Step.START][0].changes["user_id"] <= FEW_ROWS
    require_night(ours)


def test_what_is_written_is_what_the_data_folder_has_afterwards(ours: Ours) -> None:
    names = {Path(file).name: size for file, size in ours[Step.FIRST][0].written.items()}
    assert names["user_id.parquet"] > 50_000
    assert "invalid_rows.parquet" in names
    assert not any(DATABASE in name for name in names)
    assert ours[Step.DECODE][0].written_mb < 0.001


def test_every_process_has_its_own_memory_and_time(ours: Ours) -> None:
    for step, (run,) in ours.items():
        assert run.peak_mb > 100, step
        assert run.seconds > 0 and run.cpu_seconds > 0, step


def test_pandas_finds_the_same_changes(inputs: Inputs, ours: Ours, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.benchmarks.transform.running.PYTHON", Path(sys.executable))
    for tool in (Tool("plain", "pandas_plain", tells_nan=False), Tool("Arrow", "pandas_arrow")):
        beside = measure_tool(tool, inputs, SETTINGS, expected_mb=0)
        assert {len(runs) for runs in beside.values()} == {1}
        assert peak_mb(beside, tool.name) > 100
        require_agreement(ours, beside, tools=[tool])


def test_the_others_rules_are_the_examples() -> None:
    mapping = mapping_from(example_attributes("unused"))
    assert sorted(COLUMNS) == sorted(mapping.columns())
    assert {(kind.name, kind.column): dict(kind.attributes) for kind in KINDS} == {
        (kind.value, mine.column): {name: each.column for name, each in mine.attributes.items()}
        for kind, mine in mapping.account_types().items()
    }


@pytest.mark.parametrize(
    ("step", "changes"),
    [
        (Step.DELTA, {"user_id": 1, "registration_id": 0}),
        (Step.SAME, {"user_id": 0, "registration_id": 1}),
        (Step.PLAN, {"user_id": 0, "registration_id": 0}),
    ],
)
def test_a_night_with_other_changes_than_it_must_have_is_no_result(
    ours: Ours, step: Step, changes: dict[str, int]
) -> None:
    with pytest.raises(DisagreementError, match="differ"):
        require_night({**ours, step: [replace(ours[step][0], changes=changes)]})


def test_a_tool_that_finds_other_changes_is_no_result(ours: Ours) -> None:
    tools = [Tool("other", "other")]
    (first,) = ours[Step.FIRST]
    require_agreement(ours, {("other", Step.FIRST): [first], ("other", Step.DELTA): "skipped"}, tools=tools)
    assert first.invalid_rows > 0
    for wrong in (replace(first, changes={"user_id": 1, "registration_id": 1}), replace(first, invalid_rows=1)):
        with pytest.raises(DisagreementError, match="other, first run"):
            require_agreement(ours, {("other", Step.FIRST): [wrong]}, tools=tools)


def test_a_tool_is_not_tried_where_it_would_need_too_much(inputs: Inputs) -> None:
    beside = measure_tool(Tool("huge", "no_such_module"), inputs, SETTINGS, expected_mb=20_480)
    assert beside["huge", Step.FIRST] == "skipped: an estimated 20 GiB, of 10"
    assert peak_mb(beside, "huge") == 0


def test_what_a_tool_needs_is_expected_from_the_largest_size_that_it_came_through() -> None:
    smaller: dict[int, Beside] = {
        1_000_000: {("pandas", Step.FIRST): [run(1, peak_mb=500)], ("pandas", Step.DELTA): [run(1, peak_mb=700)]},
        10_000_000: {("pandas", Step.FIRST): [run(1, peak_mb=6000)], ("pandas", Step.DELTA): "stopped"},
        20_000_000: {("pandas", Step.FIRST): "stopped", ("pandas", Step.DELTA): "stopped"},
    }
    assert expected_mb(smaller, "pandas", rows=50_000_000) == 30_000
    assert expected_mb(smaller, "polars", rows=50_000_000) == 0


def test_what_takes_too_much_memory_is_stopped(tmp_path: Path) -> None:
    greedy = "import time; taken = bytearray(b'x') * 400_000_000; time.sleep(60)"
    with pytest.raises(MemoryGuardError, match="GiB"):
        measure_command([sys.executable, "-c", greedy], folder=tmp_path, most_mb=200)


def test_a_process_that_fails_or_says_nothing_is_no_result(tmp_path: Path) -> None:
    with pytest.raises(StepError, match="ended with 1"):
        measure("tests.benchmarks.transform.no_such_module", Task("none", tmp_path, tmp_path))
    with pytest.raises(StepError, match="without a word"):
        measure("tests.benchmarks.transform.others.rules", Task("none", tmp_path, tmp_path))


def test_what_was_spilled_counts_although_it_is_gone(tmp_path: Path) -> None:
    watch, spill = Watch(tmp_path), tmp_path / "run-1/spill"
    spill.mkdir(parents=True)
    (spill / "one").write_bytes(bytes(2**20))
    (tmp_path / "run-1" / DATABASE).write_bytes(bytes(3 * 2**20))
    watch.look(0)
    (spill / "one").unlink()
    watch.look(0)
    assert (watch.spilled_mb, watch.database_mb, watch.peak_mb) == (1, 3, 0)


def run(seconds: float, *, cpu_seconds: float = 1.0, peak_mb: float = 300.0) -> Measured:
    return Measured(seconds, cpu_seconds, peak_mb, 1.4, 2.6, {"/x/data/frames/a.parquet": 2**20}, {"user_id": 7})


def runs_of(seconds: Callable[[Step], float]) -> Ours:
    return {step: [run(seconds(step))] for step in Step}


def test_tables_show_medians_ends_and_ratios_to_decoding() -> None:
    found = runs_of(lambda step: 2.0 if step is Step.DECODE else 10.0)
    found[Step.DELTA] = [run(seconds) for seconds in (9, 6, 30)]
    table = ours_table(found)
    assert "| decode | 2.00 | 1.0 | 1.00 | 1.0 | 300 | 1 | 3 | 1.0 | 7 |" in table
    assert "| delta 2 % | 9.00 (6.00–30.00) | 4.5 |" in table
    beside: Beside = {
        ("pandas", Step.FIRST): [run(25, peak_mb=9000)],
        ("pandas", Step.DELTA): [run(90, peak_mb=8000)],
        ("polars", Step.FIRST): "skipped: an estimated 37 GiB, of 20",
        ("polars", Step.DELTA): "skipped: an estimated 37 GiB, of 20",
    }
    table = beside_table(found, beside)
    assert "| pandas | 25.00 | 2.50 | 90.00 | 10.00 | 1.00 | 1.00 | 9,000 |" in table
    assert "| polars | skipped: an estimated 37 GiB, of 20 |" in table
    assert "| frames/a.parquet | 1,048,576 |" in written_table(found[Step.SAME])


def test_growth_is_told_beside_linear_growth() -> None:
    by_rows = {1_000_000: runs_of(lambda _: 2.0), 10_000_000: runs_of(lambda _: 26.0)}
    assert "| delta 2 % | 2.00 s | 26.00 s | 1.30 | 300 |" in growth_table(by_rows)
    beside: dict[int, Beside] = {
        1_000_000: {("pandas", Step.DELTA): [run(5)]},
        10_000_000: {("pandas", Step.DELTA): "no"},
    }
    curves = growth_curves(by_rows, beside)
    assert curves["seconds"]["delta 2 %"] == [(1_000_000, 2.0), (10_000_000, 26.0)]
    assert curves["seconds"]["pandas: delta 2 %"] == [(1_000_000, 5)]
    assert curves["peak memory, MB"]["decode"] == [(1_000_000, 300.0), (10_000_000, 300.0)]
