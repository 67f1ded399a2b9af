"""The engine for every test here; one per test file, since its tables are replaced by name."""

from collections.abc import Iterator

import pytest

from pipelines.engine import Engine


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with Engine(tmp_path_factory.mktemp("engine"), memory_limit="1GB") as opened:
        yield opened
