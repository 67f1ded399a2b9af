"""Where Dagster keeps its history: DAGSTER_HOME if it is set, else a folder of this user's own, seeded once.

Without one, Dagster forgets every run at the end of its process: no history in the UI, no re-execution.
"""

from collections.abc import Mapping
from pathlib import Path

import dagster as dg
import platformdirs

from pipelines.errors import DataFolderError
from pipelines.store import APPLICATION, disk_errors, make_folder, whole_file

SEED = """\
# Written once by `python -m pipelines`; change it as you like.
telemetry: {enabled: false}
nux: {enabled: false}
concurrency:
  pools: {default_limit: 1, granularity: op}
run_monitoring:
  {enabled: true, poll_interval_seconds: 30, max_runtime_seconds: 43200, free_slots_after_run_end_seconds: 60}
run_retries: {enabled: true, max_retries: 0}
freshness: {enabled: true}
"""


def dagster_home(environ: Mapping[str, str]) -> Path:
    """The folder of Dagster's history, made and seeded when it is not there. Raises DataFolderError if it cannot be."""
    named = environ.get("DAGSTER_HOME", "").strip()
    folder = Path(named).expanduser() if named else Path(platformdirs.user_state_dir(APPLICATION)) / "dagster_home"
    if not folder.is_absolute():
        raise DataFolderError(f"DAGSTER_HOME is {named!r}; Dagster asks for an absolute path")
    make_folder(folder)
    seed = folder / "dagster.yaml"
    if not seed.exists():
        with whole_file(seed) as beside, disk_errors(seed):
            beside.write_text(SEED, encoding="utf-8")
    return folder


def dagster_instance(environ: Mapping[str, str]) -> dg.DagsterInstance:
    """The instance in `dagster_home`."""
    return dg.DagsterInstance.from_config(str(dagster_home(environ)))
