"""A real MariaDB server in a folder of its own, started as the current user on a socket and a loopback port."""

import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pymysql
import pytest

_SECONDS_TO_START = 60.0
_SMALL = (
    "--innodb-buffer-pool-size=64M",
    "--innodb-flush-log-at-trx-commit=0",
    "--skip-log-bin",
    "--skip-name-resolve",
)


@dataclass(frozen=True, slots=True)
class MariaDBServer:
    """`uri` is that of a user who may do everything, in the empty database `marts`."""

    uri: str
    port: int
    process: subprocess.Popen[bytes]

    def connect(self, **arguments: Any) -> Any:
        """A connection of the test's own."""
        settings = {"host": "127.0.0.1", "port": self.port, "user": "root", "database": "marts", "autocommit": True}
        return pymysql.connect(**(settings | {"charset": "utf8mb4"} | arguments))

    def run(self, *statements: str) -> list[tuple[Any, ...]]:
        """Carries the statements out one by one; the rows of the last one."""
        with closing(self.connect()) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall())

    def kill(self) -> None:
        """SIGKILL: as when the machine goes."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)


@contextmanager
def mariadb_server(port: int | None = None) -> Iterator[MariaDBServer]:
    """Starts a server and stops it at the end. Fails the test where MariaDB is not installed."""
    mariadbd, mariadb_install_db = shutil.which("mariadbd"), shutil.which("mariadb-install-db")
    if mariadbd is None or mariadb_install_db is None:
        pytest.fail("MariaDB is not installed. Install Debian's package mariadb-server (as .ci/run does).")
    user = f"--user={psutil.Process().username()}"
    with tempfile.TemporaryDirectory(prefix="mariadb-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        install = [mariadb_install_db, "--no-defaults", f"--datadir={folder}/data", user]
        subprocess.run(
            [*install, "--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve"],
            check=True, capture_output=True, timeout=120,
        )  # fmt: skip
        free = port or _free_port()
        options = [f"--datadir={folder}/data", f"--socket={folder}/socket", f"--pid-file={folder}/pid", user]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [mariadbd, "--no-defaults", *options, f"--port={free}", "--bind-address=127.0.0.1", *_SMALL],
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        server = MariaDBServer(f"mysql://root@127.0.0.1:{free}/marts", free, process)
        try:
            _await(server, folder / "log")
            yield server
        finally:
            process.terminate()
            process.wait(60)


def _await(server: MariaDBServer, log: Path) -> None:
    deadline = time.monotonic() + _SECONDS_TO_START
    while True:
        try:
            with closing(server.connect(database=None)) as connection, connection.cursor() as cursor:
                cursor.execute("CREATE DATABASE marts CHARACTER SET utf8mb4")
            return
        except pymysql.err.OperationalError:
            if server.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"MariaDB did not start:\n{log.read_text(errors='replace')}") from None
            time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number
