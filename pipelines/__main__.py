"""`python -m pipelines run <sync>` and `list`: the sync in one process, with Dagster underneath and words for people.

Exit codes: 0 the run succeeded (failed rows are named, not hidden), 1 it failed, 2 the command cannot be read,
75 another run holds the app. Dagster is imported late: what can be said without it is said at once.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import dagster as dg

SUCCEEDED, FAILED, BUSY = 0, 1, 75  # 75: EX_TEMPFAIL, try again later


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="python -m pipelines", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run one sync from its source to the failed rows")
    run.add_argument("sync", help="the name of a folder below pipelines/defs")
    commands.add_parser("list", help="name the syncs")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.command == "list":
            _say("\n".join(_sync_names(_definitions())))
            return SUCCEEDED
        return _run(chosen.sync)
    except KeyboardInterrupt:
        _complain("Interrupted. What was acknowledged is recorded; run again to go on.")
        return FAILED
    except _Told as told:
        _complain(str(told))
        return told.code


class _Told(Exception):  # noqa: N818  no error of its own: a text and an exit code
    """Ends the command with a text for people."""

    def __init__(self, text: str, *, code: int = FAILED) -> None:
        super().__init__(text)
        self.code = code


def _run(sync: str) -> int:
    from pipelines.errors import EXPECTED_ERRORS  # noqa: PLC0415  late, so that --help is instant
    from pipelines.instance import dagster_instance  # noqa: PLC0415  late, as above
    from pipelines.resources import environment_from  # noqa: PLC0415  late, as above

    try:
        environment = environment_from(os.environ)
        instance = dagster_instance(os.environ)
    except EXPECTED_ERRORS as error:
        raise _Told(f"Error: {error}") from None
    definitions = _definitions()
    if sync not in _sync_names(definitions):
        raise _Told(f"Error: no sync is named {sync!r}; there are: {', '.join(_sync_names(definitions)) or 'none'}")
    target = environment.target
    kind = "the embedded emulator" if target.is_emulator else f"app {target.sdkappid} at {target.host}"
    _complain(f"Sync {sync} to {kind}, data in {environment.store.root}")
    with instance:
        result = definitions.resolve_job_def(sync).execute_in_process(
            instance=instance, raise_on_error=False, run_config={"loggers": {"progress": {}}}
        )
    return _tell(sync, result)


def _tell(sync: str, result: "dg.ExecuteInProcessResult") -> int:
    import dagster as dg  # noqa: PLC0415  late, so that --help is instant

    if result.success:
        _say(result.asset_value(dg.AssetKey([sync, "failure_report"])).text)
        return SUCCEEDED
    problems = [text for event in result.all_events for text in _problems(event)]
    _complain(
        "\n".join(
            ["The run failed.", *(f"  {text}" for text in problems), f"Run {result.run_id} in the UI tells more."]
        )
    )
    return BUSY if any("AppBusyError" in text for text in problems) else FAILED


def _problems(event: "dg.DagsterEvent") -> list[str]:
    """What a failed step or a failed blocking check has to say."""
    if event.is_step_failure:
        failure = event.step_failure_data
        if failure.user_failure_data is not None:
            return [failure.user_failure_data.description or failure.user_failure_data.label]
        return [failure.error.message.strip()] if failure.error else ["a step failed without a word"]
    return []


def _definitions() -> "dg.Definitions":
    import dagster as dg  # noqa: PLC0415  late, so that --help is instant

    from pipelines.definitions import defs  # noqa: PLC0415  late, as above

    try:
        return defs()
    except Exception as error:  # noqa: BLE001  Dagster wraps what is wrong with a YAML file
        causes = list(_causes(error))
        raise _Told("Error: the definitions cannot be loaded.\n" + "\n".join(causes)) from None
    finally:
        del dg


def _causes(error: BaseException | None) -> list[str]:
    texts = []
    while error is not None:
        texts.append(str(error))
        error = error.__cause__ or error.__context__
    return texts[:2]


def _sync_names(definitions: "dg.Definitions") -> list[str]:
    return sorted(job.name for job in definitions.jobs or [])


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


def _complain(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
