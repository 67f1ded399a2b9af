"""Runs a sync in the test's own process, as the command line does, and reads what it left behind.

For tests of whole runs; it asserts nothing.
"""

from collections.abc import Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from connectors.tencent_push.emulator import Emulator
from pipelines.assets import Sync
from pipelines.attribute_sync import build_definitions
from pipelines.definitions import SHARED
from pipelines.mapping import mapping_from
from pipelines.push_result import PushResult

EXAMPLE = Path(__file__).parents[1] / "pipelines/defs/example/defs.yaml"


@dataclass(frozen=True, slots=True)
class Ran:
    """One finished run."""

    result: dg.ExecuteInProcessResult
    sync: Sync

    @property
    def succeeded(self) -> bool:
        return self.result.success

    @property
    def pushed(self) -> PushResult:
        value: PushResult = self.result.asset_value(self.sync.key("failed_rows"))
        return value

    @property
    def failed_rows(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = pq.read_table(self.pushed.failed_rows, partitioning=None).to_pylist()
        return rows

    @property
    def failure(self) -> str:
        """What the failed step says to people; empty when none failed."""
        for event in self.result.all_events:
            if event.is_step_failure:
                told = event.step_failure_data.user_failure_data
                return str(told.description) if told is not None else str(event.step_failure_data.error)
        return ""

    def checks(self) -> dict[str, bool]:
        """`<asset>:<check>` -> whether it passed."""
        return {
            f"{check.asset_key.path[-1]}:{check.check_name}": check.passed
            for check in self.result.get_asset_check_evaluations()
        }

    def metadata(self, asset: str) -> dict[str, Any]:
        for event in self.result.get_asset_materialization_events():
            if event.asset_key == self.sync.key(asset):
                return {name: value.value for name, value in event.materialization.metadata.items()}
        return {}


def example_attributes(source: str | Sequence[str] | Mapping[str, Any]) -> dict[str, Any]:
    """The example's `attributes:` over another source: Parquet paths, or a mapping for `source` itself."""
    attributes: dict[str, Any] = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))["attributes"]
    attributes["source"] = source if isinstance(source, Mapping) else {"parquet": source}
    return attributes


def make_sync(folder: Path, attributes: Mapping[str, Any], *, name: str = "nightly") -> Sync:
    """A sync with a YAML file of its own below `folder`."""
    file = folder / "defs" / name / "defs.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    document = {"type": "pipelines.attribute_sync.AttributeSync", "attributes": dict(attributes)}
    file.write_text(yaml.safe_dump(document, allow_unicode=True, sort_keys=False), encoding="utf-8")
    return Sync(name, mapping_from(attributes), file, folder)


def run(
    sync: Sync,
    *,
    instance: dg.DagsterInstance | None = None,
    definitions: dg.Definitions | None = None,
    tags: Mapping[str, str] | None = None,
    suffix: str = "",
    config: Mapping[str, Any] | None = None,
) -> Ran:
    """Runs the whole sync, or its job with that suffix; the environment is read as it is at this moment."""
    job = dg.Definitions.merge(definitions or build_definitions(sync), SHARED).resolve_job_def(f"{sync.name}{suffix}")
    with nullcontext(instance) if instance else dg.DagsterInstance.ephemeral() as used:
        result = job.execute_in_process(
            instance=used, raise_on_error=False, run_config={**_QUIET, **(config or {})}, tags=dict(tags or {})
        )
        return Ran(result, sync)


_QUIET: dict[str, Any] = {"loggers": {"progress": {}}}


def emulator_state(data: Path, sync: str = "nightly") -> dict[str, dict[str, str]]:
    """What the embedded emulator holds after a run of `sync`, account by account."""
    with Emulator(data / "emulator" / f"{sync}.sqlite") as emulator:
        return dict(emulator.attributes())


def write_profiles(path: Path, columns: Mapping[str, Any]) -> Path:
    """A Parquet file of these columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(pq.ParquetWriter(path, (table := pa.table(dict(columns))).schema)) as writer:
        writer.write_table(table)
    return path
