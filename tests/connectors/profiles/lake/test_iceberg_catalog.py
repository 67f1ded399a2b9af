"""The catalog of an Iceberg table: found by its properties or its name, and never quoted with a secret."""

import socket
import sys
from contextlib import closing
from pathlib import Path

import pytest
from pyiceberg.catalog import Catalog

from connectors.profiles.errors import ProfilesError, SourceTableError, SourceUnreachableError
from connectors.profiles.lake.iceberg_catalog import IcebergName
from tests.iceberg_reads import NAME, extracted, people, refused, rows
from tests.lake_tables import catalog_properties, open_catalog, write_iceberg


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return open_catalog(tmp_path / "lake")


@pytest.fixture(autouse=True)
def no_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYICEBERG_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))


def test_a_catalog_is_found_by_its_name_in_the_environment(
    tmp_path: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_iceberg(catalog, NAME, people(1))
    for key, value in catalog_properties(tmp_path / "lake").items():
        monkeypatch.setenv(f"PYICEBERG_CATALOG__TEST__{key.upper()}", value)
    assert rows(tmp_path, "id", properties={}) == [{"id": 1}]
    monkeypatch.setenv("PYICEBERG_DEFAULT_CATALOG", "test")
    assert rows(tmp_path, "id", properties={}, catalog=None) == [{"id": 1}]


def test_a_catalog_is_found_by_its_name_in_pyiceberg_s_file(tmp_path: Path, catalog: Catalog) -> None:
    write_iceberg(catalog, NAME, people(1))
    lines = [f"      {key}: {value}\n" for key, value in catalog_properties(tmp_path / "lake").items()]
    (tmp_path / ".pyiceberg.yaml").write_text("catalog:\n    test:\n" + "".join(lines), encoding="utf-8")
    found = extracted(tmp_path, ["id"], properties={})
    assert found.rows == 1


@pytest.mark.parametrize(("properties", "kind", "what"), [
    ({"type": "nonsense", "uri": "x://user:planted@h"}, SourceTableError, "at x://h cannot be set up (ValueError)"),
    ({}, SourceTableError, "pyiceberg knows no catalog 'test'. Correct its name, or say what it is"),
    ({"type": "rest", "uri": "http://me:planted@127.0.0.1:9/c"}, SourceUnreachableError,
     "at http://127.0.0.1:9/c cannot be reached (ConnectionError)"),
    ({"type": "sql", "uri": "postgresql+pg8000://me:planted@h/c"}, SourceTableError,
     "needs a package that is not installed"),
    ({"type": "rest", "uri": "http://127.0.0.1:9", "credential": "a:planted",
      "oauth2-server-uri": "http://127.0.0.1:9/token"}, SourceUnreachableError,
     "The catalog of the Iceberg table marts.people of the catalog test at http://127.0.0.1:9 cannot be reached"),
    ({"type": "sql", "uri": "sqlite:////nowhere/planted.db", "warehouse": "/x"}, SourceUnreachableError, "no use ("),
])  # fmt: skip
def test_a_catalog_that_cannot_be_had_is_told_without_its_secrets(
    tmp_path: Path, properties: dict[str, str], kind: type[ProfilesError], what: str
) -> None:
    told = refused(tmp_path, properties=properties)
    assert isinstance(told, kind)
    assert what in str(told)
    assert "planted" not in str(told).replace("sqlite:////nowhere/planted.db", "")


def test_a_catalog_that_stays_silent_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("connectors.profiles.lake.iceberg_catalog.REQUEST_SECONDS", 0.1)
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        told = refused(tmp_path, properties={"type": "rest", "uri": f"http://127.0.0.1:{silent.getsockname()[1]}"})
    assert isinstance(told, SourceUnreachableError)
    assert "cannot be reached (ReadTimeout)" in str(told)


def test_a_catalog_whose_package_is_missing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyiceberg.catalog.hive", None)
    told = refused(tmp_path, properties={"type": "hive", "uri": "thrift://127.0.0.1:9"})
    assert isinstance(told, SourceTableError)
    assert "needs a package that is not installed" in str(told)


def test_without_the_reader_the_command_that_installs_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("connectors.profiles.lake.iceberg_catalog.importlib.import_module", _not_installed)
    assert "pip install '.[iceberg]'" in str(refused(tmp_path))


def test_a_name_shows_no_property_of_its_catalog() -> None:
    name = IcebergName(NAME, "prod", {"uri": "postgresql://reader:planted@h/c"})
    assert "planted" not in f"{name} {name!r}"


def _not_installed(name: str) -> None:
    raise ModuleNotFoundError(name)
