"""`make mutants`: what it changes, and that what no test notices is printed and ends in 1."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from contrib.mutants.__main__ import EQUIVALENT, ROOT, read_known
from contrib.mutants.changes import functions, make_mutants

MODULE = """
LIMIT = 7


class Host:
    @property
    def full(self):
        '''Say so.'''
        return self.used >= LIMIT


def largest(values: list[int], *, default: int = 0) -> int:
    return max(values, default=default) if values and min(values) > 3 else 0
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "changed_module.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("changed_module")
    del sys.modules["changed_module"]


def test_a_mutant_is_one_change_and_neither_an_annotation_nor_a_default_nor_a_docstring(tmp_path, module):
    diffs = [each.diff.splitlines() for each in make_mutants(tmp_path, "changed_module.py")]

    assert ["-    return self.used >= LIMIT", "+    return self.used > LIMIT"] in diffs
    assert {(1, 1)} == {tuple(sum(line[0] == sign for line in diff) for sign in "-+") for diff in diffs}
    assert not [line for diff in diffs for line in diff if "Say so" in line or "int = 1" in line or line[1:4] == "def"]


def test_the_living_function_becomes_the_mutant_though_it_is_a_property(tmp_path, module):
    host = module.Host()
    host.used = 7
    mutant = next(each for each in make_mutants(tmp_path, "changed_module.py") if " > LIMIT" in each.diff)
    assert host.full
    for function in mutant.live:
        function.__code__ = mutant.code

    assert not host.full


def test_a_survivor_is_printed_as_a_diff_and_ends_in_1(tmp_path):
    (tmp_path / "test_little.py").write_text(
        "import gc\n\nfrom agent.core.hosts import may_be_same, other_host, plain_name\n\n\n"
        "def test_little():\n    gc.freeze()  # As the service does.\n"
        "    assert 'web-7' == other_host('web-7', 'db-7')\n"
        "    assert may_be_same('web-7', 'web-7.example.org')\n"
    )
    command = [sys.executable, "-m", "contrib.mutants", "agent/core/hosts.py", "--tests", tmp_path / "test_little.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert 1 == done.returncode, done.stdout + done.stderr
    assert "may_be_same\n-    if one == other:\n+    if one != other:\n" not in done.stdout
    assert "plain_name\n-    return '' if _NAMELESS.fullmatch(plain) or plain == '(none)' else plain\n" in done.stdout
    killed, survived = (int(done.stdout.split(word)[0].split()[-1]) for word in (" killed", " survived\n"))
    assert killed > 5
    assert survived == done.stdout.count("noticed by none of")


def test_a_module_that_was_edited_after_it_was_imported_is_refused_in_a_line(tmp_path):
    module, tests = tmp_path / "edited_module.py", tmp_path / "test_edited_module.py"
    module.write_text(MODULE)
    tests.write_text(
        "from pathlib import Path\n\nimport edited_module\n\n\n"
        "def test_that_takes_as_long_as_an_edit():\n    assert 7 == edited_module.largest([7])\n"
        "    module = Path(edited_module.__file__)\n    module.write_text('\\n' + module.read_text())\n"
    )
    command = [sys.executable, "-m", "contrib.mutants", module, "--tests", tests]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert 2 == done.returncode, done.stdout + done.stderr
    assert f"ERROR: {module} was edited after this run imported it: start again" == done.stderr.strip()
    assert "mutants" not in done.stdout


def test_no_mutant_is_excused_whose_line_is_gone_and_each_has_a_reason():
    for (file, name, diff), why in read_known(EQUIVALENT.read_text()).items():
        tree = ast.parse(Path(ROOT / file).read_text())
        text = {
            line for each, function in functions(tree) if each == name for line in ast.unparse(function).splitlines()
        }
        removed = [line for line in diff.splitlines() if line[0] == "-"]
        # Of a long line there is a part.
        parts = [line[6:-4] for line in removed if line.startswith("- ... ")]
        gone = [line for line in removed if line[1:] not in text and line[6:-4] not in parts]
        gone += [part for part in parts if not any(part in line for line in text)]

        assert [] == gone, f"{file} {name}: take it out of {EQUIVALENT.name}"
        assert len(why) > 10, f"{file} {name}: no reason"
