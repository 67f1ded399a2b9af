"""The profiles that are measured, and the folders that each measurement begins with.

    <folder>/<rows>/source/part-*.parquet      sample profiles
    <folder>/<rows>/edited/part-*.parquet      the same with another city in every fiftieth row
    <folder>/<rows>/made.json                  written last; while it stands, both are taken as they are
    <folder>/<rows>/project/                   a copy of the project, with its data folder
    <folder>/<rows>/folded/                    that data folder as the first run and its fold left it
    <folder>/<rows>/few/                       next to no profiles

Parquet files are linked and not copied: nothing in a data folder writes into one that is there.
"""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.sample_profiles import write_sample_profiles
from tests.project import Project

EDITED_EVERY = 50  # rows: 2 %
SEED = 1
FEW_ROWS = 1_000
SYNC, FEW = "example", "few"  # syncs of the copied project
_SOURCE = "data/sample_profiles/*.parquet"


@dataclass(frozen=True, slots=True)
class Inputs:
    """All of one size."""

    folder: Path
    rows: int

    @property
    def source(self) -> Path:
        return self.folder / "source"

    @property
    def edited(self) -> Path:
        return self.folder / "edited"

    @property
    def project(self) -> Path:
        return self.folder / "project"

    @property
    def data(self) -> Path:
        return self.project / "data"

    def make(self) -> None:
        """Makes what is not there yet."""
        made, facts = self.folder / "made.json", {"rows": self.rows, "seed": SEED, "edited_every": EDITED_EVERY}
        if not made.exists() or json.loads(made.read_bytes()) != facts:
            made.unlink(missing_ok=True)
            write_sample_profiles(self.source, self.rows, SEED)
            _edit(self.source, self.edited)
            made.write_text(json.dumps(facts), encoding="utf-8")
        self.clear()

    def clear(self) -> None:
        """All but the profiles goes."""
        for name in ("project", FEW, "folded"):
            shutil.rmtree(self.folder / name, ignore_errors=True)

    def make_project(self) -> Project:
        """A copy of the project at `project`: its example reads the edited profiles, a second sync next to none."""
        project = Project.copy_to(self.project)
        write_sample_profiles(self.folder / FEW, FEW_ROWS, SEED)
        example = project.yaml.read_text(encoding="utf-8")
        if _SOURCE not in example:
            raise ValueError(f"the example's YAML has no {_SOURCE!r}")
        for sync, source in ((SYNC, self.edited), (FEW, self.folder / FEW)):
            folder = project.yaml.parents[1] / sync
            folder.mkdir(exist_ok=True)
            text = example.replace(_SOURCE, json.dumps(str(source / "*.parquet")))
            (folder / project.yaml.name).write_text(text, encoding="utf-8")
        return project

    def keep_folded(self) -> None:
        """What the first run and its fold left is where each other night begins."""
        shutil.rmtree(self._folded, ignore_errors=True)
        _link_tree(self.data, self._folded)

    def restore_folded(self) -> None:
        self.forget()
        _link_tree(self._folded, self.data)

    def forget(self) -> None:
        """As if nothing had ever run."""
        shutil.rmtree(self.data, ignore_errors=True)

    @property
    def _folded(self) -> Path:
        return self.folder / "folded"


def warm(source: Path) -> None:
    """Reads the files, so that every measurement finds them in memory alike."""
    for file in source.glob("*.parquet"):
        with file.open("rb") as opened:
            while opened.read(2**24):
                pass


def _link_tree(source: Path, destination: Path) -> None:
    shutil.copytree(source, destination, copy_function=_link)


def _link(source: str, destination: str) -> None:
    if source.endswith(".parquet"):
        os.link(source, destination)
    else:
        shutil.copy2(source, destination)


def _edit(source: Path, destination: Path) -> None:
    """Row groups stay as they are, and so does all that is not the city of a fiftieth row."""
    shutil.rmtree(destination, ignore_errors=True)
    destination.mkdir(parents=True)
    first = 0
    for path in sorted(source.glob("*.parquet")):
        with (
            pq.ParquetFile(path) as file,
            pq.ParquetWriter(destination / path.name, file.schema_arrow, compression="snappy") as writer,
        ):
            for group in range(file.num_row_groups):
                table = file.read_row_group(group)
                writer.write_table(_edited(table, first=first))
                first += table.num_rows


def _edited(table: pa.Table, *, first: int) -> pa.Table:
    numbers = np.arange(first, first + table.num_rows)
    cities = pc.binary_join_element_wise("新しい町", pc.cast(pa.array(numbers % 997), pa.string()), " ")
    city = pc.if_else(pa.array(numbers % EDITED_EVERY == 0), cities, table["city"])
    return table.set_column(table.column_names.index("city"), table.schema.field("city"), city)
