"""What Dagster loads: every sync below defs/, the environment resource, and loggers."""

import warnings
from pathlib import Path

import dagster as dg

warnings.filterwarnings("ignore", category=dg.PreviewWarning)
warnings.filterwarnings("ignore", category=dg.BetaWarning)
warnings.filterwarnings("ignore", category=dg.SupersessionWarning)

from pipelines.progress import progress_logger  # noqa: E402  warnings are silenced before anything can give one
from pipelines.resources import EnvironmentResource, push_pool  # noqa: E402  as above
from pipelines.runs import end_dead_runs  # noqa: E402  as above
from pipelines.sharing import put_limit_in_force  # noqa: E402  as above


@dg.sensor(
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Ends runs whose process on this host is gone and frees their slots, so that what waits can start.",
)
def dead_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """A run that waits in Dagster's own queue cannot do this for itself."""
    put_limit_in_force(context.instance, push_pool())
    ended = end_dead_runs(context.instance)
    return dg.SkipReason(f"ended {', '.join(ended)}" if ended else "no dead run")


SHARED = dg.Definitions(
    resources={
        "environment": EnvironmentResource(),
        # Dagster's default keeps values in memory when a run comes from a shell: nothing could go on from its failure.
        "io_manager": dg.FilesystemIOManager(),
    },
    sensors=[dead_runs],
    loggers={"console": dg.colored_console_logger, "progress": progress_logger},
    # One process: a step costs 0.04 s instead of 2 to 4, and every asset check is a step.
    executor=dg.in_process_executor,
)


@dg.definitions
def defs() -> dg.Definitions:
    return dg.Definitions.merge(dg.load_from_defs_folder(path_within_project=Path(__file__).parent), SHARED)
