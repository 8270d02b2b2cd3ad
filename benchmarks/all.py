"""Run every benchmark, one after the other: ``make bench``. Nothing here is a test; a target missed is only printed."""

import subprocess
import sys

BENCHMARKS = (
    "benchmarks.latency",
    "benchmarks.idle",
    "benchmarks.flood",
    "benchmarks.scan",
    "benchmarks.sockdiag",
    "benchmarks.namespaces",
)


def main() -> None:
    """Run each in a process of its own; end with its status when one breaks."""
    for module in BENCHMARKS:
        print(f"-- {module}", flush=True)
        done = subprocess.run([sys.executable, "-m", module], check=False)
        if done.returncode:
            sys.exit(done.returncode)


if __name__ == "__main__":
    main()
