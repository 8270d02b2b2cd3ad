"""Feed each reader bytes at random, steered to code that no input has reached yet (atheris, libFuzzer): ``make fuzz``.

What was learned stays in .fuzz/, so that the next run goes on from there. What breaks a reader is put into
tests/fuzz/found/, where test_targets.py finds it.
"""

import argparse
import logging
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
LEARNED = HERE.parent.parent / ".fuzz"
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent.parent)]
# Beyond these bytes, and the longest seed, the shapes repeat; test_targets.py makes them as long as the reader takes.
MOST_BYTES = 512
# Of one input, on a machine that is busy with something else, too.
SLOWEST_SECONDS, MOST_MIB = 60, 2048


def main() -> int:
    """Run one target after the other, each in a process of its own: libFuzzer ends the process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("targets", nargs="*")
    parser.add_argument("--seconds", type=float, default=60, help="for all of them together")
    parser.add_argument("--runs", type=int, default=-1, help="of each target, instead of the time")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.inside:
        return fuzz(asked.targets[0], asked.runs, int(asked.seconds))
    from targets import TARGETS  # noqa: PLC0415 - uninstrumented here

    names = asked.targets or list(TARGETS)
    seconds = 0 if asked.runs >= 0 else max(asked.seconds / len(names), 1)
    return max(run(name, asked.runs, int(seconds)) for name in names)


def run(name: str, runs: int, seconds: int) -> int:
    """Run one target; say how many inputs it took, or show what broke it."""
    command = [sys.executable, __file__, "--inside", f"--runs={runs}", f"--seconds={seconds}", name]
    with tempfile.TemporaryDirectory() as folder:  # libFuzzer ends the process before it can clear up.
        # Nothing else of the environment: requests looks through all of it for proxies, for each answer.
        alone = {"TMPDIR": folder}
        ended = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=alone, check=False, errors="replace"
        )
    told = re.search(r"number_of_executed_units: (\d+)", ended.stdout)
    broken = ended.returncode != 0
    sys.stdout.write(ended.stdout if broken else "")
    sys.stdout.write(f"{name:8} {int(told[1]) if told else 0:>12,} inputs{'  BROKEN, see above' if broken else ''}\n")
    sys.stdout.flush()
    return int(broken)


def fuzz(name: str, runs: int, seconds: int) -> int:
    """Become libFuzzer for one target."""
    import atheris  # noqa: PLC0415 - only where it is installed

    with atheris.instrument_imports(include=["agent"]):
        from targets import TARGETS, TOKENS, take  # noqa: PLC0415 - instrumented
    target = TARGETS[name]
    logging.disable()
    with tempfile.TemporaryDirectory() as folder:
        seeds = Path(folder, "seeds")
        for place in (seeds, LEARNED / name, HERE / "found"):
            place.mkdir(parents=True, exist_ok=True)
        examples = target.seeds()
        for number, seed in enumerate(examples):
            (seeds / str(number)).write_bytes(seed)
        words = Path(folder, "words")
        words.write_text(
            "".join('"' + "".join(f"\\x{byte:02x}" for byte in token) + '"\n' for token in TOKENS if len(token) < 64)
        )
        most = max(MOST_BYTES, *map(len, examples))
        arguments = [f"-runs={runs}", f"-max_total_time={seconds}", f"-max_len={most}"]
        arguments += [
            f"-timeout={SLOWEST_SECONDS}",
            f"-rss_limit_mb={MOST_MIB}",
            f"-dict={words}",
            "-print_final_stats=1",
        ]
        arguments += [f"-artifact_prefix={HERE}/found/{name}-", str(LEARNED / name), str(seeds)]
        atheris.Setup([__file__, *arguments], lambda data: take(target, data))
        atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
