"""Who may import whom, read from the source: every layer knows only what lies below it, and Dagster stays on top."""

import ast
import sys
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PUSH = "connectors.tencent_push"

# module pattern -> the only modules of ours that it may import; the first pattern that fits decides
ALLOWED: Mapping[str, tuple[str, ...]] = {
    f"{PUSH}.protocol": (),
    f"{PUSH}.errors": (f"{PUSH}.protocol",),
    f"{PUSH}.usersig": (),
    f"{PUSH}.pacing": (),
    f"{PUSH}.transport": (),
    f"{PUSH}.client": tuple(f"{PUSH}.{name}" for name in ("protocol", "errors", "usersig", "transport")),
    f"{PUSH}.settings": tuple(f"{PUSH}.{name}" for name in ("protocol", "errors", "client")),
    f"{PUSH}.outcomes": tuple(f"{PUSH}.{name}" for name in ("protocol", "errors")),
    f"{PUSH}.ledger": tuple(f"{PUSH}.{name}" for name in ("protocol", "errors")),
    f"{PUSH}.published_ledger": tuple(f"{PUSH}.{name}" for name in ("errors", "ledger")),
    f"{PUSH}.__main__": (f"{PUSH}.*",),
    f"{PUSH}.emulator*": (f"{PUSH}.protocol", f"{PUSH}.usersig", f"{PUSH}.emulator*"),
    # the sink and the parts that it is made of: everything beside them but the emulator and the settings
    f"{PUSH}*": tuple(
        f"{PUSH}.{name}"
        for name in ("protocol", "errors", "usersig", "client", "pacing", "outcomes", "ledger", "calls", "batching",
                     "report", "settling", "stop_rules", "telling", "sink")
    ),
    "connectors.profiles*": ("connectors.profiles*",),
    "connectors.object_store*": ("connectors.object_store*",),
    "connectors": (),
    "pipelines*": ("pipelines*", "connectors*"),
}  # fmt: skip

# what only some may import: package from outside -> the modules that may
CONFINED: Mapping[str, tuple[str, ...]] = {
    "dagster": ("pipelines*",),
    "requests": (f"{PUSH}.transport",),
    "urllib3": (f"{PUSH}.transport",),
    "duckdb": ("pipelines.engine", "connectors.profiles.warehouses.duckdb_files"),
    "adbc_driver_manager": ("connectors.profiles.*",),
    "adbc_driver_postgresql": ("connectors.profiles.*",),
    "pymysql": ("connectors.profiles.warehouses.mysql",),
    "deltalake": ("connectors.profiles.lake.delta",),
    "pyiceberg": ("connectors.profiles.lake.iceberg*",),
    # drivers of servers are imported by name when an address asks for them
    "clickhouse_connect": (),
    "snowflake": (),
    "google": (),
    "grpc": (),
    "trino": (),
    "databricks": (),
    "sqlite3": ("connectors.profiles.warehouses.sqlite_files", "connectors.tencent_push.*", "pipelines*"),
    "obstore": ("connectors.object_store.*",),
    "ibis": ("pipelines*",),
    "rich": ("pipelines.live_bar",),
    "pytest": (),
    "hypothesis": (),
    "boto3": (),
    "moto": (),
    "tests": (),
}

# these run alone: they know nothing of Dagster, so that they can be tried and understood without it
WITHOUT_DAGSTER = tuple(
    f"pipelines.{name}"
    for name in ("accounts", "acknowledged", "engine", "errors", "extraction", "failed_rows", "frames", "preflight",
                 "push", "read_back", "reasons", "store", "summary", "target", "values", "yaml_lines", "sample_*",
                 "app_lock", "cancellation", "changes", "live_bar", "push_calls", "push_progress", "refusal_memory",
                 "refusals", "tally", "guards", "frame_sets", "plan", "adopt", "verify", "forgetting",
                 "near_accounts", "merged_values", "freshness", "lease", "remote_state", "push_result")
)  # fmt: skip


DEFINITIONS = "pipelines.definitions"  # for tests, workspace.yaml and the command line that stands in for it
ENTRY_POINT = "pipelines.__main__"  # imports late, so that `--help` does not wait for Dagster


def modules(root: Path) -> dict[str, Path]:
    """Our modules by their dotted names; a package by that of its folder."""
    found = {}
    for top in ("connectors", "pipelines"):
        for path in (root / top).rglob("*.py"):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(path: Path, known: Mapping[str, Path]) -> Iterator[tuple[str, int]]:
    """(imported module, line), wherever in the file it stands; `from package import module` names the module."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            package = node.module or ""
            for alias in node.names:
                whole = f"{package}.{alias.name}"
                yield (whole if whole in known else package), node.lineno


def fits(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def is_ours(name: str) -> bool:
    return name.split(".", maxsplit=1)[0] in ("connectors", "pipelines")


def violations(root: Path) -> list[str]:
    """Every import that breaks a rule, as `module:line imports what`."""
    known = modules(root)
    broken = []
    for module, path in known.items():
        allowed = next(allowed for pattern, allowed in ALLOWED.items() if fnmatchcase(module, pattern))
        for imported, line in imports_of(path, known):
            top = imported.split(".")[0]
            bad = (
                (is_ours(imported) and imported != module and not fits(imported, allowed))
                or imported == ""
                or (imported == DEFINITIONS and module != ENTRY_POINT)
                or (top in CONFINED and not fits(module, CONFINED[top]))
                or (top == "dagster" and fits(module, WITHOUT_DAGSTER))
            )
            if bad:
                broken.append(f"{module}:{line} imports {imported or 'by a relative path'}")
    return sorted(broken)


def local_imports(root: Path) -> list[str]:
    """Imports of ours inside a function: they would hide a circle."""
    found = []
    for module, path in modules(root).items():
        if module == ENTRY_POINT:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                inner = [each for each in ast.walk(node) if isinstance(each, ast.Import | ast.ImportFrom)]
                names = {alias.name for each in inner if isinstance(each, ast.Import) for alias in each.names}
                names |= {each.module or "" for each in inner if isinstance(each, ast.ImportFrom)}
                found += [f"{module}: {name}" for name in names if is_ours(name)]
    return found


def circle(root: Path) -> list[str]:
    """The modules of one circle of imports, if there is one."""
    known = modules(root)
    edges = {
        module: {name for name, _ in imports_of(path, known) if name in known and name != module}
        for module, path in known.items()
    }
    while edges:
        free = {module for module, targets in edges.items() if not targets & set(edges)}
        if not free:
            return sorted(edges)
        edges = {module: targets for module, targets in edges.items() if module not in free}
    return []


def test_every_module_imports_only_what_it_may() -> None:
    assert violations(ROOT) == []


def test_no_import_inside_a_function_hides_a_circle() -> None:
    assert local_imports(ROOT) == []
    assert circle(ROOT) == []


def test_every_rule_is_about_modules_that_there_are() -> None:
    names = list(modules(ROOT))
    rules = [*ALLOWED, *WITHOUT_DAGSTER, *(name for allowed in CONFINED.values() for name in allowed)]
    assert [rule for rule in rules if not any(fnmatchcase(name, rule) for name in names)] == []


def test_no_module_is_a_drawer_for_all_sorts() -> None:
    assert [name for name in modules(ROOT) if name.split(".")[-1] in ("utils", "helpers", "common", "misc")] == []


def test_no_package_shadows_one_of_pythons_own() -> None:
    assert not {"connectors", "pipelines", "tests"} & set(sys.stdlib_module_names)


# The rules are in force ---------------------------------------------------------------------------------------------

PLANTED = [
    (f"{PUSH}.protocol", f"from {PUSH} import errors", f"imports {PUSH}.errors"),
    (f"{PUSH}.errors", f"import {PUSH}.usersig", f"imports {PUSH}.usersig"),
    (f"{PUSH}.usersig", f"from {PUSH}.protocol import Command", f"imports {PUSH}.protocol"),
    (f"{PUSH}.client", f"from {PUSH}.sink import Sink", f"imports {PUSH}.sink"),
    (f"{PUSH}.pacing", f"from {PUSH} import outcomes", f"imports {PUSH}.outcomes"),
    (f"{PUSH}.sink", f"from {PUSH}.emulator import Emulator", f"imports {PUSH}.emulator"),
    (f"{PUSH}.sink", "import requests.adapters", "imports requests.adapters"),
    (f"{PUSH}.emulator.rules", f"from {PUSH}.errors import CATALOGUE", f"imports {PUSH}.errors"),
    (f"{PUSH}.ledger", "from connectors.profiles import parquet", "imports connectors.profiles.parquet"),
    (f"{PUSH}.ledger", "def f():\n    import dagster as dg", "imports dagster"),
    ("connectors.profiles.parquet", f"from {PUSH}.errors import Reason", f"imports {PUSH}.errors"),
    ("connectors.profiles.parquet", "from pipelines.store import Store", "imports pipelines.store"),
    ("connectors.profiles.parquet", "from dagster import asset", "imports dagster"),
    ("connectors.profiles.drops", "import dagster as dg", "imports dagster"),
    ("connectors.profiles.partitions", "import duckdb", "imports duckdb"),
    ("connectors.profiles.files", "from pipelines.mapping import Source", "imports pipelines.mapping"),
    ("connectors.profiles.footers", "import ibis", "imports ibis"),
    ("connectors.profiles.storage.filesystems", "import boto3", "imports boto3"),
    ("connectors.profiles.storage.object_storage", "import duckdb", "imports duckdb"),
    ("connectors.profiles.storage.storage_faults", "import dagster", "imports dagster"),
    ("connectors.profiles.warehouses.servers", "from pipelines.store import Store", "imports pipelines.store"),
    ("connectors.profiles.warehouses.arrow_stream", "import dagster", "imports dagster"),
    ("connectors.profiles.warehouses.clickhouse", "import clickhouse_connect", "imports clickhouse_connect"),
    ("connectors.profiles.warehouses.clickhouse_types", "import duckdb", "imports duckdb"),
    ("connectors.profiles.warehouses.snowflake", "import snowflake.connector", "imports snowflake.connector"),
    ("connectors.profiles.warehouses.snowflake_types", "from pipelines.values import Kind", "imports pipelines.values"),
    ("connectors.profiles.warehouses.bigquery", "from google.cloud import bigquery", "imports google.cloud"),
    ("connectors.profiles.warehouses.bigquery_types", "import dagster", "imports dagster"),
    ("connectors.profiles.warehouses.trino", "import trino.dbapi", "imports trino.dbapi"),
    ("connectors.profiles.warehouses.trino_types", "import pytest", "imports pytest"),
    ("connectors.profiles.warehouses.databricks", "from databricks import sql", "imports databricks"),
    ("connectors.profiles.storage.staging", "from pipelines.source_rows import FILE", "imports pipelines.source_rows"),
    ("connectors.profiles.extract_folder", "from pipelines.store import Store", "imports pipelines.store"),
    ("connectors.profiles.extract_writer", "import duckdb", "imports duckdb"),
    ("connectors.profiles.lake.data_files", "import deltalake", "imports deltalake"),
    ("connectors.profiles.lake.delta", "import pyiceberg.table", "imports pyiceberg.table"),
    ("connectors.profiles.lake.delta_storage", "import deltalake", "imports deltalake"),
    ("connectors.profiles.lake.iceberg", "import duckdb", "imports duckdb"),
    ("connectors.profiles.lake.iceberg_catalog", "from pipelines.mapping import Source", "imports pipelines.mapping"),
    ("connectors.profiles.lake.iceberg_files", "import boto3", "imports boto3"),
    ("connectors.profiles.lake.lake_extract", "import dagster", "imports dagster"),
    ("connectors.profiles.lake.lake_table", "import pyiceberg", "imports pyiceberg"),
    ("pipelines.table_options", "import deltalake", "imports deltalake"),
    ("pipelines.version_trigger", "import deltalake", "imports deltalake"),
    ("pipelines.freshness", "import dagster", "imports dagster"),
    ("pipelines.triggers", "from pipelines.definitions import SHARED", "imports pipelines.definitions"),
    ("pipelines.source_options", "import duckdb", "imports duckdb"),
    ("connectors.profiles.parquet", "from . import errors", "imports by a relative path"),
    ("pipelines.frames", "import dagster", "imports dagster"),
    ("pipelines.frames", "import duckdb", "imports duckdb"),
    ("pipelines.assets", "from pipelines import definitions", "imports pipelines.definitions"),
    ("pipelines.store", "from tests.reference import expect", "imports tests.reference"),
]


def planted(folder: Path, module: str, line: str) -> Path:
    """A copy of our modules, all empty, but for one line in one of them."""
    for name, path in modules(ROOT).items():
        copy = folder / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(f"{line}\n" if name == module else "", encoding="utf-8")
    return folder


@pytest.mark.parametrize(("module", "line", "what"), PLANTED)
def test_a_planted_violation_is_caught(tmp_path: Path, module: str, line: str, what: str) -> None:
    assert module in modules(ROOT)
    (found,) = violations(planted(tmp_path, module, line))
    assert found.startswith(f"{module}:")
    assert found.endswith(what)


def test_a_planted_local_import_and_a_planted_circle_are_caught(tmp_path: Path) -> None:
    folder = planted(tmp_path, "pipelines.store", "def f():\n    from pipelines.frames import Frame")
    assert local_imports(folder) == ["pipelines.store: pipelines.frames"]
    assert circle(folder) == []
    (folder / "pipelines" / "frames.py").write_text("from pipelines import store\n", encoding="utf-8")
    assert circle(folder) == ["pipelines.frames", "pipelines.store"]
