"""Objects of a bucket below an address: written whole, read whole, and never replaced by accident.

Knows nothing of what the objects mean. Sources are read elsewhere, through pyarrow (connectors/profiles): it cannot
create an object only if none is there, which is what keeps two writers apart.
"""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from connectors.object_store.faults import (
    NO_BUCKET,
    NO_SUCH_BUCKET,
    UNREACHABLE,
    VANISHED,
    ObjectStoreError,
    UnreachableError,
    meaning_of,
)
from connectors.object_store.locations import (
    LONGEST_PAUSE_SECONDS,
    PATIENCE_SECONDS,
    SCHEMES_OF_COS,
    open_stores,
    read_location,
)

if TYPE_CHECKING:
    from obstore.store import ObjectStore as Opened

_BYTES_PER_REQUEST = 16 * 1024 * 1024
_REQUESTS_AT_ONCE = 4  # times the bytes of one: what is in memory
_SMALL_AT_ONCE = 16


class Listed(NamedTuple):
    """`key` is below the store's own address."""

    key: str
    bytes: int
    modified_at: float  # seconds since 1970, by the storage's clock


class Objects(Protocol):
    """What others need of an object store; everything raises ObjectStoreError."""

    def create(self, key: str, content: bytes) -> bool: ...
    def put(self, key: str, content: bytes | Path) -> None: ...
    def read(self, key: str) -> bytes | None: ...
    def read_all(self, keys: Sequence[str]) -> list[bytes]: ...
    def download(self, listed: Listed, path: Path) -> None: ...
    def list(self, prefix: str) -> list[Listed]: ...
    def delete(self, keys: Sequence[str]) -> None: ...


class ObjectStore:
    """The objects below one address. Safe to use from several threads."""

    def __init__(self, address: str, environ: Mapping[str, str] | None = None) -> None:
        """Nothing is asked of the storage yet. Raises ObjectStoreError."""
        self.location = read_location(address)
        self._environ = os.environ if environ is None else environ
        self._opened: tuple[Opened, Opened] | None = None

    def __str__(self) -> str:
        return str(self.location)

    def address_of(self, key: str) -> str:
        return f"{self}/{key}"

    def create(self, key: str, content: bytes) -> bool:
        """Whether `content` stands there now; False, and nothing changed, if something else did before.

        A write whose answer is lost is sent again; the second one then meets what the first has written.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return self._create_once(key, content)
            except UnreachableError:  # the library sends no such write again: it cannot know that it may
                if time.monotonic() >= deadline:
                    raise
                time.sleep(LONGEST_PAUSE_SECONDS / 2)

    def _create_once(self, key: str, content: bytes) -> bool:
        import obstore  # noqa: PLC0415  an extra, asked for by `_stores`

        creating, _ = self._stores
        is_told_by_header = self.location.scheme in SCHEMES_OF_COS
        mode: Literal["overwrite", "create"] = "overwrite" if is_told_by_header else "create"
        with self._faults(key):
            try:
                obstore.put(creating, key, content, mode=mode, use_multipart=False)
            except (obstore.exceptions.AlreadyExistsError, obstore.exceptions.PreconditionError):
                return self.read(key) == content
        return True

    def put(self, key: str, content: bytes | Path) -> None:
        """Whatever stood there is replaced, at once and whole."""
        import obstore  # noqa: PLC0415  an extra, asked for by `_stores`

        _, plain = self._stores
        with self._faults(key):
            obstore.put(plain, key, content)

    def read(self, key: str) -> bytes | None:
        """None when there is no such object."""
        import obstore  # noqa: PLC0415  an extra, asked for by `_stores`

        _, plain = self._stores
        with self._faults(key):
            try:
                return bytes(obstore.get(plain, key).bytes())
            except FileNotFoundError as error:
                if NO_BUCKET.search(str(error)):
                    raise
                return None

    def read_all(self, keys: Sequence[str]) -> list[bytes]:
        """Small objects, side by side, in the order of `keys`. Raises ObjectStoreError when one is not there."""
        with ThreadPoolExecutor(_SMALL_AT_ONCE, thread_name_prefix="object-store") as pool:
            contents = list(pool.map(self.read, keys))
        for key, content in zip(keys, contents, strict=True):
            if content is None:
                raise ObjectStoreError(f"{self.address_of(key)} has vanished while it was read. Run again.")
        return [content for content in contents if content is not None]

    def download(self, listed: Listed, path: Path) -> None:
        """To `path`, a piece at a time. Raises ObjectStoreError also when the object is not as it was listed."""
        import obstore  # noqa: PLC0415  an extra, asked for by `_stores`

        _, plain = self._stores

        def fetch(start: int) -> None:
            stop = min(start + _BYTES_PER_REQUEST, listed.bytes)
            with self._faults(listed.key):
                piece = bytes(obstore.get_range(plain, listed.key, start=start, end=stop))
            if len(piece) != stop - start:
                raise ObjectStoreError(f"{self.address_of(listed.key)} changed while it was read. Run again.")
            _write_at(descriptor, piece, start)

        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            os.ftruncate(descriptor, listed.bytes)
            with ThreadPoolExecutor(_REQUESTS_AT_ONCE, thread_name_prefix="object-store") as pool:
                for future in [pool.submit(fetch, start) for start in range(0, listed.bytes, _BYTES_PER_REQUEST)]:
                    future.result()
        finally:
            os.close(descriptor)

    def list(self, prefix: str) -> list[Listed]:
        """What stands below the folder `prefix`, sorted by key; nothing when there is no such folder."""
        import obstore  # noqa: PLC0415  an extra, asked for by `_stores`

        _, plain = self._stores
        with self._faults(prefix):
            found = [
                Listed(each["path"], each["size"], each["last_modified"].timestamp())
                for chunk in obstore.list(plain, f"{prefix}/")
                for each in chunk
            ]
        return sorted(found)

    def delete(self, keys: Sequence[str]) -> None:
        """Those that are not there do not matter."""
        import obstore  # noqa: PLC0415  an extra, asked for by `_stores`

        _, plain = self._stores
        if keys:
            with self._faults(keys[0]):
                try:
                    obstore.delete(plain, list(keys))
                except FileNotFoundError as error:
                    if NO_BUCKET.search(str(error)):
                        raise

    @property
    def _stores(self) -> "tuple[Opened, Opened]":
        """(one that never replaces, one that does), opened by the first who asks."""
        if self._opened is None:
            with self._faults(""):
                self._opened = open_stores(self.location, self._environ)
        return self._opened

    @contextmanager
    def _faults(self, key: str) -> Iterator[None]:
        """The storage's own words are not passed on: they are long, and some hold a signature."""
        try:
            yield
        except (ObjectStoreError, OSError) as error:
            if isinstance(error, FileNotFoundError):
                told = NO_SUCH_BUCKET if NO_BUCKET.search(str(error)) else VANISHED
                raise ObjectStoreError(f"{self.address_of(key)}: {told}.") from None
            raise
        except Exception as error:
            if not type(error).__module__.startswith("obstore"):
                raise
            meaning = meaning_of(error)
            kind = ObjectStoreError if meaning else UnreachableError
            raise kind(f"{self.address_of(key)}: {meaning or UNREACHABLE}.") from None


def _write_at(descriptor: int, piece: bytes, start: int) -> None:
    """All of it: a disk that is nearly full takes a part without a fault, and refuses only the next one."""
    rest = memoryview(piece)
    while rest:
        rest = rest[os.pwrite(descriptor, rest, start + len(piece) - len(rest)) :]
