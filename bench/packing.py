"""`make bench-packing`: how full a hall gets, by ours and by the published rules, on the openb trace.

FGD's protocol (Weng et al., USENIX ATC 2023): 1,213 nodes with 6,212 GPUs; a pod list in random order, cut or
lengthened to 130 % of the GPUs; pods come one by one, never leave, and are not tried again.

Lines on standard output: one per list, policy and mode; then the power table, one per list, policy and load. Figures
that the rules' authors published stand beside those measured here. Progress goes to standard error.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

import numpy as np

from bench import openb, published
from bench.replay import POLICIES, Outcome, run

FIRST_SEED = 42
LOADS = range(10, 101, 10)


def line(trace: str, policy: str, outcomes: Sequence[Outcome]) -> dict[str, object]:
    """The line of one list and policy.

    `mean_watts` is the mean from an empty hall to 100 % arrived. `seconds_per_run` is CPU time.
    """
    at = {load: np.array([outcome.allocated[load] for outcome in outcomes]) for load in (100, 130)}
    sd = {load: float(values.std(ddof=1)) if len(values) > 1 else 0.0 for load, values in at.items()}
    theirs = published.ALLOCATED_PERCENT.get((trace, policy), {})
    return {
        "trace": trace,
        "policy": policy,
        "mode": POLICIES[policy],
        "allocated_percent_100_mean": round(float(at[100].mean()), 2),
        "allocated_percent_100_sd": round(sd[100], 2),
        "allocated_percent_100_published": theirs.get(100),
        "allocated_percent_130_mean": round(float(at[130].mean()), 2),
        "allocated_percent_130_sd": round(sd[130], 2),
        "allocated_percent_130_published": theirs.get(130),
        "mean_watts": round(float(np.mean([outcome.watts[:101].mean() for outcome in outcomes]))),
        "refused_though_fitting": sum(outcome.refused_though_fitting for outcome in outcomes),
        "moves_per_run": round(float(np.mean([outcome.moves for outcome in outcomes]))),
        "seconds_per_run": round(float(np.mean([outcome.seconds for outcome in outcomes])), 2),
        "seeds": len(outcomes),
    }


def power_lines(trace: str, outcomes: dict[str, list[Outcome]]) -> list[dict[str, object]]:
    """The power table of one list: watts and GPUs by load, beside FGD's."""

    def mean(policy: str, field: str, load: int) -> float:
        return float(np.mean([getattr(outcome, field)[load] for outcome in outcomes[policy]]))

    return [
        {
            "table": "power",
            "trace": trace,
            "policy": policy,
            "arrived_percent": load,
            "allocated_percent": round(mean(policy, "allocated", load), 2),
            "allocated_below_fgd_points": round(
                mean("fgd", "allocated", load) - mean(policy, "allocated", load), 2
            ),
            "watts": round(mean(policy, "watts", load)),
            "watts_below_fgd_percent": round(
                100 - 100 * mean(policy, "watts", load) / mean("fgd", "watts", load), 1
            ),
        }
        for policy in ("fgd", "pwr+fgd", "datahall", "datahall-power")
        if {policy, "fgd"} <= outcomes.keys()
        for load in LOADS
    ]


def _names(what: str, text: str, there_are: Sequence[str]) -> list[str]:
    """Names in a text, each of which there must be; exits otherwise."""
    names = list(dict.fromkeys(text.replace(",", " ").split()))
    if unknown := [name for name in names if name not in there_are]:
        sys.exit(f"bench-packing: no {what} {', '.join(unknown)}; there are: {', '.join(there_are)}")
    return names


def _lists() -> list[str]:
    """Names of the pod lists there are; exits if the trace is not there."""
    place = openb.folder()
    found = sorted(path.stem.removeprefix(openb.LIST) for path in place.glob(f"{openb.LIST}*.csv"))
    if not found or not (place / openb.NODES).exists():
        sys.exit(
            f"bench-packing: {place} does not hold {openb.NODES} and {openb.LIST}NAME.csv; set DATAHALL_OPENB to a "
            "folder that does: data/csv of github.com/hkust-adsl/kubernetes-scheduler-simulator"
        )
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all and print."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.packing",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--traces", default="", help="pod lists by name, with spaces; default: all there are")
    parser.add_argument(
        "--policies", default="", help=f"policies by name, with spaces; default: all of {' '.join(POLICIES)}"
    )
    parser.add_argument("--seeds", type=int, default=10, help=f"runs for each, from seed {FIRST_SEED} on")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)), help="runs at a time")
    options = parser.parse_args(arguments)
    if min(options.seeds, options.processes) < 1:
        parser.error(f"--seeds {options.seeds} --processes {options.processes}: both must be at least 1")
    found = _lists()
    traces = _names(f"list in {openb.folder()} named", options.traces, found) or found
    policies = _names("policy", options.policies, list(POLICIES)) or list(POLICIES)
    seeds = range(FIRST_SEED, FIRST_SEED + options.seeds)
    runs = len(traces) * len(policies) * len(seeds)
    _tell(f"{runs} runs, {options.processes} at a time: {len(seeds)} of each of {len(policies)} policies on")
    _tell(f"{', '.join(traces)} ({openb.folder()})")
    started, done = time.monotonic(), 0
    # A second thread of the linear algebra gains nothing on such small arrays, and would run beside the other runs.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    with ProcessPoolExecutor(options.processes, multiprocessing.get_context("spawn")) as pool:
        jobs = {
            (trace, policy): [pool.submit(run, trace, policy, seed) for seed in seeds]
            for trace in traces
            for policy in policies
        }
        for trace in traces:
            outcomes: dict[str, list[Outcome]] = {}
            for policy in policies:
                outcomes[policy] = [each.result() for each in jobs.pop((trace, policy))]
                print(json.dumps(line(trace, policy, outcomes[policy])), flush=True)
                done += len(seeds)
                _tell(f"{done} of {runs} runs in {time.monotonic() - started:.0f} s: {trace}, {policy}")
            for each in power_lines(trace, outcomes):
                print(json.dumps(each), flush=True)


def _tell(text: str) -> None:
    print(f"bench-packing: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
