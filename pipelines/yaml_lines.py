"""Where a key stands in a YAML file, for messages that are written long after the file was read."""

from collections.abc import Sequence
from pathlib import Path

import yaml


def locate(file: Path, path: Sequence[str | int]) -> str:
    """`file:line` of the key that `path` leads to, or of the nearest key above it; `file` alone if unreadable."""
    try:
        node = yaml.compose(file.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return str(file)
    line = 1
    for key in path:
        found = _child(node, key)
        if found is None:
            break
        line, node = found
    return f"{file}:{line}"


def _child(node: yaml.Node | None, key: str | int) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            if name.value == str(key):
                return name.start_mark.line + 1, value
    if isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
        return node.value[key].start_mark.line + 1, node.value[key]
    return None
