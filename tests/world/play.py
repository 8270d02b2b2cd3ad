"""Plays worlds: `make world` a thousand of an hour, on the processors it may use; `make world SEED=17 MINUTES=10` one.

Prints the digest of each world, or what went wrong in it and the command that plays it again.
"""

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from multiprocessing import Pool
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from world import World  # noqa: E402 - beside this file
from world_model import Violation  # noqa: E402 - as above


@contextlib.contextmanager
def in_memory() -> Iterator[Path]:
    """Make a folder in memory, where that can be mounted: a disk would wait for its journal at each rename."""
    with tempfile.TemporaryDirectory(prefix="world-") as name:
        mount = ["mount", "-t", "tmpfs", "-o", "size=1g", "tmpfs", name]
        is_mounted = os.geteuid() == 0 and not subprocess.run(mount, check=False, capture_output=True).returncode
        try:
            yield Path(name)
        finally:
            if is_mounted:
                subprocess.run(["umount", "--lazy", name], check=True)


def play(seed: int, folder: Path, minutes: float) -> str:
    """Play one world to its end, and return the digest of all that happened; Violation says what must never be."""
    place = folder / str(seed)
    place.mkdir()
    try:
        return World(seed, place, 60 * minutes).run()
    finally:
        shutil.rmtree(place)


def _try(task: tuple[int, Path, float]) -> tuple[int, str | None, str]:
    try:
        return task[0], play(*task), ""
    except Violation as violation:
        return task[0], None, str(violation)
    except Exception:  # noqa: BLE001 - the service ended by what nobody expected
        return task[0], None, f"{traceback.format_exc()}\nseed {task[0]}: nobody expected that"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument(
        "--until-found", action="store_true", help="stop at the first world in which something is wrong"
    )
    asked = parser.parse_args()
    failed = 0
    with in_memory() as folder, Pool(len(os.sched_getaffinity(0)), maxtasksperchild=50) as pool:
        tasks = [(seed, folder, asked.minutes) for seed in range(asked.first, asked.first + asked.seeds)]
        for seed, digest, why in pool.imap(_try, tasks):
            sys.stdout.write(f"{seed} {digest}\n" if digest else f"{why}\n")
            sys.stdout.flush()
            failed += digest is None
            if failed and asked.until_found:
                break
    sys.stderr.write(f"{seed + 1 - asked.first} worlds of {asked.minutes:g} minutes, {failed} with something wrong\n")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
