"""Run all benchmarks: ``make bench``. They are no tests; a missed target is only printed."""

import subprocess
import sys

BENCHMARKS = (
    "benchmarks.latency",
    "benchmarks.idle",
    "benchmarks.flood",
    "benchmarks.scan",
    "benchmarks.sockdiag",
    "benchmarks.namespaces",
    "benchmarks.witness",
)


def main() -> None:
    """Run each in its own process; exit with the status of one that fails."""
    for module in BENCHMARKS:
        print(f"-- {module}", flush=True)
        done = subprocess.run([sys.executable, "-m", module], check=False)
        if done.returncode:
            sys.exit(done.returncode)


if __name__ == "__main__":
    main()
