"""Run seeds, or replay one.

    python -m tests.simulation --seeds 1000 --from 0 --jobs 2
    python -m tests.simulation --seed 4711

The first prints progress, and at the first failure the seed and the command that
repeats it; the second prints all that happened. Both exit with 1 if something is wrong.
"""

import argparse
import multiprocessing
import sys
import time
from collections.abc import Iterable

from tests.simulation.run import simulate
from tests.simulation.summary import Summary, summarize

__all__ = ["main"]

_PROGRESS_S = 1.0


def main(arguments: list[str] | None = None) -> int:
    """Parse *arguments* and do what they say; return the exit code."""
    parser = argparse.ArgumentParser("python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many to run")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--seed", type=int, help="replay this one and print it")
    parser.add_argument("--disk", action="store_true", help="print disk operations too")
    parser.add_argument("--json", action="store_true", help="print it as JSON lines")
    parser.add_argument("--keep-going", action="store_true", help="past failures")
    options = parser.parse_args(arguments)
    if options.seed is not None:
        return _replay(options.seed, disk=options.disk, json=options.json)
    seeds = range(options.first, options.first + options.seeds)
    if options.jobs <= 1:
        return _report(map(summarize, seeds), len(seeds), keep_going=options.keep_going)
    context = multiprocessing.get_context("spawn")
    with context.Pool(options.jobs) as pool:
        results = pool.imap(summarize, seeds, chunksize=4)
        return _report(results, len(seeds), keep_going=options.keep_going)


def _replay(seed: int, *, disk: bool, json: bool) -> int:
    result = simulate(seed)
    if json:
        for line in result.history.lines():
            print(line)
    else:
        print(result.plan)
        for event in result.history:
            if disk or event.kind != "disk":
                print(event)
    for violation in result.violations:
        print(f"seed {seed}: {violation}", file=sys.stderr)
    print(f"trace {result.history.digest()}", file=sys.stderr)
    return 1 if result.violations else 0


def _report(results: Iterable[Summary | str], count: int, *, keep_going: bool) -> int:
    begun_s = told_s = time.monotonic()
    done = lives = crashes = workflows = failures = 0
    virtual_s = 0.0
    on_terminal = sys.stderr.isatty()

    def rate() -> str:
        passed_s = max(time.monotonic() - begun_s, 1e-9)
        return (
            f"{done} of {count} seeds, {done / passed_s:.1f}/s, {lives} lives, "
            f"{crashes} crashes, {workflows} workflows, {virtual_s / 3600:.1f} h of "
            f"virtual time"
        )

    for result in results:
        done += 1
        problems = _problems(result)
        if problems:
            failures += 1
            print(f"{chr(13) if on_terminal else ''}{problems}", file=sys.stderr)
            if not keep_going:
                break
        if isinstance(result, Summary):
            lives += result.lives
            crashes += result.crashes
            workflows += result.workflows
            virtual_s += result.virtual_s
        if on_terminal and time.monotonic() - told_s > _PROGRESS_S:
            told_s = time.monotonic()
            print(f"\r{rate()} ", end="", file=sys.stderr, flush=True)
    print(f"{chr(13) if on_terminal else ''}{rate()}, {failures} failures")
    return 1 if failures else 0


def _problems(result: Summary | str) -> str:
    if isinstance(result, str):
        return result
    if not result.violations:
        return ""
    lines = [f"seed {result.seed} failed:"]
    lines += [f"  {violation}" for violation in result.violations[:5]]
    lines.append(f"  repeat it: python -m tests.simulation --seed {result.seed}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
