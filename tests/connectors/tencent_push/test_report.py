import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.tencent_push.report import Latencies


def test_there_is_no_percentile_before_the_first_call() -> None:
    assert Latencies().percentile(50) is None


@given(latencies=st.lists(st.floats(1e-4, 30), min_size=1, max_size=200), percent=st.sampled_from([50, 95, 99, 100]))
def test_percentiles_are_right_within_five_percent(latencies: list[float], percent: int) -> None:
    histogram = Latencies()
    for latency in latencies:
        histogram.add(latency)
    ordered = sorted(latencies)
    exact = ordered[max(0, -(-len(ordered) * percent // 100) - 1)]
    found = histogram.percentile(percent)
    assert found == pytest.approx(exact, rel=0.051)
    assert found is not None
    assert found >= exact * (1 - 1e-9)


def test_a_latency_of_nothing_is_counted() -> None:
    histogram = Latencies()
    histogram.add(0.0)
    assert histogram.percentile(50) == pytest.approx(1e-4)


def test_any_number_of_calls_takes_constant_memory() -> None:
    histogram = Latencies()
    for number in range(100_000):
        histogram.add(number / 10_000)
    assert len(histogram._buckets) < 300
