"""Measures the push: `python -m tests.benchmarks.push`, or with `--quick` a tenth of it in some two minutes.

Arguments in, Markdown tables out; progress goes to standard error. Nothing leaves this machine but pip's downloads for
the tools that are measured beside our sink, into a virtual environment of their own (`.venv-push-benchmark`).
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tests.benchmarks.push.measuring import Measured, PusherError, Tool, measure
from tests.benchmarks.push.others import OURS, Others, find_others
from tests.benchmarks.push.tables import killed_table, machine, refusals_table, sink_table, tools_table
from tests.benchmarks.push.target import Network
from tests.benchmarks.push.task import account_of

SECTIONS = ("sink", "tools", "refused", "killed")


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured. The tools beside ours are slow: they get fewer rows, and one round trip."""

    rows: int = 200_000
    repeat: int = 3
    round_trips_ms: tuple[int, ...] = (0, 50, 200, 500)
    jitter: float = 0.2
    tools_rows: int = 50_000
    tools_round_trip_ms: int = 50
    scenario_rows: int = 20_000


QUICK = Plan(rows=20_000, repeat=1, tools_rows=20_000, scenario_rows=12_000)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    plan = _plan(arguments)
    sections = arguments.sections or SECTIONS
    others = Others((), {}, {}) if sections == ["sink"] else find_others(install=not arguments.no_install)
    print(f"{machine(others.versions)}\n")
    if "sink" in sections:
        print(_sink(plan))
    if "tools" in sections:
        print(_tools(plan, others))
    if "refused" in sections:
        print(_refused(plan, (OURS, *others.tools)))
    if "killed" in sections:
        print(_killed(plan, (OURS, *others.tools)))
    return 0


def _sink(plan: Plan) -> str:
    runs: dict[tuple[str, int], list[Measured]] = {}
    for tls in (False, True):
        for round_trip_ms in plan.round_trips_ms:
            network = Network(round_trip_ms, plan.jitter, tls=tls)
            for _ in range(plan.repeat):
                _progress(f"our sink, {network.scheme}, {round_trip_ms} ms")
                run = measure(OURS, network, rows=plan.rows)
                runs.setdefault((network.scheme, round_trip_ms), []).append(run)
    title = f"{plan.rows:,} changed rows; round trips ± {plan.jitter:.0%}; the quota of 100 calls/s is enforced; "
    return f"{title}{_repeated(plan)}\n\n{sink_table(runs)}"


def _tools(plan: Plan, others: Others) -> str:
    runs: dict[str, list[Measured]] = {}
    missing = dict(others.missing)
    for tool in (OURS, *others.tools):
        for _ in range(plan.repeat):
            _progress(tool.name)
            run = _measure(tool, plan, rows=plan.tools_rows)
            if isinstance(run, str):
                missing[tool.name] = run
            else:
                runs.setdefault(tool.name, []).append(run)
    title = (
        f"{plan.tools_rows:,} rows at {plan.tools_round_trip_ms} ms ± {plan.jitter:.0%} over HTTP; the emulator serves "
        "whatever comes, so that a worst second over 100 shows as what Tencent would refuse; "
    )
    return f"{title}{_repeated(plan)}\n\n{tools_table(runs, ours=OURS.name, missing=missing)}"


def _refused(plan: Plan, tools: Sequence[Tool]) -> str:
    poison = account_of(plan.scenario_rows // 4 + 34)
    scenarios = {
        "one row in ErrorList": ("--unknown", poison),
        "one call refused once": ("--refuse-call", f"{plan.scenario_rows // 400}:91000"),
        "one row refuses its call": ("--poison", f"{poison}:90001"),
    }
    runs: dict[tuple[str, str], Measured | str] = {}
    for scenario, faults in scenarios.items():
        for tool in tools:
            _progress(f"{tool.name}, {scenario}")
            runs[scenario, tool.name] = _measure(tool, plan, rows=plan.scenario_rows, faults=faults)
    return f"{plan.scenario_rows:,} rows:\n\n{refusals_table(runs, rows=plan.scenario_rows)}"


def _killed(plan: Plan, tools: Sequence[Tool]) -> str:
    runs: dict[str, Measured | str] = {}
    for tool in tools:
        _progress(f"{tool.name}, killed halfway")
        runs[tool.name] = _measure(tool, plan, rows=plan.scenario_rows, kill_halfway=True)
    title = f"{plan.scenario_rows:,} rows; `kill -9` once half of them have arrived, then started again:"
    return f"{title}\n\n{killed_table(runs)}"


def _measure(
    tool: Tool, plan: Plan, *, rows: int, faults: Sequence[str] = (), kill_halfway: bool = False
) -> Measured | str:
    """Against an emulator that serves whatever comes. A text says why a tool gave no result."""
    network = Network(plan.tools_round_trip_ms, plan.jitter, quota=0)
    try:
        return measure(tool, network, rows=rows, faults=faults, kill_halfway=kill_halfway)
    except PusherError as error:
        return str(error)


def _repeated(plan: Plan) -> str:
    return "one run each:" if plan.repeat == 1 else f"medians of {plan.repeat} runs (least–most):"


def _progress(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _plan(arguments: argparse.Namespace) -> Plan:
    plan = QUICK if arguments.quick else Plan()
    given = {"rows": arguments.rows, "repeat": arguments.repeat, "tools_rows": arguments.tools_rows}
    return replace(plan, **{name: value for name, value in given.items() if value is not None})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.push", description="Measures the push.")
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}; default all")
    parser.add_argument("--quick", action="store_true", help="fewer rows, each run once")
    parser.add_argument("--rows", type=int, help=f"for our sink; default {Plan().rows}")
    parser.add_argument("--tools-rows", type=int, help=f"for the comparison; default {Plan().tools_rows}")
    parser.add_argument("--repeat", type=int, help=f"runs per combination; default {Plan().repeat}")
    parser.add_argument("--no-install", action="store_true", help="only the tools that are there already")
    return parser


if __name__ == "__main__":
    sys.exit(main())
