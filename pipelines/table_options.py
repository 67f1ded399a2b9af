"""The YAML's words for tables of a lake, Delta and Iceberg: types and their checks; nothing here does I/O."""

import re
from typing import Annotated

from pydantic import BeforeValidator, Field, model_validator

from connectors.profiles.lake.iceberg_catalog import IcebergName
from pipelines.source_options import OrText, Strict, is_template


class Delta(OrText):
    """A Delta table by its folder or address, and which version of it; the newest where none is named."""

    table: str = Field(min_length=1)
    version: Annotated[int, Field(ge=0, strict=True)] | None = None


def _delta(value: object) -> object:
    return {"table": value} if isinstance(value, str) else value


_SECRET = re.compile(
    r"password|passphrase|secret|token|credential|authorization|cookie|connection[-_.]string|"
    r"(access|account|shared)[-_.]key|(^|[.-])sas",
    re.IGNORECASE,
)


class Iceberg(Strict):
    """An Iceberg table in a catalog, or by the address of its metadata; and which state of it, the newest by default.

    `catalog` is a name of pyiceberg's configuration, or the catalog's properties in pyiceberg's words, with the name
    under which pyiceberg finds the secret ones as `name`. Its uri may hold a password and is never shown.
    """

    table: str | None = None
    catalog: str | dict[str, str | bool | int] | None = Field(default=None, repr=False)
    metadata: str | None = None
    snapshot: Annotated[int, Field(strict=True)] | None = None
    ref: str | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> "Iceberg":
        if (self.table is None) == (self.metadata is None):
            raise ValueError("name exactly one: table (such as marts.user_profiles), or metadata (an address)")
        if self.metadata is not None and self.catalog is not None:
            raise ValueError("a table that is read by its metadata has no catalog; leave one of the two out")
        if self.snapshot is not None and self.ref is not None:
            raise ValueError("name at most one: snapshot or ref")
        if self.table is not None and not is_template(self.table) and not re.fullmatch(r"[^.]+(\.[^.]+)+", self.table):
            raise ValueError("a table has its namespace before it: marts.user_profiles")
        secret = [key for key in self._properties() if _SECRET.search(key)]
        if secret:
            raise ValueError(
                f"catalog: {', '.join(secret)} never stands in the YAML; set it in the environment "
                "(PYICEBERG_CATALOG__<NAME>__...) or in .pyiceberg.yaml"
            )
        return self

    def _properties(self) -> dict[str, str | bool | int]:
        return self.catalog if isinstance(self.catalog, dict) else {}

    def name(self) -> IcebergName:
        """In the reader's words."""
        properties = {key: str(value).lower() if value is True or value is False else str(value)
                      for key, value in self._properties().items()}  # fmt: skip
        named = properties.pop("name", None) if isinstance(self.catalog, dict) else self.catalog
        return IcebergName(self.table, named, properties, self.metadata, self.snapshot, self.ref)


DeltaOption = Annotated[Delta, BeforeValidator(_delta)]
