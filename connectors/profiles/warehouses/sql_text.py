"""The few pieces of SQL that are written for the owner of a sync, with every name quoted as its warehouse wants it.

Names of tables and columns are all that ever stands here; values never do.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

# What could hold other words or parentheses than those of the statement itself: texts, names, comments. In some
# warehouses a backslash hides the quotation mark behind it, in others it is a character like all.
_COMMENT = r"--[^\n]*|#[^\n]*|//[^\n]*|/\*.*?\*/"
_QUOTED = (
    re.compile(rf"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|`[^`]*`|{_COMMENT}""", re.DOTALL),
    re.compile(rf"""'[^']*'|"[^"]*"|`[^`]*`|{_COMMENT}""", re.DOTALL),
)
_INNERMOST = re.compile(r"\([^()]*\)")
_ORDERED = re.compile(r"\border\s+by\b", re.IGNORECASE)
_PART = r'\s*(?:"(?:[^"\0]|"")+"|[^".\s\0](?:[^".\0]*[^".\s\0])?)\s*'
_NAME = re.compile(rf"{_PART}(?:\.{_PART}){{0,2}}")  # database, schema, table


@dataclass(frozen=True, slots=True)
class TableName:
    """A table with the schemas around it, outermost first, spelt as the warehouse keeps them."""

    parts: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """`table`, `schema.table`, `database.schema.table`; a part with a dot or a quote in it stands in `"..."`.

        Raises ValueError for any other text.
        """
        if not _NAME.fullmatch(text):
            raise ValueError(
                "table must be the name of a table, with the schema before it where it needs one, such as "
                'marts.user_profiles; a name with a dot in it stands in double quotes: marts."user.profiles"'
            )
        return cls(tuple(_unquoted(part.strip()) for part in re.findall(_PART, text)))

    def __str__(self) -> str:
        return ".".join(self.parts)


def _unquoted(part: str) -> str:
    return part[1:-1].replace('""', '"') if part.startswith('"') else part


def quoted(name: str, mark: str = '"') -> str:
    """`name` as an identifier that means exactly these characters."""
    return f"{mark}{name.replace(mark, mark * 2)}{mark}"


def all_of(table: TableName, mark: str = '"') -> str:
    """The query for every row and column of `table`."""
    return f"SELECT * FROM {'.'.join(quoted(part, mark) for part in table.parts)}"  # noqa: S608 - quoted names


def narrowed(query: str, columns: Sequence[str]) -> str:
    """`query` narrowed to `columns`, which are written as they stand. The line breaks end a comment of the query's."""
    return f"SELECT {', '.join(columns)} FROM (\n{query}\n) AS profiles"  # noqa: S608 - the owner's own query


def is_ordered(query: str) -> bool:
    """Whether the statement itself has an ORDER BY, not only a window or a query inside it; in doubt it has."""
    return any(_ORDERED.search(_outermost(quoted.sub(" ", query))) for quoted in _QUOTED)


def _outermost(query: str) -> str:
    while (flatter := _INNERMOST.sub(" ", query)) != query:
        query = flatter
    return query
