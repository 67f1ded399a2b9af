"""An object store in memory, which can fail, forget what it is told, and call the test between two requests."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from connectors.object_store.faults import ObjectStoreError
from connectors.object_store.store import Listed


@dataclass(slots=True)
class MemoryObjects:
    """`before` hears every request, as (verb, key), and may raise. `replaces`: it does not refuse to overwrite."""

    contents: dict[str, bytes] = field(default_factory=dict)
    before: Callable[[str, str], None] = lambda verb, key: None
    replaces: bool = False
    times: dict[str, float] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def create(self, key: str, content: bytes) -> bool:
        self.before("create", key)
        with self._lock:
            if key in self.contents and not self.replaces:
                return self.contents[key] == content
            self.contents[key] = content
            return True

    def put(self, key: str, content: bytes | Path) -> None:
        self.before("put", key)
        self.contents[key] = content if isinstance(content, bytes) else content.read_bytes()

    def read(self, key: str) -> bytes | None:
        self.before("read", key)
        return self.contents.get(key)

    def read_all(self, keys: Sequence[str]) -> list[bytes]:
        return [self._there(key) for key in keys]

    def download(self, listed: Listed, path: Path) -> None:
        self.before("download", listed.key)
        path.write_bytes(self._there(listed.key))

    def list(self, prefix: str) -> list[Listed]:
        self.before("list", prefix)
        with self._lock:
            return [
                Listed(key, len(self.contents[key]), self.times.get(key, 0.0))
                for key in sorted(self.contents)
                if key.startswith(f"{prefix}/")
            ]

    def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            self.before("delete", key)
            self.contents.pop(key, None)

    def _there(self, key: str) -> bytes:
        content = self.contents.get(key)
        if content is None:
            raise ObjectStoreError(f"{key} has vanished while it was read. Run again.")
        return content
