"""What Dagster loads: every sync below defs/, the environment resource, and loggers."""

import warnings
from pathlib import Path

import dagster as dg

warnings.filterwarnings("ignore", category=dg.PreviewWarning)
warnings.filterwarnings("ignore", category=dg.BetaWarning)
warnings.filterwarnings("ignore", category=dg.SupersessionWarning)

from pipelines.progress import progress_logger  # noqa: E402  warnings are silenced before anything can give one
from pipelines.resources import EnvironmentResource  # noqa: E402  as above

SHARED = dg.Definitions(
    resources={"environment": EnvironmentResource()},
    loggers={"console": dg.colored_console_logger, "progress": progress_logger},
    # One process: a step costs 0.04 s instead of 2 to 4, and every asset check is a step.
    executor=dg.in_process_executor,
)


@dg.definitions
def defs() -> dg.Definitions:
    return dg.Definitions.merge(dg.load_from_defs_folder(path_within_project=Path(__file__).parent), SHARED)
