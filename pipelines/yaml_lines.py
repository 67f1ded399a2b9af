"""Where a key stands in a YAML file, and which keys stand there twice; for messages, never for values."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml


def locate(file: Path, path: Sequence[str | int]) -> str:
    """`file:line` of the key that `path` leads to, or of the nearest key above it; `file` alone if unreadable."""
    node = _tree(file)
    if node is None:
        return str(file)
    line = 1
    for key in path:
        found = _child(node, key)
        if found is None:
            break
        line, node = found
    return f"{file}:{line}"


def duplicate_keys(file: Path) -> list[str]:
    """`file:line: ...` for every key that stands twice in one mapping: YAML would keep the last without a word."""
    return [f"{file}:{line}: {key!r} stands here twice; remove one" for line, key in _duplicates(_tree(file))]


def _duplicates(node: yaml.Node | None) -> Iterator[tuple[int, str]]:
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for name, value in node.value:
            if name.value in seen:
                yield name.start_mark.line + 1, name.value
            seen.add(name.value)
            yield from _duplicates(value)
    elif isinstance(node, yaml.SequenceNode):
        for each in node.value:
            yield from _duplicates(each)


def _tree(file: Path) -> yaml.Node | None:
    try:
        return yaml.compose(file.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return None


def _child(node: yaml.Node | None, key: str | int) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            if name.value == str(key):
                return name.start_mark.line + 1, value
    if isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
        return node.value[key].start_mark.line + 1, node.value[key]
    return None
