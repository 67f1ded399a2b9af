"""The benchmark measures what it says: on tiny runs, and on totals whose numbers are known."""

import pytest

from connectors.tencent_push.emulator.calls import Totals
from tests.benchmarks.push.measuring import Measured, PusherError, Tool, measure
from tests.benchmarks.push.others import OURS
from tests.benchmarks.push.tables import killed_table, refusals_table, sink_table, tools_table
from tests.benchmarks.push.target import Network
from tests.benchmarks.push.task import Told, account_of

LOOP = Tool("loop", "requests_loop")


def measured(*, rows_per_second: int = 5000, served: int = 1000, stored: int = 1000, claimed: int = 1000) -> Measured:
    seconds = stored / rows_per_second
    totals = Totals(11, served, served, {"0": 11}, worst_second=11, arriving_seconds=0.25, answering_seconds=seconds)
    return Measured(Told(claimed, 0, "", cpu_seconds=0.0055, peak_mb=12.3), totals, stored)


def test_the_rates_are_those_between_the_first_and_the_last_call() -> None:
    run = measured()
    assert run.rows_per_second == pytest.approx(5000)
    assert run.calls_per_second == pytest.approx(40), "ten intervals in a quarter of a second"
    assert run.cpu_seconds_per_1000_calls == pytest.approx(0.5)


def test_nothing_that_arrived_is_no_division_by_zero() -> None:
    run = Measured(Told(0, 0, "RuntimeError", 0.1, 1.0), Totals(0, 0, 0, {}, 0, 0.0, 0.0), 0)
    assert (run.rows_per_second, run.calls_per_second, run.cpu_seconds_per_1000_calls, run.sent_again_rows) == (0,) * 4


def test_a_killed_push_that_begins_anew_has_sent_every_row_that_had_arrived_again() -> None:
    run = measure(LOOP, Network(20, quota=0), rows=4000, kill_halfway=True)
    assert run.stored_rows == run.told.claimed_rows == 4000
    assert 2000 <= run.sent_again_rows < 4000
    assert run.sent_again_rows == 100 * (run.totals.calls - 40)
    assert run.worst_second <= run.totals.calls


def test_our_sink_goes_on_where_it_was_killed() -> None:
    run = measure(OURS, Network(0), rows=8000, kill_halfway=True)
    assert run.stored_rows == run.told.claimed_rows == 8000
    assert run.sent_again_rows < 4000


def test_what_is_stored_is_counted_and_not_what_is_claimed() -> None:
    run = measure(LOOP, Network(0, tls=True, quota=0), rows=1000, faults=["--unknown", account_of(7)])
    assert (run.told.claimed_rows, run.stored_rows, run.totals.calls) == (1000, 999, 10)
    assert run.worst_second == 10


def test_a_pusher_that_ends_without_a_word_is_no_result() -> None:
    with pytest.raises(PusherError, match="ended with 1"):
        measure(Tool("none", "no_such_pusher"), Network(0), rows=100)


def test_tables_show_medians_ends_ratios_and_what_is_missing() -> None:
    runs = [measured(rows_per_second=rate) for rate in (5000, 9000, 4000)]
    assert "| HTTP | 50 ms | 5,000 (4,000–9,000) | 40.0 | 40.0 % | 11 |" in sink_table({("HTTP", 50): runs})
    tools = tools_table({"ours": runs, "other": [measured(rows_per_second=1250)]}, ours="ours", missing={"dlt": "no"})
    assert "| other | 1,250 | 0.25 | 40.0 |" in tools
    assert "| dlt | no |" in tools
    refused = refusals_table({("one row", "ours"): measured(stored=999)}, rows=1000)
    assert "| one row | ours | 999 | 1,000 | 0 | 1 | success |" in refused
    killed = killed_table({"ours": measured(served=1500), "other": "it ended with 1"})
    assert "| ours | 500 | 1,000 | 1,000 |" in killed
    assert "| other | it ended with 1 |" in killed
