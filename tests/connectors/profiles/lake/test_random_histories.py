"""Histories of random commits: each version is read as the format's own library reads it, row for row."""

import datetime as dt
import decimal
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import deltalake
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pyiceberg.table import Table
from pyiceberg.types import StringType

from tests import delta_reads, iceberg_reads
from tests.lake_tables import open_catalog

CITIES = [None, "上海", "Köln/Süd", "50%20 #?=&", "a b+c:d", "نور", "🦉'\""]
START = dt.datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=dt.UTC)


class Commit(NamedTuple):
    """What is done, and to which people; their values come from `salt`."""

    kind: str
    ids: Sequence[int]
    salt: int


def commits(*kinds: str) -> st.SearchStrategy[list[Commit]]:
    ids = st.lists(st.integers(0, 9), min_size=1, max_size=5, unique=True)
    return st.lists(st.builds(Commit, st.sampled_from(kinds), ids, st.integers(0, 50)), min_size=1, max_size=7)


def people(ids: Sequence[int], salt: int, *more: str) -> pa.Table:
    rows = {
        "id": pa.array(ids, pa.int64()),
        "city": pa.array([CITIES[(each + salt) % len(CITIES)] for each in ids], pa.string()),
        "spent": pa.array(
            [None if each == salt else decimal.Decimal(each - salt).scaleb(-2) for each in ids], pa.decimal128(12, 2)
        ),
        "at": pa.array([START + dt.timedelta(days=each * salt) for each in ids], pa.timestamp("us", "UTC")),
        **{name: pa.array([f"{name} {each}" for each in ids], pa.string()) for name in more},
    }
    return pa.table(rows)


def in_any_order(table: pa.Table) -> Counter[tuple[Any, ...]]:
    return Counter(tuple(row.values()) for row in table.to_pylist())


def same(ours: pa.Table, theirs: pa.Table) -> None:
    assert in_any_order(ours) == in_any_order(theirs.select(ours.column_names))


def examples(long_proofs: bool) -> settings:
    """Without the search for a smaller example, which takes minutes: a commit is no quick thing."""
    return settings(
        max_examples=60 if long_proofs else 8,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )


# Delta --------------------------------------------------------------------------------------------------------------


def commit_to_delta(folder: Path, commit: Commit, partitions: list[str]) -> None:
    rows, ids = people(commit.ids, commit.salt), ", ".join(map(str, commit.ids))
    table = deltalake.DeltaTable(folder)
    if commit.kind == "append":
        deltalake.write_deltalake(table, rows, mode="append", schema_mode="merge")
    elif commit.kind == "overwrite":
        deltalake.write_deltalake(
            table, rows, mode="overwrite", schema_mode="overwrite", partition_by=partitions or None
        )
    elif commit.kind == "new column":
        wider = people(commit.ids, commit.salt, f"more {commit.salt % 3}")
        deltalake.write_deltalake(table, wider, mode="append", schema_mode="merge")
    elif commit.kind == "delete":
        table.delete(f"id in ({ids})")
    elif commit.kind == "update":
        table.update(updates={"city": "'Bonn'"}, predicate=f"id in ({ids})")
    elif commit.kind == "merge":
        merging = table.merge(rows, "t.id = s.id", source_alias="s", target_alias="t")
        names = {name: f"s.{name}" for name in rows.column_names}
        merging.when_matched_update(names).when_not_matched_insert(names).execute()
    elif commit.kind == "restore":
        if newest := table.version():
            table.restore(commit.salt % newest)
    elif commit.kind == "checkpoint":
        table.create_checkpoint()
    else:
        table.optimize.compact()


@pytest.mark.parametrize("partitions", [[], ["city"], ["at", "city"]])
def test_every_version_of_a_delta_table_is_read_as_deltalake_reads_it(
    tmp_path_factory: pytest.TempPathFactory, partitions: list[str], long_proofs: bool
) -> None:
    kinds = ("append", "overwrite", "new column", "delete", "update", "merge", "restore", "checkpoint", "compact")

    @examples(long_proofs)
    @given(commits(*kinds))
    def follow(history: list[Commit]) -> None:
        folder = tmp_path_factory.mktemp("客 户") / "t"
        deltalake.write_deltalake(folder, people(range(6), 3), partition_by=partitions or None)
        for commit in history:
            commit_to_delta(folder, commit, partitions)
        for version in range(deltalake.DeltaTable(folder).version() + 1):
            theirs = pa.table(deltalake.DeltaTable(folder, version=version).scan())
            ours = delta_reads.table(folder, *theirs.column_names, version=version)
            same(ours, theirs)
            assert delta_reads.table(folder, *theirs.column_names, version=version).equals(ours)
        same(delta_reads.table(folder, "city"), theirs)

    follow()


# Iceberg ------------------------------------------------------------------------------------------------------------


def commit_to_iceberg(table: Table, commit: Commit) -> None:
    ids = ", ".join(map(str, commit.ids))
    town = "city" if "city" in table.schema().column_names else "town"
    rows = people(commit.ids, commit.salt).rename_columns({"city": town})
    if commit.kind == "append":
        table.append(rows)
    elif commit.kind == "overwrite":
        table.overwrite(rows, overwrite_filter=f"id in ({ids})")
    elif commit.kind == "delete":
        table.delete(f"id in ({ids})")
    elif commit.kind == "upsert":
        with suppress(ValueError):  # pyiceberg cannot where a column was renamed; nothing is committed then
            table.upsert(rows, join_cols=["id"])
    elif commit.kind == "new column":
        with table.update_schema() as update:
            update.add_column(f"more {len(table.schema().fields)}", StringType())
    elif commit.kind == "rename":
        with table.update_schema() as update:
            update.rename_column(town, "town" if town == "city" else "city")
    elif table.spec().fields:
        with table.update_spec() as spec:
            spec.remove_field(table.spec().fields[0].name)
    else:
        with table.update_spec() as spec:
            spec.add_identity((town, "id", "at")[commit.salt % 3])


@pytest.mark.filterwarnings("ignore:Delete operation did not match")
def test_every_snapshot_of_an_iceberg_table_is_read_as_pyiceberg_reads_it(
    tmp_path_factory: pytest.TempPathFactory, long_proofs: bool
) -> None:
    kinds = ("append", "overwrite", "delete", "upsert", "new column", "rename", "partition")

    @examples(long_proofs)
    @given(commits(*kinds))
    def follow(history: list[Commit]) -> None:
        folder = tmp_path_factory.mktemp("客户")
        catalog = open_catalog(folder / "lake")
        first = people(range(6), 3)
        table = catalog.create_table("marts.people", first.schema)
        table.append(first)
        for commit in history:
            commit_to_iceberg(table, commit)
        for chosen in [{}, *({"snapshot": each.snapshot_id} for each in table.snapshots())]:
            theirs = table.scan(snapshot_id=chosen.get("snapshot")).to_arrow()
            ours = iceberg_reads.table(folder, *theirs.column_names, **chosen)
            same(ours, theirs)
            assert iceberg_reads.table(folder, *theirs.column_names, **chosen).equals(ours)

    follow()
