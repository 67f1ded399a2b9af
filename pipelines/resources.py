"""Settings from the environment, as a Dagster resource: the only reader of `os.environ` in this package.

What it makes is plain and knows nothing of Dagster.
"""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
from platformdirs import user_cache_path

from connectors.object_store.store import ObjectStore
from connectors.tencent_push.errors import SettingsError
from connectors.tencent_push.settings import calls_per_second_from, settings_from
from pipelines.errors import ConfigurationError
from pipelines.runs import POOL_PREFIX
from pipelines.sharing import shared
from pipelines.store import APPLICATION, Store
from pipelines.target import Target

PROJECT_FOLDER = Path(__file__).resolve().parents[1]
DATA = "ATTRIBUTE_SYNC_DATA"
WORK = "ATTRIBUTE_SYNC_WORK"
MEMORY = "ATTRIBUTE_SYNC_MEMORY"


@dataclass(frozen=True, slots=True)
class Environment:
    """Where a run sends, where it keeps its files, and how much memory the engine may take."""

    target: Target
    store: Store
    memory_limit: str


def environment_from(environ: Mapping[str, str], *, base: Path = PROJECT_FOLDER) -> Environment:
    """Raises SettingsError, ConfigurationError or ObjectStoreError for a variable that cannot be used.

    Nothing is opened or created. `base` is where the default data folder stands.
    """
    settings = settings_from(environ)
    target = Target(settings=settings, calls_per_second=calls_per_second_from(environ))
    store = _store_from(environ, base=base)
    memory = environ.get(MEMORY, "").strip() or "1GB"
    if not re.fullmatch(r"\d+(\.\d+)?\s*(KB|MB|GB|TB|KiB|MiB|GiB|TiB)", memory):
        raise ConfigurationError(f"{MEMORY} is {memory!r}; write a size such as 1GB or 512MB")
    return Environment(target=target, store=store, memory_limit=memory)


def _store_from(environ: Mapping[str, str], *, base: Path) -> Store:
    """A folder, or object storage with a folder to work in."""
    data, work = environ.get(DATA, "").strip(), environ.get(WORK, "").strip()
    if not re.match(r"\w{2,}:/", data):  # a slip in an address makes no folder of its name
        return Store(Path(data).expanduser().absolute() if data else base / "data")
    objects = ObjectStore(data, environ)
    place = Path(work).expanduser().absolute() if work else user_cache_path(APPLICATION) / "work"
    # One folder per address: what one data folder acknowledged is no copy of another one's.
    digest = hashlib.sha256(str(objects).encode()).hexdigest()[:8]
    return Store(place / f"{objects.location.bucket}-{digest}", objects)


def push_pool(environ: Mapping[str, str] = os.environ) -> str:
    """Dagster's concurrency pool of the app that the environment names.

    It is asked for when definitions load, which settings that cannot be used must not prevent: the run tells them.
    """
    try:
        return POOL_PREFIX + Target(settings=settings_from(environ), calls_per_second=1.0).quota_name
    except SettingsError:
        return POOL_PREFIX + "settings_that_cannot_be_used"


def unset_variables(text: str) -> list[str]:
    """The variables that a YAML's `{{ env.NAME }}` asks for and that are not set."""
    asked = [name for template in re.findall(r"\{\{(.*?)\}\}", text) for name in re.findall(r"\benv\.(\w+)", template)]
    return [name for name in asked if name not in os.environ]


def filled_in(text: str, environ: Mapping[str, str] = os.environ) -> str:
    """`text` with each `{{ env.NAME }}` replaced by NAME's value, else by what stands in the file that NAME_FILE names.

    A line break at the file's end does not count. What has neither, or a file that cannot be read, stays as it is.
    """

    def value(template: re.Match[str]) -> str:
        name = template[1]
        if name in environ:
            return environ[name]
        try:
            return Path(environ[f"{name}_FILE"]).read_text(encoding="utf-8").rstrip("\r\n")
        except (KeyError, OSError, UnicodeDecodeError):
            return template[0]

    return re.sub(r"\{\{\s*env\.(\w+)\s*\}\}", value, text)


class EnvironmentResource(dg.ConfigurableResource):  # type: ignore[type-arg]  # Dagster's own generic, unbound
    """The environment as it is when a step starts.

    Dagster opens it before a run's first step and closes it after the last, in a run that goes on from a failure as
    well; so this is where a run is made to share the app with others.
    """

    def current(self) -> Environment:
        return environment_from(os.environ)

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator["EnvironmentResource"]:
        if context.run is None or context.instance is None:  # opened by something that is no run
            yield self
            return
        with shared(context.instance, context.run, tell=context.log.info if context.log else lambda _: None):
            yield self
