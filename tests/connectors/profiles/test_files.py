"""Which folder led to a file, and what is looked at beside it; test_parquet.py tells which files there are."""

import os
from pathlib import Path

import pytest

from connectors.profiles.errors import SourceNotFoundError
from connectors.profiles.files import Place, found_files, success_file_ns


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    folder = tmp_path / "lake" / "dt=2026-11-20" / "country=de"
    folder.mkdir(parents=True)
    (folder / "a.parquet").write_bytes(b"four")
    os.utime(folder / "a.parquet", ns=(5, 7))
    return tmp_path / "lake"


@pytest.mark.parametrize(
    ("source", "root"),
    [
        (".", "."),
        ("dt=2026-11-20", "dt=2026-11-20"),
        ("dt=*/*/*.parquet", "."),
        ("**/*.parquet", "."),
        ("dt=2026-11-20/co*", "dt=2026-11-20"),
        ("dt=2026-11-20/country=de/a.parquet", "dt=2026-11-20/country=de"),
    ],
)
def test_a_file_is_found_with_its_size_its_time_and_the_fixed_folder_above_it(
    lake: Path, source: str, root: str
) -> None:
    (found,) = found_files(source, lake)
    assert (found.bytes, found.modified_ns) == (4, 7)
    assert found.path == str(lake / "dt=2026-11-20/country=de/a.parquet")
    assert found.place.root == os.path.normpath(lake / root)


@pytest.mark.parametrize(
    ("path", "root", "folders"),
    [
        (
            "/lake/dt=1/country=de/a.parquet",
            "/lake",
            ["/lake/dt=1/country=de", "/lake/dt=1", "/lake"],
        ),
        ("/lake/a.parquet", "/lake", ["/lake"]),
        ("/lake/a.parquet", "/", ["/lake", "/"]),
        ("/a.parquet", "/", ["/"]),
        ("/lakes/a.parquet", "/lake", ["/lakes"]),
        ("s3://lake/dt=1/a.parquet", "s3://lake", ["s3://lake/dt=1", "s3://lake"]),
        ("s3://lake/湖/a.parquet", "s3://lake/湖", ["s3://lake/湖"]),
        ("abfs://c@account/p/dt=1/a.parquet", "abfs://c@account/p", ["abfs://c@account/p/dt=1", "abfs://c@account/p"]),
        ("hdfs:///dt=1/a.parquet", "hdfs://", ["hdfs:///dt=1", "hdfs://"]),
    ],
)
def test_the_folders_of_a_file_end_with_its_root(path: str, root: str, folders: list[str]) -> None:
    assert Place(path, root).folders == folders


def test_a_success_file_is_told_with_its_time_and_marks_no_file_of_the_source(lake: Path) -> None:
    assert success_file_ns(str(lake)) is None
    assert success_file_ns(str(lake / "nowhere")) is None
    (lake / "_SUCCESS").touch()
    os.utime(lake / "_SUCCESS", ns=(1, 9))
    assert success_file_ns(str(lake)) == 9
    assert len(found_files(".", lake)) == 1


def test_a_list_without_an_entry_means_no_file(lake: Path) -> None:
    with pytest.raises(SourceNotFoundError, match="list of Parquet files is empty"):
        found_files([], lake)
