"""Two nights of profiles dense with edges come to just what the plain rules say, and a third changes nothing."""

from pathlib import Path

import pytest

from pipelines.engine import Engine
from tests.edge_profiles import SYNCS, edge_profiles, edited
from tests.pipelines.frame_cases import expected, require_agreement
from tests.pipelines.night_cases import Nights

ROWS, SEEDS = 1_500, len(SYNCS)
LONG_ROWS, LONG_SEEDS = 300_000, 20


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" in metafunc.fixturenames:
        metafunc.parametrize("seed", range(LONG_SEEDS if metafunc.config.getoption("long") else SEEDS))


def test_two_nights_of_every_edge_are_what_plain_python_says(
    engine: Engine, tmp_path: Path, seed: int, long_proofs: bool
) -> None:
    sync = SYNCS[seed % len(SYNCS)]
    nights = Nights(engine, tmp_path)
    profiles = edge_profiles(LONG_ROWS if long_proofs else ROWS, seed=seed)

    files = profiles.write(nights.next_folder())
    first = nights.compute_files(files, sync)
    reference = expected(files, sync, acknowledged={})
    require_agreement(first, reference)
    nights.push(first)

    files = edited(profiles, seed=seed, widened=seed % 4 == 3).write(nights.next_folder())
    second = nights.compute_files(files, sync)
    reference = expected(files, sync, acknowledged=reference.attributes)
    require_agreement(second, reference)
    assert all(any(changes.values()) for changes in second.changes.values())
    nights.push(second)

    nights.next_folder()
    third = nights.compute_files(files, sync)
    assert not any(third.changes.values())
    assert third.invalid_rows == second.invalid_rows
