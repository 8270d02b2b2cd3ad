"""Change the program in one place at a time, and print what no test notices: `make mutants`.

pytest runs the tests once, and coverage says which of them reach which line. Each mutant is then a child of that
process: it puts the changed bytecode into the living functions and runs the tests that reach them, the fastest first,
until one fails. Nothing is written to the tree, and no program is started anew. What this cannot change: what runs at
import (constants, tables, regular expressions), defaults, and what runs in a process that a test starts.

equivalent.txt beside this names the mutants that change nothing anybody could notice, and why.
"""

import functools
import gc
import os
import random
import resource
import signal
import subprocess
import sys
import time
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import suppress
from itertools import accumulate
from pathlib import Path

import coverage
import pytest
from _pytest.runner import runtestprotocol

from contrib.mutants.changes import Mutant, make_mutants

ROOT = Path(__file__).parents[2]
EQUIVALENT = Path(__file__).with_name("equivalent.txt")
MEMORY_BYTES = 4 << 30
HANGS_AFTER_SECONDS = 600.0
OTHER_RESULTS = {"known": "known to change nothing", "hung": "hung"}
CACHED = type(functools.cache(len))


class Mutation:
    """A plugin for pytest: measures what each test reaches, then runs the mutants in the same session."""

    def __init__(self, files: list[str], options: Namespace) -> None:
        self.files, self.options = files, options
        include = [str(ROOT / each) for each in files]
        self.coverage = coverage.Coverage(data_file=None, include=include, config_file=False)
        # Where no test reaches a module but in another process, none notices its mutants, and each is printed.
        self.coverage.set_option("run:disable_warnings", ["no-data-collected"])
        self.seconds: dict[str, float] = {}
        # Before any of it is imported: mutants are made of these texts, or of none.
        self.texts = {file: (ROOT / file).read_text() for file in files}
        self.known = read_known(EQUIVALENT.read_text())
        self.count: dict[str, Counter[str]] = {file: Counter() for file in files}
        self.running: dict[int, tuple[Mutant, int]] = {}
        self.out = os.fdopen(os.dup(1), "w", buffering=1)  # pytest keeps what is printed while tests run

    @pytest.hookimpl
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leave out the tests of properties: they take seconds, and draw something else each time."""
        items[:] = [item for item in items if not getattr(getattr(item, "obj", None), "is_hypothesis_test", False)]

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Measure a test."""
        start = time.process_time()
        self.coverage.switch_context(item.nodeid)
        yield
        self.seconds[item.nodeid] = time.process_time() - start

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        """Run the mutants behind the tests, if all of those pass."""
        self.coverage.start()
        result = yield
        self.coverage.stop()
        if not session.testsfailed:
            self.run_all({item.nodeid: item for item in session.items})
        return result

    def run_all(self, items: dict[str, pytest.Item]) -> None:
        """Make the mutants, and run them until the last, or Ctrl-C."""
        for file in self.files:
            if (ROOT / file).read_text() != self.texts[file]:
                raise pytest.UsageError(f"{file} was edited after this run imported it: start again")
        gc.unfreeze()  # As the service does when it has started: the living functions would not be found.
        mutants = [each for file in self.files for each in make_mutants(ROOT, file)]
        if self.options.sample:
            mutants = random.Random(self.options.seed).sample(mutants, min(self.options.sample, len(mutants)))
        for each in gc.get_objects():
            if isinstance(each, CACHED) and each.__module__.startswith("agent."):
                each.cache_clear()
        gc.freeze()  # Or each child's first collection would copy every page.
        try:
            self.run_each(mutants, items)
        finally:
            for pid in self.running:
                os.killpg(pid, signal.SIGKILL)

    def run_each(self, mutants: list[Mutant], items: dict[str, pytest.Item]) -> None:
        """Run each mutant with the fastest of the tests that reach its lines."""
        reached = {file: self.coverage.get_data().contexts_by_lineno(str(ROOT / file)) for file in self.files}
        for mutant in mutants:
            tests = {test for line in mutant.lines for test in reached[mutant.file].get(line, ()) if test in items}
            timed = sorted((self.seconds[test], test) for test in tests)
            totals = accumulate(seconds for seconds, _ in timed)
            chosen = [test for test, total in zip(timed, totals, strict=True) if total <= self.options.seconds]
            self.start(mutant, [(items[test], seconds) for seconds, test in chosen])
        while self.running:
            self.wait()

    def start(self, mutant: Mutant, items: list[tuple[pytest.Item, float]]) -> None:
        """Start a mutant, once there is a place for it."""
        if len(self.running) == self.options.jobs:
            self.wait()
        pid = os.fork()
        if not pid:
            become(mutant, items)
        self.running[pid] = mutant, len(items)

    def wait(self) -> None:
        """Wait for one to end, and print it if it survived."""
        pid, status = os.wait()
        if pid not in self.running:
            return
        mutant, tests = self.running.pop(pid)
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)  # What its tests have started.
        is_known = (mutant.file, mutant.function, mutant.diff) in self.known
        is_hung = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM
        result = "hung" if is_hung else "killed" if status else "known" if is_known else "survived"
        self.count[mutant.file][result] += 1
        if result == "survived":
            print(f"{mutant.file}:{mutant.lines[0]} {mutant.function}\n{mutant.diff}", file=self.out)
            print(f"    noticed by none of {tests} tests\n", file=self.out)


def become(mutant: Mutant, items: list[tuple[pytest.Item, float]]) -> None:
    """Be the mutant in a child process, and leave: with 0 where all its tests pass."""
    os.setsid()
    os.nice(19)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    status = 1
    try:
        for function in mutant.live:
            function.__code__ = mutant.code
        status = int(any(fails(item, seconds) for item, seconds in items))
    finally:
        os._exit(status)


def fails(item: pytest.Item, seconds: float) -> bool:
    """Run a test once more; a signal ends the process where it takes far longer than it did."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, 2 + 10 * seconds)
    signal.setitimer(signal.ITIMER_REAL, HANGS_AFTER_SECONDS)
    item._initrequest()  # type: ignore[attr-defined]  # noqa: SLF001 - pytest-rerunfailures does the same
    return any(report.failed for report in runtestprotocol(item, log=False, nextitem=None))


def read_known(text: str) -> dict[tuple[str, str, str], str]:
    """Read equivalent.txt: file and function, the diff, and the reason; blank lines between."""
    known = {}
    for block in text.split("\n\n"):
        lines = [line for line in block.splitlines() if not line.startswith("#")]
        if lines:
            file, function = lines[0].split()
            diff = [line for line in lines[1:] if line.startswith(("-", "+"))]
            known[file, function, "\n".join(diff)] = " ".join(line.strip() for line in lines[1 + len(diff) :])
    return known


def changed_files() -> list[str]:
    """Name the modules changed against main, committed or not."""
    command = ["git", "diff", "--name-only", "--diff-filter=d", "main", "--", "agent/*.py"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()


def tests_of(file: str) -> set[str]:
    """Name the tests of a module: those of its room, those that name it, and the scenarios of the diagnosis."""
    path, module = Path(file), file.removesuffix(".py").replace("/", ".")
    package, _, name = module.rpartition(".")
    beside = ROOT / "tests" / path.parent.relative_to("agent")
    tests = {test for test in (ROOT / "tests").glob("**/test_*.py") if not {"vm", "soak"} & {*test.parts}}
    texts = {test: test.read_text() for test in tests}
    naming = {test for test in tests if module in texts[test] or f"from {package} import {name}\n" in texts[test]}
    scenarios = {ROOT / "tests/test_scenarios.py"} if path.parts[1] == "core" else set()
    return {str(test.relative_to(ROOT)) for test in naming | scenarios | {*beside.glob("test_*.py")}}


def main() -> int:
    """Print the survivors, and a line for each module; 1 if there are any, 2 if a test fails without a mutant."""
    parser = ArgumentParser(description=(__doc__ or "").split(":")[0])
    parser.add_argument("files", nargs="*", help="modules below agent/; without any, those changed against main")
    parser.add_argument("--tests", nargs="*", default=[], help="ask these instead of the tests of each module's room")
    parser.add_argument("--sample", type=int, default=0, help="only so many mutants, drawn with --seed")
    parser.add_argument("--seed", type=int, default=1)
    seconds = "of CPU a mutant: of the tests that reach it the fastest are asked; what a slower one notices is printed"
    parser.add_argument("--seconds", type=float, default=5.0, help=seconds)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    options = parser.parse_args()
    files = options.files or changed_files()
    if not files:
        print("no module differs from main; name some: make mutants FILES=agent/core/dispatch.py")
        return 0
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    tests = options.tests or sorted({test for file in files for test in tests_of(file)})
    mutation = Mutation(files, options)
    status = pytest.main(["-q", "-p", "no:cacheprovider", "--no-header", *tests], plugins=[mutation])
    for file, count in mutation.count.items() if status != pytest.ExitCode.USAGE_ERROR else ():
        others = "".join(f", {count[each]} {text}" for each, text in OTHER_RESULTS.items() if count[each])
        print(f"{file}: {count.total()} mutants, {count['killed']} killed, {count['survived']} survived{others}")
    return 2 if status else int(any(count["survived"] for count in mutation.count.values()))


if __name__ == "__main__":
    sys.exit(main())
