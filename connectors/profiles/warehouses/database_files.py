"""Where a database that is a file stands: the path that `duckdb:` and `sqlite:` addresses mean."""

from pathlib import Path
from urllib.parse import unquote

from connectors.profiles.errors import WarehouseSettingsError

_NAMES = {"duckdb": "DuckDB", "sqlite": "SQLite"}


def path_of(uri: str, base: Path) -> Path:
    """The file that `duckdb:///absolute/path`, `duckdb:/absolute/path` or `duckdb:relative/path` means.

    Raises WarehouseSettingsError for an address of a host or of no file.
    """
    scheme, _, address = uri.partition(":")
    rest = unquote(address)
    expected = f"A {_NAMES[scheme.lower()]} file is {scheme}:///absolute/path or {scheme}:path."
    if rest.startswith("//"):
        rest = rest[2:]
        if not rest.startswith("/"):
            raise WarehouseSettingsError(f"{uri} names a host. {expected}")
    if not rest.strip() or rest == ":memory:":
        raise WarehouseSettingsError(f"{uri} names no file. {expected}")
    if rest.startswith("/"):  # of several slashes POSIX would keep two, and SQLite would read a host behind them
        rest = "/" + rest.lstrip("/")
    return base.absolute() / rest
