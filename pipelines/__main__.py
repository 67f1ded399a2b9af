"""`python -m pipelines run <sync>` and the other commands: one process, Dagster underneath, words for people.

Exit codes: 0 the run succeeded (failed rows are named, not hidden), 1 it failed, 2 the command cannot be read,
75 another run holds the app, 130 it was cancelled. Dagster is imported late: what can be said without it is said at
once.
"""

import argparse
import os
import sys
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import dagster as dg
    from dagster_shared.error import SerializableErrorInfo

    from pipelines.resources import Environment

SUCCEEDED, FAILED, BUSY, INTERRUPTED = 0, 1, 75, 130  # 75: EX_TEMPFAIL, try again later; 130: as after Ctrl-C


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code."""
    chosen = _parser().parse_args(arguments)
    try:
        return _carry_out(chosen)
    except KeyboardInterrupt:
        _complain(_INTERRUPTED)
        return INTERRUPTED
    except _Told as told:
        _complain(str(told))
        return told.code


def _carry_out(chosen: argparse.Namespace) -> int:
    match chosen.command:
        case "run" | "replay":
            return _run(
                chosen.sync,
                is_replay=chosen.command == "replay",
                without_guards=chosen.without_guards,
                partition=chosen.partition,
            )
        case "plan":
            return _plan(chosen.sync, partition=chosen.partition)
        case "adopt":
            return _adopt(chosen.sync, is_agreed=chosen.yes, again=chosen.again, partition=chosen.partition)
        case "verify":
            return _verify(chosen.sync, everyone=chosen.all)
    _say(_home() if chosen.command == "home" else "\n".join(_sync_names(_definitions())))
    return SUCCEEDED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipelines", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run one sync from its source to the failed rows")
    replay = commands.add_parser(
        "replay",
        help="run one sync, and send what was refused for good once more",
        description="Like `run`; but what Tencent refused for good is forgotten first. Otherwise a refused value is "
        "not sent again until it, the mapping or the declared attributes change. In Dagster's own page, a run with the "
        "tag attribute_sync/replay: true does the same.",
    )
    plan = commands.add_parser(
        "plan",
        help="tell what a run would do now; nothing is sent",
        description="Everything up to the frames and their checks. Neither the app nor a run that pushes meanwhile is "
        "disturbed; the plan's frames are its own. Accounts and values are shown by their first character and length.",
    )
    adopt = commands.add_parser(
        "adopt",
        help="take the current profiles as acknowledged without sending anything; it asks first",
        description="For an app that already holds the source's values. From then on a run sends what differs.",
    )
    adopt.add_argument("--yes", action="store_true", help="do not ask, for scripts")
    adopt.add_argument("--again", action="store_true", help="although the sync has acknowledged attributes already")
    verify = commands.add_parser(
        "verify",
        help="read back whether the app holds what was acknowledged or adopted",
        description="Reads a sample. Accounts that differ are written to a Parquet file in the data folder.",
    )
    verify.add_argument("--all", action="store_true", help="read every acknowledged account")
    for command in (run, replay, plan, adopt, verify):
        command.add_argument("sync", help="the name of a folder below pipelines/defs")
    for command in (run, replay):
        command.add_argument("--without-guards", action="store_true", help="let this one run pass the YAML's guards")
    for command in (run, replay, plan, adopt):
        command.add_argument("--partition", metavar="KEY=VALUE", help="read this partition only, such as dt=2026-11-20")
    commands.add_parser("list", help="name the syncs")
    commands.add_parser("home", help="name the folder of Dagster's history, for `export DAGSTER_HOME=...`")
    return parser


class _Told(Exception):  # noqa: N818  no error of its own: a text and an exit code
    """Ends the command with a text for people."""

    def __init__(self, text: str, *, code: int = FAILED) -> None:
        super().__init__(text)
        self.code = code


def _home() -> str:
    from pipelines.errors import SyncError  # noqa: PLC0415  late, so that --help is instant
    from pipelines.instance import dagster_home  # noqa: PLC0415  late, as above

    try:
        return str(dagster_home(os.environ))
    except SyncError as error:
        raise _Told(f"Error: {error}") from None


def _run(sync: str, *, is_replay: bool, without_guards: bool, partition: str | None) -> int:
    result = _execute(sync, sync, is_replay=is_replay, without_guards=without_guards, partition=partition)
    return _tell(sync, result)


def _plan(sync: str, *, partition: str | None) -> int:
    import dagster as dg  # noqa: PLC0415  late, so that --help is instant

    result = _execute(sync, f"{sync}_plan", alone=False, partition=partition)
    key = dg.AssetKey([sync, "plan"])
    if any(event.asset_key == key for event in result.get_asset_materialization_events()):
        _say(result.asset_value(key).text)
    return _end(result)


def _adopt(sync: str, *, is_agreed: bool, again: bool, partition: str | None) -> int:
    from pipelines.adopt import assumption_text  # noqa: PLC0415  late, so that --help is instant

    _known(sync)
    if not is_agreed:
        _complain(assumption_text(sync, _environment().target.title))
        _complain("Type the sync's name to go on:")
        if sys.stdin.readline().strip() != sync:
            raise _Told("Nothing was adopted.")
    config = {"ops": {f"{sync}__adopt": {"config": {"confirm": sync, "again": again}}}}
    result = _execute(sync, f"{sync}_adopt", config=config, partition=partition)
    if result.success:
        _say(result.output_for_node(f"{sync}__adopt").text)
    return _end(result)


def _verify(sync: str, *, everyone: bool) -> int:
    config = {"ops": {f"{sync}__verify": {"config": {"everyone": everyone}}}}
    result = _execute(sync, f"{sync}_verify", config=config)
    if not result.success:
        return _end(result)
    verified = result.output_for_node(f"{sync}__verify")
    _say(verified.text)
    return FAILED if verified.differing else SUCCEEDED


def _execute(
    sync: str,
    job: str,
    *,
    config: dict[str, Any] | None = None,
    alone: bool = True,
    is_replay: bool = False,
    without_guards: bool = False,
    partition: str | None = None,
) -> "dg.ExecuteInProcessResult":
    """One run of the job; `alone` ends it here while another run holds the app."""
    from pipelines.app_lock import locked  # noqa: PLC0415  late, so that --help is instant
    from pipelines.errors import EXPECTED_ERRORS, AppBusyError  # noqa: PLC0415  late, as above
    from pipelines.instance import dagster_instance  # noqa: PLC0415  late, as above
    from pipelines.runs import shell_tags  # noqa: PLC0415  late, as above

    environment = _environment()
    try:
        instance = dagster_instance(os.environ)
        if alone:
            with locked(environment.store, environment.target):
                pass  # told before any work, and before Dagster has a run that could only fail
    except AppBusyError as error:
        raise _Told(f"Error: {error}", code=BUSY) from None
    except EXPECTED_ERRORS as error:
        raise _Told(f"Error: {error}") from None
    definitions = _known(sync)
    _complain(f"Sync {sync} to {environment.target.title}, data in {environment.store}")
    with instance:
        if alone:
            _share(instance)
        run_id = str(uuid.uuid4())
        return definitions.resolve_job_def(job).execute_in_process(
            instance=instance,
            raise_on_error=False,
            run_config={"loggers": {"progress": {}}, **(config or {})},
            run_id=run_id,
            tags=shell_tags(run_id, is_replay=is_replay, without_guards=without_guards, partition=partition),
        )


def _environment() -> "Environment":
    from pipelines.errors import EXPECTED_ERRORS  # noqa: PLC0415  late, so that --help is instant
    from pipelines.resources import environment_from  # noqa: PLC0415  late, as above

    try:
        return environment_from(os.environ)
    except EXPECTED_ERRORS as error:
        raise _Told(f"Error: {error}") from None


def _known(sync: str) -> "dg.Definitions":
    """The definitions, in which there is such a sync."""
    definitions = _definitions()
    names = _sync_names(definitions)
    if sync not in names:
        raise _Told(f"Error: no sync is named {sync!r}; there are: {', '.join(names) or 'none'}")
    return definitions


def _share(instance: "dg.DagsterInstance") -> None:
    """Free what dead runs hold, and end here while a living one holds the app: waiting is for runs without a reader."""
    from pipelines.resources import push_pool  # noqa: PLC0415  late, so that --help is instant
    from pipelines.runs import end_dead_runs  # noqa: PLC0415  late, as above
    from pipelines.sharing import busy_text, put_limit_in_force  # noqa: PLC0415  late, as above

    for run_id in end_dead_runs(instance):
        _complain(f"Run {run_id} had been cut off; it is marked as failed now.")
    put_limit_in_force(instance, push_pool())
    busy = busy_text(instance, push_pool())
    if busy:
        raise _Told(f"Error: {busy}; start again when it has ended", code=BUSY)


def _tell(sync: str, result: "dg.ExecuteInProcessResult") -> int:
    import dagster as dg  # noqa: PLC0415  late, so that --help is instant

    report = dg.AssetKey([sync, "failure_report"])
    if any(event.asset_key == report for event in result.get_asset_materialization_events()):
        _say(result.asset_value(report).text)
    for check in result.get_asset_check_evaluations():
        if check.check_name == "read_back":
            (_say if check.passed else _complain)(f"  read back       {check.description}")
        elif check.check_name == "fresh" and not check.passed and result.success:
            _complain(f"  stale           {check.description}")
    return _end(result)


def _end(result: "dg.ExecuteInProcessResult") -> int:
    """The exit code, after what went wrong was told."""
    if result.success:
        return SUCCEEDED
    problems = [text for event in result.all_events for text in _problems(event)]
    if _INTERRUPTED in problems:
        _complain(_INTERRUPTED)
        return INTERRUPTED
    _complain("\n".join(["The run failed.", *problems, f"Run {result.run_id} in the UI tells more."]))
    return BUSY if any(_is_busy(event) for event in result.all_events) else FAILED


def _is_busy(event: "dg.DagsterEvent") -> bool:
    failure = event.step_failure_data.user_failure_data if event.is_step_failure else None
    return failure is not None and "error" in failure.metadata and failure.metadata["error"].value == "AppBusyError"


def _problems(event: "dg.DagsterEvent") -> list[str]:
    """What a failed step has to say, or a failed check that blocks."""
    import dagster as dg  # noqa: PLC0415  late, so that --help is instant

    if event.event_type is dg.DagsterEventType.ASSET_CHECK_EVALUATION:
        check = event.asset_check_evaluation_data
        if check.passed or not check.blocking:
            return []
        if check.description:
            return [check.description]
        numbers = ", ".join(f"{name} {value.value}" for name, value in check.metadata.items())
        return [f"Check {check.check_name} of {check.asset_key.to_user_string()} failed: {numbers}"]
    if not event.is_step_failure:
        return []
    failure = event.step_failure_data
    if failure.user_failure_data is not None:
        return [failure.user_failure_data.description or failure.user_failure_data.label]
    is_of_checks = failure.error is not None and failure.error.cls_name == "DagsterAssetCheckFailedError"
    return [] if is_of_checks else [_unforeseen(failure.error)]  # each of the checks has told its own part


def _unforeseen(error: "SerializableErrorInfo | None") -> str:
    """What Dagster says of an error that nobody foresaw, down to its first cause."""
    while error is not None and error.cause is not None:
        error = error.cause
    if error is None:
        return "a step failed without a word"
    interrupted = error.cls_name == "DagsterExecutionInterruptedError" or "Query interrupted" in error.message
    return _INTERRUPTED if interrupted else error.message.strip()


_INTERRUPTED = "The run was cancelled. What was acknowledged is recorded; run again to go on from there."


def _definitions() -> "dg.Definitions":
    from pipelines.definitions import defs  # noqa: PLC0415  late, so that --help is instant

    try:
        return defs()
    except Exception as error:  # noqa: BLE001  Dagster wraps what is wrong with a YAML file
        raise _Told("\n".join(["Error: the definitions cannot be loaded.", *_mistakes(error)])) from None


def _mistakes(error: BaseException) -> list[str]:
    """What is wrong with a YAML file, a line per mistake; the values in it are not shown, they may be secrets."""
    from pydantic import ValidationError  # noqa: PLC0415  late, as above
    from yaml import MarkedYAMLError  # noqa: PLC0415  late, as above

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ValidationError):
            return [
                _mistake(".".join(map(str, each["loc"])), each["msg"]) for each in cause.errors(include_input=False)
            ]
        if isinstance(cause, MarkedYAMLError) and cause.problem_mark is not None:
            mark = cause.problem_mark
            return [f"{mark.name}:{mark.line + 1}: {cause.problem}"]
        innermost, cause = cause, cause.__cause__ or cause.__context__
    return [str(innermost).strip()]


def _mistake(place: str, message: str) -> str:
    """Dagster writes `<path> at <file>:<line>`; people look for the file first."""
    path, found, line = place.strip("`").rpartition(" at ")
    message = message.removeprefix("Value error, ")  # pydantic's, before our own words
    if message == "Extra inputs are not permitted":
        message = "this key is not known here; look for a slip in its name"
    return f"{line}: {path}: {message}" if found else f"{place}: {message}"


def _sync_names(definitions: "dg.Definitions") -> list[str]:
    """A sync's own job is named like the sync; no sync is named like the jobs beside it."""
    from pipelines.attribute_sync import JOB_SUFFIXES  # noqa: PLC0415  late, so that --help is instant

    return sorted(job.name for job in definitions.jobs or [] if not job.name.endswith(JOB_SUFFIXES))


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


def _complain(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
