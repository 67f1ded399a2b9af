"""What is checked before the first row is read or sent: columns against the mapping, attributes against the app.

Every message names the column or attribute, the line of the YAML and what to do; all mistakes are told at once.
"""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import pyarrow as pa

from connectors.profiles.errors import SourceColumnError
from connectors.profiles.parquet import Manifest
from connectors.profiles.partitions import is_date
from connectors.tencent_push.protocol import AccountType
from pipelines.errors import ConfigurationError
from pipelines.mapping import RESERVED_COLUMN, AttributeMapping, NullPolicy, SyncMapping
from pipelines.yaml_lines import locate

MAX_DECIMAL_DIGITS = 38


def check_source(mapping: SyncMapping, schema: pa.Schema, *, yaml_file: Path) -> None:
    """Raise ConfigurationError for every column whose name or type cannot be an account, a filter or an attribute."""
    found = [*_name_problems(mapping), *_type_problems(mapping, schema)]
    problems = [f"{locate(yaml_file, ('attributes', *path))}: {problem}" for path, problem in found]
    if problems:
        raise ConfigurationError("\n".join(problems))


def check_files(mapping: SyncMapping, manifest: Manifest, *, yaml_file: Path) -> None:
    """Raise ConfigurationError for every file that lacks a column whose nulls would remove something or decide wrongly.

    What else a file lacks is null there. A file without profiles lacks nothing.
    """
    problems: dict[str, None] = {}
    for file in manifest.files:
        lacking = set(manifest.own_columns) - set(file.schema.names) if file.rows else set()
        for path, column, why in _lacking_problems(mapping, lacking):
            line = locate(yaml_file, ("attributes", *path))
            problems[
                f"{line}: {file.path} has no column {column!r}, which other files of the source have: {why}. Write the "
                "file again with the column (null where nothing is known), or take it out of the source."
            ] = None
    if problems:
        raise ConfigurationError("\n".join(problems))


def missing_columns(error: SourceColumnError, mapping: SyncMapping, *, yaml_file: Path) -> ConfigurationError:
    """The source's complaint with the YAML lines that name the columns."""
    lines = [locate(yaml_file, ("attributes", *path)) for column in error.columns for path in mapping.uses_of(column)]
    return ConfigurationError(f"{error} Named in {', '.join(dict.fromkeys(lines))}.")


def check_declared(mapping: SyncMapping, declared: Mapping[str, AccountType], *, yaml_file: Path) -> None:
    """Raise ConfigurationError for every attribute that the app lacks or keeps for the other account type."""
    problems = []
    for name, kind in mapping.declared().items():
        line = locate(yaml_file, ("attributes", "accounts", kind.value, "attributes", name))
        if name not in declared:
            problems.append(
                f"{line}: attribute {name!r} is not declared in the app, which has "
                f"{', '.join(sorted(declared)) or 'none'}; "
                f"declare it with `python -m connectors.tencent_push declare {name}:{kind}`, or correct the name"
            )
        elif declared[name] is not kind:
            problems.append(
                f"{line}: attribute {name!r} is declared for {declared[name]}, not for {kind}, which can never be "
                "changed; declare another name for this account type"
            )
    if problems:
        raise ConfigurationError("\n".join(problems))


def _name_problems(mapping: SyncMapping) -> Iterator[tuple[tuple[str | int, ...], str]]:
    for column in filter(RESERVED_COLUMN.fullmatch, mapping.columns()):
        for path in mapping.uses_of(column):
            yield path, f"column {column!r} has a name that this program keeps for its own; rename it in the source"


def _type_problems(mapping: SyncMapping, schema: pa.Schema) -> Iterator[tuple[tuple[str | int, ...], str]]:
    for kind, mine in mapping.account_types().items():
        account = _value_type(schema.field(mine.column).type)
        if not (_is_text(account) or _is_whole_number(account)):
            yield (
                ("accounts", kind.value, "column"),
                f"column {mine.column!r} is {account}; an account is text or a whole number",
            )
        for column, wanted in mine.where.items():
            problem = _where_problem(column, wanted, _value_type(schema.field(column).type))
            if problem:
                yield ("accounts", kind.value, "where", column), problem
        for name, attribute in mine.attributes.items():
            problem = _attribute_problem(attribute, _value_type(schema.field(attribute.column).type))
            if problem:
                yield ("accounts", kind.value, "attributes", name), problem
    if mapping.updated_at and mapping.source.max_age and not may_be_time(schema.field(mapping.updated_at).type):
        yield (
            ("source", "max_age"),
            f"column {mapping.updated_at!r} is {schema.field(mapping.updated_at).type}; "
            "an age is told by a timestamp, a date or text such as 2026-11-20T02:00:00Z",
        )
    if mapping.updated_at and not _can_order(_value_type(schema.field(mapping.updated_at).type)):
        yield (
            ("updated_at",),
            f"column {mapping.updated_at!r} is {schema.field(mapping.updated_at).type}; "
            "the newest profile is told by a timestamp, a date, a number or text",
        )


def _lacking_problems(
    mapping: SyncMapping, lacking: Collection[str]
) -> Iterator[tuple[tuple[str | int, ...], str, str]]:
    """(place in the YAML, column, why nulls do not do) of every column among `lacking` that a file must have.

    Where the account's column is lacking too there are no accounts of the type, and nothing to decide about them.
    """
    kinds = mapping.account_types()
    if all(mine.column in lacking for mine in kinds.values()):
        kind, mine = next(iter(kinds.items()))
        yield ("accounts", kind.value, "column"), mine.column, "none of its profiles would have an account"
        return
    if mapping.updated_at in lacking:
        yield ("updated_at",), str(mapping.updated_at), "its profiles would count as older than all others"
    for kind, mine in kinds.items():
        if mine.column in lacking:
            continue
        for column in mine.where:
            if column in lacking:
                why = f"`where` would find no account of type {kind} in it"
                yield ("accounts", kind.value, "where", column), column, why
        for name, attribute in mine.attributes.items():
            if attribute.column in lacking and attribute.null is NullPolicy.REMOVE:
                why = f"`null: remove` would remove attribute {name!r} of every account in it"
                yield ("accounts", kind.value, "attributes", name), attribute.column, why


def _attribute_problem(attribute: AttributeMapping, kind: pa.DataType) -> str | None:
    column = attribute.column
    if pa.types.is_floating(kind):
        if attribute.decimals is None:
            return f"column {column!r} is {kind}: say how many digits follow the point, with `decimals: 2` for example"
        return None
    if attribute.decimals is not None:
        return f"`decimals` is for floating-point columns; column {column!r} is {kind}"
    is_fit = (
        _is_text(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_integer(kind)
        or _is_exact_decimal(kind)
        or pa.types.is_date(kind)
        or pa.types.is_timestamp(kind)
        or pa.types.is_null(kind)
    )
    if is_fit:
        return None
    return (
        f"column {column!r} is {kind}, which has no canonical text; "
        "map a text, boolean, number, date or timestamp column, or convert it in the source"
    )


def _is_exact_decimal(kind: pa.DataType) -> bool:
    """The engine's decimals have 38 digits; it would read longer ones as rounded floating-point numbers."""
    return bool(pa.types.is_decimal(kind)) and kind.precision <= MAX_DECIMAL_DIGITS


def _is_whole_number(kind: pa.DataType) -> bool:
    """Also a decimal without decimal places, which is what Snowflake and others keep every integer as."""
    return bool(pa.types.is_integer(kind)) or (_is_exact_decimal(kind) and kind.scale == 0)


def _where_problem(column: str, wanted: object, kind: pa.DataType) -> str | None:
    if isinstance(wanted, bool):
        is_fit = pa.types.is_boolean(kind)
    elif isinstance(wanted, int):
        is_fit = _is_whole_number(kind)
    else:
        is_fit = _is_text(kind) or (pa.types.is_date(kind) and is_date(str(wanted)))
    if is_fit:
        return None
    return (
        f"`where` compares column {column!r}, which is {kind}, with {wanted!r}; "
        "quote text, write true, false and whole numbers without quotes, and dates as 2026-11-20"
    )


def _value_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def may_be_time(kind: pa.DataType) -> bool:
    """Whether the column is a timestamp, a date, or text that may be one."""
    value = _value_type(kind)
    return bool(_is_text(value) or pa.types.is_timestamp(value) or pa.types.is_date(value))


def _can_order(kind: pa.DataType) -> bool:
    return bool(
        _is_text(kind)
        or pa.types.is_timestamp(kind)
        or pa.types.is_date(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
    )
