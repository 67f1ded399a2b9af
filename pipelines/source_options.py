"""The YAML's words for where files stand, which of them count, how old they may be, and what starts a sync by itself.

Types and their checks; nothing here does I/O. What needs more than one of them at once is told with the YAML's line by
`misfits` in triggers.py.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from enum import StrEnum
from typing import Annotated

import dagster as dg
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import core_schema

from connectors.profiles.drops import Completeness
from connectors.profiles.errors import SourceAddressError
from connectors.profiles.storage.filesystems import StorageOptions, read_endpoint

_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


class Strict(BaseModel):
    """A part of the YAML: no unknown key, and no value in a message."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class SourceKind(StrEnum):
    """The YAML's words for where profiles come from."""

    PARQUET = "parquet"
    WAREHOUSE = "warehouse"
    DELTA = "delta"
    ICEBERG = "iceberg"


class Storage(Strict):
    """Where the object storage of the source stands, as far as the environment does not say so; nothing secret."""

    endpoint: str | None = None
    region: str | None = None
    virtual_host_style: bool | None = None
    anonymous: bool = False

    @model_validator(mode="before")
    @classmethod
    def _without_secrets(cls, value: object) -> object:
        known = (*cls.model_fields,)
        if isinstance(value, Mapping) and any(key not in known for key in value):
            raise ValueError(
                f"storage holds {', '.join(known)}; credentials never stand in the YAML, they come from the environment"
            )
        return value

    @model_validator(mode="after")
    def _readable_endpoint(self) -> "Storage":
        if self.endpoint is not None and not is_template(self.endpoint):
            with told_with_the_rest():
                read_endpoint(self.endpoint)
        return self

    def options(self) -> StorageOptions:
        return StorageOptions(self.endpoint, self.region, self.virtual_host_style, self.anonymous)


def is_template(text: str) -> bool:
    """Of a variable that was not set when the YAML was loaded: the run says so, and other syncs load."""
    return "{{" in text


@contextmanager
def told_with_the_rest() -> Iterator[None]:
    """What pydantic gathers with all other mistakes."""
    try:
        yield
    except SourceAddressError as error:
        raise ValueError(str(error)) from None


class OrText(Strict):
    """A part that has a short form in one word."""

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"anyOf": [{"type": "string"}, dict(handler.resolve_ref_schema(handler(schema)))], "title": cls.__name__}


def _duration(text: str) -> str:
    if not re.fullmatch(r"[1-9]\d{0,5}[mhd]", text):
        raise ValueError("an age is a whole number of minutes, hours or days, for example 90m, 36h or 7d")
    return text


class MaxAge(OrText):
    """How old the newest `updated_at` of the source may be; `blocking`: an older one stops the run."""

    age: Annotated[str, AfterValidator(_duration)]
    blocking: bool = False

    @property
    def limit(self) -> timedelta:
        return timedelta(**{_UNITS[self.age[-1]]: int(self.age[:-1])})


def _max_age(value: object) -> object:
    return {"age": value} if isinstance(value, str) else value


class Partition(OrText):
    """The newest partition only. `latest` names the keys that tell the newest; empty: the only key there is."""

    latest: list[str]


def _partition(value: object) -> object:
    if value == "latest":
        return {"latest": []}
    if isinstance(value, Mapping) and isinstance(value.get("latest"), str):
        return {"latest": [value["latest"]]}
    if not isinstance(value, Mapping) or set(value) != {"latest"}:
        raise ValueError(
            "write `latest`, or the keys that tell the newest: `{latest: [year, month, day]}`; a certain partition is "
            "chosen for one run: `python -m pipelines run <sync> --partition dt=2026-11-20`"
        )
    return value


class OnNewFiles(Strict):
    """When a drop of files is complete: a `_SUCCESS` that is not older, no change for some minutes, or both."""

    success_file: bool = False
    quiet_minutes: float | None = Field(default=None, gt=0, le=24 * 60)

    @model_validator(mode="after")
    def _some_sign(self) -> "OnNewFiles":
        if not self.success_file and self.quiet_minutes is None:
            raise ValueError(
                "say how a drop shows that it is complete: `success_file: true` (its writer ends with a file "
                "_SUCCESS), or `quiet_minutes: 10` (no file changes for so long)"
            )
        return self

    @property
    def rule(self) -> Completeness:
        return Completeness(self.success_file, (self.quiet_minutes or 0.0) * 60)


def _asset_key(text: str) -> str:
    if not text.strip() or not all(part.strip() for part in text.split("/")):
        raise ValueError("an asset key has its parts joined by slashes, for example marts/user_profiles")
    return dg.AssetKey.from_user_string(text).to_user_string()


MaxAgeOption = Annotated[MaxAge, BeforeValidator(_max_age)]
PartitionOption = Annotated[Partition, BeforeValidator(_partition)]
AssetKeyText = Annotated[str, AfterValidator(_asset_key)]
