"""The YAML of a sync as checked types: source, accounts, attributes and their policies.

Everything that can be known from the YAML alone is checked here; what needs the source's schema or the target's
declared attributes is checked before the first row is read (see preflight.py). Nothing here does I/O.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import date
from enum import StrEnum
from typing import Annotated, Any, Literal

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    GetJsonSchemaHandler,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import core_schema

from connectors.profiles.storage.filesystems import is_address, read_address
from connectors.profiles.warehouses.sql_text import TableName
from connectors.profiles.warehouses.warehouse import TIMEOUT_SECONDS
from connectors.tencent_push.protocol import MAX_ATTRIBUTES, MAX_NAME_BYTES, AccountType
from pipelines.source_options import (
    AssetKeyText,
    MaxAgeOption,
    OnNewFiles,
    PartitionOption,
    SourceKind,
    Storage,
    is_template,
    told_with_the_rest,
)
from pipelines.source_options import Strict as _Strict
from pipelines.table_options import DeltaOption, Iceberg

FRAME_COLUMNS = (
    *("account", "changed", "removed", "uncertain", "acknowledged_at", "source_file", "source_row"),
    "file_row_number",  # the engine's own name for a row's place in its file
)
RESERVED_PREFIX = "__"  # what the comparison with the acknowledged attributes puts before its own columns
# The transform's own columns beside the source's, and the engine's: a source column of that name would be taken for it.
RESERVED_COLUMN = re.compile(
    r"__(account|content|file|file_number|is_settled|known_(account|content|\d+)|source_row|uncertain)"
    r"|__(account|key|open|status)_(user_id|registration_id)|file_row_number",
    re.IGNORECASE,
)


class TooLong(StrEnum):
    """What happens to a value of more than 50 UTF-8 bytes."""

    REJECT = "reject"
    TRUNCATE = "truncate"
    FAIL = "fail"


class NullPolicy(StrEnum):
    """What happens to a null or empty value."""

    LEAVE = "leave"
    REMOVE = "remove"


class Departed(StrEnum):
    """What happens to the acknowledged attributes of an account that no profile has any more."""

    LEAVE = "leave"
    REMOVE = "remove"


def _shorthand_and_null_key(value: object) -> object:
    """`city: city` is short for `city: {column: city}`; YAML reads the key `null:` as no key at all."""
    if isinstance(value, str):
        return {"column": value}
    if isinstance(value, Mapping):
        return {"null" if key is None else key: policy for key, policy in value.items()}
    return value


class AttributeMapping(_Strict):
    """Where one attribute's value comes from, and what becomes of values that cannot be sent as they are."""

    column: str = Field(min_length=1)
    too_long: TooLong = TooLong.REJECT
    null: NullPolicy = NullPolicy.LEAVE
    decimals: int | None = Field(default=None, ge=0, le=15)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """A column's name alone is allowed, and so is the key that YAML turns into None."""
        full = dict(handler.resolve_ref_schema(handler(schema)))
        full.pop("additionalProperties", None)
        return {"anyOf": [{"type": "string"}, full], "title": "AttributeMapping"}


def _attribute_name(name: str) -> str:
    if not name or len(name.encode()) > MAX_NAME_BYTES:
        raise ValueError(
            f"an attribute's name has 1 to {MAX_NAME_BYTES} UTF-8 bytes; this one has {len(name.encode())}"
        )
    if name.lower() in FRAME_COLUMNS or name.startswith(RESERVED_PREFIX):
        raise ValueError(
            f"the name is reserved for a column of the frames ({', '.join(FRAME_COLUMNS)}, and what begins with "
            f"{RESERVED_PREFIX}); declare the attribute under another name"
        )
    return name


def _pattern(text: str) -> str:
    """Checked by RE2, whose expressions the engine takes too; Python's know more (look-around, back references)."""
    try:
        for pattern in (text, rf"\A(?:{text})\z"):  # by itself, and as it is used: for the whole account
            pc.match_substring_regex(pa.array([""]), pattern)
    except pa.ArrowInvalid as error:
        raise ValueError(
            f"matches is not a regular expression of RE2 (https://github.com/google/re2/wiki/Syntax): {error}"
        ) from None
    return text


def _date_text(value: object) -> object:
    """YAML reads 2026-11-20 without quotes as a date."""
    return value.isoformat() if type(value) is date else value


AttributeName = Annotated[str, AfterValidator(_attribute_name)]


class AccountMapping(_Strict):
    """The accounts of one type: their column, which profiles have one, and their attributes."""

    column: str = Field(min_length=1)
    where: dict[str, Annotated[str | bool | int, BeforeValidator(_date_text)]] = Field(default_factory=dict)
    matches: Annotated[str, AfterValidator(_pattern)] | None = None
    attributes: dict[AttributeName, Annotated[AttributeMapping, BeforeValidator(_shorthand_and_null_key)]] = Field(
        min_length=1
    )


class Accounts(_Strict):
    """At least one of the two account types."""

    user_id: AccountMapping | None = None
    registration_id: AccountMapping | None = None

    @model_validator(mode="after")
    def _check_together(self) -> "Accounts":
        mappings = [mapping for mapping in (self.user_id, self.registration_id) if mapping]
        if not mappings:
            raise ValueError("name at least one account type: user_id or registration_id")
        names = [name for mapping in mappings for name in mapping.attributes]
        problems = list(_name_problems(names))
        if (
            len(mappings) == 2
            and mappings[0].column == mappings[1].column
            and not any(m.where or m.matches for m in mappings)
        ):
            problems.append(
                f"both account types read column {mappings[0].column!r}: tell them apart with `where` or `matches`"
            )
        if problems:
            raise ValueError("; ".join(problems))
        return self


def _name_problems(names: list[str]) -> Iterator[str]:
    """An attribute belongs to one account type and an app has ten (1047/60563)."""
    if len(set(names)) > MAX_ATTRIBUTES:
        yield f"an app has at most {MAX_ATTRIBUTES} attributes; this sync names {len(set(names))}"
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        yield (
            f"attribute {', '.join(map(repr, twice))} stands under both account types, but belongs to exactly one; "
            "declare a second attribute under another name"
        )
    by_folded: dict[str, set[str]] = {}
    for name in names:
        by_folded.setdefault(name.lower(), set()).add(name)
    for alike in by_folded.values():
        if len(alike) > 1:
            yield f"attributes {', '.join(map(repr, sorted(alike)))} differ by case only; rename one"


def _table(text: str) -> str:
    if "{{" not in text:  # a variable's value is checked when it is in place
        TableName.parse(text)
    return text


class Warehouse(_Strict):
    """A query, or a whole table, and where it stands. The URI may hold a password and is never shown."""

    uri: str = Field(min_length=1, repr=False)
    query: str | None = Field(default=None, min_length=1)
    table: Annotated[str, AfterValidator(_table)] | None = None
    timeout_minutes: float = Field(default=TIMEOUT_SECONDS / 60, gt=0, le=24 * 60)

    @model_validator(mode="after")
    def _exactly_one(self) -> "Warehouse":
        if (self.query is None) == (self.table is None):
            raise ValueError("name exactly one beside the uri: query or table")
        return self

    def asks_for(self) -> str | TableName:
        """What is read."""
        return self.query if self.query is not None else TableName.parse(self.table or "")


class Source(_Strict):
    """Where profiles come from: exactly one of the four; where its storage stands; which partition of its files; how
    old its newest may be.
    """

    parquet: str | list[str] | None = None
    warehouse: Warehouse | None = None
    delta: DeltaOption | None = None
    iceberg: Iceberg | None = None
    storage: Storage | None = None
    partition: PartitionOption | None = None
    max_age: MaxAgeOption | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> "Source":
        if sum(each is not None for each in (self.parquet, self.warehouse, self.delta, self.iceberg)) != 1:
            raise ValueError("name exactly one source: parquet, warehouse, delta or iceberg")
        if self.parquet is not None and not self.parquet:
            raise ValueError("parquet names no file, glob or folder")
        for address in self.addresses():
            if not is_template(address):
                with told_with_the_rest():
                    read_address(address)
        is_known = not any(map(is_template, self._paths()))
        if self.storage is not None and self.iceberg is None and is_known and not self.addresses():
            raise ValueError(f"storage is about addresses such as s3://bucket/path; {self.kind} names none")
        return self

    @property
    def kind(self) -> SourceKind:
        """Which of the four it is."""
        return next(kind for kind in SourceKind if getattr(self, kind) is not None)

    def addresses(self) -> list[str]:
        """Those of the source's paths that lead to object storage; of Iceberg its catalog tells them."""
        return [path for path in self._paths() if is_address(path)]

    def _paths(self) -> list[str]:
        if self.delta is not None:
            return [self.delta.table]
        if self.iceberg is not None:
            return [self.iceberg.metadata] if self.iceberg.metadata is not None else []
        return [self.parquet] if isinstance(self.parquet, str) else self.parquet or []


_ANY_CRON = "0 0 * * *"  # to have the time zone checked where there is no cron


class Schedule(_Strict):
    """When the sync runs by itself, once it is switched on in the UI."""

    cron: str | None = None
    timezone: str = "UTC"
    on_new_files: OnNewFiles | None = None
    on_new_version: bool = False

    @model_validator(mode="after")
    def _known_to_dagster(self) -> "Schedule":
        if self.cron is None and self.on_new_files is None and not self.on_new_version:
            raise ValueError('say when: `cron: "0 2 * * *"`, `on_new_files: {...}`, `on_new_version: true`, or several')
        try:
            dg.ScheduleDefinition(
                job_name="any", cron_schedule=self.cron or _ANY_CRON, execution_timezone=self.timezone
            )
        except dg.DagsterInvalidDefinitionError:
            raise ValueError(
                'cron has five fields, for example "0 2 * * *" for 02:00 every night, '
                "and timezone is an IANA name such as Asia/Shanghai"
            ) from None
        return self


def _fraction(value: object) -> object:
    """Numbers alone, so that nobody's `50` or `"5 %"` is taken for something else."""
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1):
        return value
    raise ValueError("write a number above 0 and below 1, such as 0.05 for 5 %; without the key there is no such guard")


def _profile_count(value: object) -> object:
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return value
    raise ValueError("write a whole number from 1 on, without separators, such as 100000")


_Fraction = Annotated[float | None, Field(gt=0, lt=1), BeforeValidator(_fraction)]


class Guards(_Strict):
    """What stops a run that goes wrong; see guards.py. Only `min_profiles` applies to a sync's first run."""

    max_changed_fraction: _Fraction = None
    max_failed_fraction: _Fraction = None
    min_profiles: Annotated[int | None, Field(ge=1), BeforeValidator(_profile_count)] = None


def _guards(value: object) -> object:
    if isinstance(value, Guards) or (isinstance(value, Mapping) and all(isinstance(key, str) for key in value)):
        return value
    raise ValueError(
        "guards holds limits by their names (max_changed_fraction, max_failed_fraction, min_profiles), such as "
        "{min_profiles: 100000}; without limits leave the key out"
    )


def _departed(value: object) -> object:
    if value in tuple(Departed):
        return value
    raise ValueError(
        "write leave (the accounts that no profile has any more keep what they have) or remove (their attributes are "
        "removed)"
    )


def _owner(text: str) -> str:
    if not re.fullmatch(r"team:[A-Za-z0-9_-]+|[^@\s]+@[^@\s]+", text):
        raise ValueError('an owner is an e-mail address, or a team such as "team:growth"')
    return text


class SyncMapping(_Strict):
    """The `attributes:` of one defs.yaml."""

    source: Source
    updated_at: str | None = None
    accounts: Accounts
    frames: Literal["changed", "all"] = "changed"
    departed: Annotated[Departed, BeforeValidator(_departed)] = Departed.LEAVE
    schedule: Schedule | None = None
    depends_on: list[AssetKeyText] = Field(default_factory=list)
    guards: Annotated[Guards, BeforeValidator(_guards)] = Field(default_factory=Guards)
    owners: list[Annotated[str, AfterValidator(_owner)]] = Field(default_factory=list)

    def account_types(self) -> dict[AccountType, AccountMapping]:
        """The account types that this sync fills, UserIDs first."""
        pairs = {AccountType.USER_ID: self.accounts.user_id, AccountType.REGISTRATION_ID: self.accounts.registration_id}
        return {account_type: mapping for account_type, mapping in pairs.items() if mapping is not None}

    def is_mixed(self) -> bool:
        """Whether one column holds both account types."""
        columns = [mapping.column for mapping in self.account_types().values()]
        return len(columns) == 2 and columns[0] == columns[1]

    def declared(self) -> dict[str, AccountType]:
        """Attribute name -> the account type that it must be declared with."""
        return {name: kind for kind, mapping in self.account_types().items() for name in mapping.attributes}

    def columns(self) -> tuple[str, ...]:
        """Every source column that the sync reads, in the YAML's order."""
        named: dict[str, None] = {}
        for mapping in self.account_types().values():
            named |= dict.fromkeys([mapping.column, *mapping.where, *(a.column for a in mapping.attributes.values())])
        if self.updated_at:
            named[self.updated_at] = None
        return tuple(named)

    def uses_of(self, column: str) -> list[tuple[str | int, ...]]:
        """The YAML paths below `attributes:` that name `column`, for messages that give the line."""
        return [path for path, name in self._named_columns() if name == column]

    def _named_columns(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        for kind, mapping in self.account_types().items():
            yield ("accounts", kind.value, "column"), mapping.column
            for name in mapping.where:
                yield ("accounts", kind.value, "where", name), name
            for name, attribute in mapping.attributes.items():
                yield ("accounts", kind.value, "attributes", name), attribute.column
        if self.updated_at:
            yield ("updated_at",), self.updated_at


def mapping_from(attributes: Mapping[str, Any]) -> SyncMapping:
    """The `attributes:` of a defs.yaml, checked. Raises pydantic.ValidationError with every mistake at once."""
    return SyncMapping.model_validate(attributes)
