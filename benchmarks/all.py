"""Run the benchmarks, or some of them by name, and print the table; ``--page`` also writes docs/performance.md from it.

    python -m benchmarks.all [--page FILE] [latency start idle namespaces flood scan sockdiag listing witness]

They are no tests: a missed target is only printed. What else ran on the machine meanwhile is printed, too, and the page
says so above the table.
"""

import argparse
import time
from datetime import datetime, timezone
from importlib import import_module
from pathlib import Path
from string import Template

from benchmarks.machine import Watch, describe, missing, versions
from benchmarks.table import HEAD, Row

BENCHMARKS = ("latency", "start", "idle", "namespaces", "flood", "scan", "sockdiag", "listing", "witness")
TEMPLATE = Path(__file__).with_name("performance.md")
UNFIT = "**Not to be published: the machine was not quiet, or something failed.**"


def measure(name: str) -> tuple[list[Row], str]:
    """Run one; return its rows, and what was wrong."""
    watch = Watch()
    rows: list[Row] = []
    try:
        for row in import_module(f"benchmarks.{name}").rows():
            print(row, flush=True)
            rows.append(row)
        trouble = watch.trouble()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the minutes of the others are not lost with it
        trouble = f"failed: {error!r}"
    if trouble:
        print(f"!!! {name}: {trouble}", flush=True)
    return rows, trouble


def page(rows: list[Row], troubles: dict[str, str], began: datetime) -> str:
    """Fill the template with what this run measured."""
    unfit = [UNFIT, *(f"* {name}: {trouble}" for name, trouble in troubles.items()), "", ""] if troubles else []
    return Template(TEMPLATE.read_text()).substitute(
        unfit="\n".join(unfit),
        date=f"{began:%Y-%m-%d}",
        machine=describe(),
        packages=versions(),
        table="\n".join([HEAD, *map(str, rows)]),
    )


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description="Measure the agent, beside what would be used instead.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=" ".join(BENCHMARKS))
    parser.add_argument("--page", type=Path, metavar="FILE", help="write the page")
    options = parser.parse_args()
    if unknown := set(options.names).difference(BENCHMARKS):
        parser.error(f"no such benchmark: {' '.join(unknown)}")
    began, clock = datetime.now(timezone.utc), time.monotonic()
    print(f"{describe()}\n{versions()}")
    if missing():
        print(f"left out, since not installed: {' '.join(missing())} (contrib/setup.sh bench)")
    print(f"\n{HEAD}", flush=True)
    results = {name: measure(name) for name in options.names or BENCHMARKS}
    rows = [row for found, _ in results.values() for row in found]
    troubles = {name: trouble for name, (_, trouble) in results.items() if trouble}
    if options.page:
        options.page.write_text(page(rows, troubles, began))
    print(f"\n{sum(not row.met for row in rows)} of {len(rows)} missed, in {time.monotonic() - clock:.0f} s")
    if troubles:
        print(f"!!! NOT TO BE PUBLISHED, the machine was not quiet or something failed: {' '.join(troubles)}")


if __name__ == "__main__":
    main()
