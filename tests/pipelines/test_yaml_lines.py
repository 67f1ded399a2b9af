"""A message leads to the line of the YAML that it is about."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from pipelines.yaml_lines import duplicate_keys, locate

YAML = """\
type: pipelines.attribute_sync.AttributeSync
# a comment
attributes:
  accounts:
    user_id:
      column: user_id
      attributes:
        city: {column: town, null: remove}
        "note": &shared
          column: note
        other: *shared
        城市: town
  source:
    parquet:
      - a.parquet
      - b.parquet
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "defs.yaml"
    path.write_text(YAML, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ((), 1),
        (("type",), 1),
        (("attributes",), 3),
        (("attributes", "accounts", "user_id", "column"), 6),
        (("attributes", "accounts", "user_id", "attributes", "city"), 8),
        (("attributes", "accounts", "user_id", "attributes", "city", "null"), 8),
        (("attributes", "accounts", "user_id", "attributes", "note", "column"), 10),
        (("attributes", "accounts", "user_id", "attributes", "other"), 11),
        (("attributes", "accounts", "user_id", "attributes", "城市"), 12),
        (("attributes", "source", "parquet", 1), 16),
    ],
)
def test_a_path_leads_to_its_keys_line(file: Path, path: Sequence[str | int], line: int) -> None:
    assert locate(file, path) == f"{file}:{line}"


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("attributes", "accounts", "registration_id"), 4),
        (("attributes", "source", "parquet", 2), 14),
        (("attributes", "source", "warehouse", "uri"), 13),
        (("nowhere",), 1),
        (("type", "deeper"), 1),
    ],
)
def test_a_key_that_is_not_there_leads_to_the_nearest_one_above(
    file: Path, path: Sequence[str | int], line: int
) -> None:
    assert locate(file, path) == f"{file}:{line}"


@pytest.mark.parametrize("content", [b"a: [", b"\xff\xfe\x00", b"a: b: c", b"\t- x"])
def test_a_file_that_cannot_be_read_as_yaml_is_named_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "defs.yaml"
    path.write_bytes(content)
    assert locate(path, ("attributes",)) == str(path)
    assert locate(tmp_path / "gone.yaml", ("attributes",)) == str(tmp_path / "gone.yaml")


def test_an_empty_file_has_no_line_to_tell(tmp_path: Path) -> None:
    path = tmp_path / "defs.yaml"
    path.write_text("", encoding="utf-8")
    assert locate(path, ("attributes",)) == str(path)


def test_a_key_that_stands_twice_is_told_with_its_second_line(tmp_path: Path) -> None:
    path = tmp_path / "defs.yaml"
    path.write_text("a:\n  city: x\n  level: y\n  city: z\nlist:\n  - {k: 1, k: 2}\n", encoding="utf-8")
    assert duplicate_keys(path) == [
        f"{path}:4: 'city' stands here twice; remove one",
        f"{path}:6: 'k' stands here twice; remove one",
    ]
    path.write_text("a: {city: x}\nb: {city: y}\n", encoding="utf-8")
    assert duplicate_keys(path) == []
