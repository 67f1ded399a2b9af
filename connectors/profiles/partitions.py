"""Hive partitions: folders named `key=value`, as columns of the files below them, and the newest of them.

Values come from names alone. A column of a file's own goes before a folder of the same name.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import lru_cache, partial
from pathlib import Path
from types import MappingProxyType
from urllib.parse import unquote

import pyarrow as pa

from connectors.profiles.errors import SourceColumnError, SourcePartitionError
from connectors.profiles.files import FoundFile, found_files, success_file_ns
from connectors.profiles.parquet import Manifest, read_manifest
from connectors.profiles.storage.object_storage import SUCCESS_FILE, ObjectStorage

NULL_FOLDER = "__HIVE_DEFAULT_PARTITION__"  # Hive's and Spark's name for the folder of nulls
_SHOWN = 5
_ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_INTEGER = re.compile(r"0|-?[1-9]\d{0,17}")  # 18 digits fit into 64 bits; a leading zero is no number's canonical text

Values = Mapping[str, str | None]  # key -> value; None is null


@dataclass(frozen=True, slots=True)
class Choice:
    """The files to read. `partition` names the one that was chosen; `passed_over` says which newer ones were not."""

    files: tuple[FoundFile, ...]
    partition: str | None = None
    passed_over: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which partition to read: by name (`dt=2026-11-20`, `dt=2026-11-20/country=de`), or the newest by `latest`.

    `latest` names the keys that tell the newest; empty means the only key that there is, None means all partitions.
    """

    latest: tuple[str, ...] | None = None
    name: str | None = None


EVERYTHING = Wanted()


def read_partitions(
    source: str | Sequence[str],
    *,
    columns: Sequence[str],
    base: Path,
    wanted: Wanted = EVERYTHING,
    storage: ObjectStorage | None = None,
) -> Manifest:
    """`read_manifest` of the wanted partition, with the folders' values as columns where `columns` names them.

    Raises SourcePartitionError where there is no such partition, or none that is complete.
    """
    storage = storage or ObjectStorage()
    found = found_files(source, base, storage=storage)
    choice = choose(found, wanted, success_ns=partial(success_file_ns, storage=storage))
    above = {key for file in choice.files for key in folder_values(file.path)}
    paths = [file.path for file in choice.files]
    manifest = read_manifest(paths, columns=columns, base=base, elsewhere=above, storage=storage)
    folders = [name for name in dict.fromkeys(columns) if name not in manifest.schema.names]
    if folders:
        table = pa.table({name: _typed(name, choice.files) for name in folders})
        fields = {field.name: field for schema in (manifest.schema, table.schema) for field in schema}
        schema = pa.schema([fields[name] for name in dict.fromkeys(columns)])
        manifest = replace(manifest, schema=schema, folder_columns=table)
    return replace(manifest, partition=choice.partition, passed_over=choice.passed_over)


def choose(
    files: Sequence[FoundFile], wanted: Wanted, *, success_ns: Callable[[str], int | None] = success_file_ns
) -> Choice:
    if wanted.name is not None:
        return _named(files, wanted.name)
    if wanted.latest is None:
        return Choice(tuple(files))
    return _newest(files, _keys(files, wanted.latest), success_ns)


def folder_values(path: str, *, below: str = "/") -> Values:
    """The `key=value` folders that `path` lies in; of one key that stands twice, the innermost."""
    return _values_of_folder(path.rpartition("/")[0] or "/", below)


@lru_cache(maxsize=4096)  # many files share a folder, and a sensor asks every minute
def _values_of_folder(folder: str, below: str) -> Values:
    values: dict[str, str | None] = {}
    for part in folder.removeprefix(below).split("/"):  # an address is no Path: that would take a slash out of it
        key, sign, value = part.partition("=")
        if key and sign:
            values[unquote(key)] = None if value == NULL_FOLDER else unquote(value)
    return MappingProxyType(values)


def parsed_name(text: str) -> Values:
    """`dt=2026-11-20/country=de` as key and value. Raises SourcePartitionError for anything else."""
    values = folder_values(str(Path("/", text.strip("/"), "file")))
    if len(values) != len(text.strip("/").split("/")):
        raise SourcePartitionError(f"{text!r} names no partition; write for example dt=2026-11-20")
    return values


def in_partition(path: str, name: str) -> bool:
    """Whether the file lies in the partition, whatever stands between its folders."""
    return parsed_name(name).items() <= folder_values(path).items()


def _named(files: Sequence[FoundFile], name: str) -> Choice:
    chosen = tuple(file for file in files if in_partition(file.path, name))
    if not chosen:
        keys = list(parsed_name(name))
        there = sorted({_label(values, keys) for file in files if set(keys) <= set(values := folder_values(file.path))})
        raise SourcePartitionError(f"No file of the source lies in {name}. {_hint(there, keys)}")
    return Choice(chosen, partition=name.strip("/"))


def _hint(there: Sequence[str], keys: Sequence[str]) -> str:
    if not there:
        return f"No file lies in folders named {', '.join(f'{key}=...' for key in keys)}."
    return f"The last of those that are there: {', '.join(there[-_SHOWN:])}."


def _keys(files: Sequence[FoundFile], named: Sequence[str]) -> tuple[str, ...]:
    """The keys that tell the newest partition, which every file must have in its path below the source's root."""
    found = dict.fromkeys(key for file in files for key in _below_root(file))
    if not named and len(found) > 1:
        raise SourcePartitionError(
            f"The source has partitions by {' and '.join(found)}. Say which tell the newest, "
            f"for example `partition: {{latest: [{next(iter(found))}]}}`; all partitions of the others are then read."
        )
    keys = tuple(named or found)
    for file in files:
        if not keys or not set(keys) <= set(_below_root(file)):
            raise SourcePartitionError(
                f"{file.path} lies in no folder named {' and '.join(f'{key}=...' for key in keys or ('key',))} below "
                f"{file.place.root}. Give the folder above the partitions as the source, and take other files out."
            )
    return keys


def _newest(files: Sequence[FoundFile], keys: Sequence[str], success_ns: Callable[[str], int | None]) -> Choice:
    groups: dict[tuple[str | None, ...], list[FoundFile]] = {}
    for file in files:
        below = _below_root(file)
        groups.setdefault(tuple(below[key] for key in keys), []).append(file)
    passed_over: list[str] = []
    newest_first = _newest_first(list(groups), keys, passed_over)
    roots = dict.fromkeys(file.place.root for file in files)
    for index, values in enumerate(newest_first):
        group, label = groups[values], _label(dict(zip(keys, values, strict=True)), keys)
        absent = [root for root in roots if root not in {file.place.root for file in group}]
        older = (groups[each] for each in newest_first[index + 1 :])
        if absent:
            passed_over.append(f"{label}: not in {absent[0]} yet")
        elif not _has_success(group, keys, success_ns) and any(_has_success(each, keys, success_ns) for each in older):
            passed_over.append(f"{label}: no {SUCCESS_FILE}, which older ones have")
        else:
            return Choice(tuple(group), partition=label, passed_over=tuple(passed_over))
    raise SourcePartitionError(
        "No partition of the source is complete. " + "; ".join(passed_over or ["There is none."])
    )


def _newest_first(
    groups: Sequence[tuple[str | None, ...]], keys: Sequence[str], passed_over: list[str]
) -> list[tuple[str | None, ...]]:
    """By number where a key has numbers only, else as text. Beside dates, what is no date is not taken for newer."""
    left = [values for values in groups if None not in values]  # nulls are never the newest
    for place, key in enumerate(keys):
        if any(is_date(values[place]) for values in left):
            strange = [values for values in left if not is_date(values[place])]
            passed_over += [f"{key}={values[place]}: no date, as others are" for values in strange]
            left = [values for values in left if values not in strange]
    is_number = [all(re.fullmatch(r"\d+", values[place] or "") for values in left) for place in range(len(keys))]

    def rank(values: tuple[str | None, ...]) -> list[tuple[int, str]]:
        return [
            (int(value or 0) if number else 0, value or "") for value, number in zip(values, is_number, strict=True)
        ]

    return sorted(left, key=rank, reverse=True)


def _has_success(files: Sequence[FoundFile], keys: Sequence[str], success_ns: Callable[[str], int | None]) -> bool:
    """Whether a `_SUCCESS` stands beside each file, or above it within the partition."""
    one_per_folder = {file.path.rpartition("/")[0]: file.place for file in files}
    return all(
        any(success_ns(folder) is not None for folder in place.folders if _keeps(folder, place.root, keys))
        for place in one_per_folder.values()
    )


def _keeps(folder: str, root: str, keys: Sequence[str]) -> bool:
    return set(keys) <= set(folder_values(f"{folder}/file", below=root))


def _below_root(file: FoundFile) -> Values:
    return folder_values(file.path, below=file.place.root)


def _label(values: Values, keys: Sequence[str]) -> str:
    return "/".join(f"{_escaped(key)}={_escaped(values[key])}" for key in keys)


def _escaped(text: str | None) -> str:
    """As a folder's name, but for characters that need no escape."""
    return NULL_FOLDER if text is None else text.replace("%", "%25").replace("/", "%2F")


def _typed(name: str, files: Sequence[FoundFile]) -> pa.Array:
    """A value per file: dates where all values are, whole numbers where all are, else text."""
    values = list(_values_of(name, files))
    given = [value for value in values if value is not None]
    if given and all(is_date(value) for value in given):
        return pa.array([value and date.fromisoformat(value) for value in values], pa.date32())
    if given and all(_INTEGER.fullmatch(value) for value in given):
        return pa.array([value and int(value) for value in values], pa.int64())
    return pa.array(values, pa.string())


def _values_of(name: str, files: Sequence[FoundFile]) -> Iterator[str | None]:
    for file in files:
        values = folder_values(file.path)
        if name not in values:
            raise SourceColumnError(
                f"{file.path} has no column {name!r} and lies in no folder {name}=..., as other files do. "
                "Take it out of the source.",
                columns=[name],
                where=file.path,
            )
        yield values[name]


def is_date(value: str | None) -> bool:
    """Whether it is written as 2026-11-20, and is a day."""
    if value is None or not _ISO_DATE.fullmatch(value):
        return False
    try:
        date.fromisoformat(value)
    except ValueError:
        return False
    return True
