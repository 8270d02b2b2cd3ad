"""The documents and the shape of the source are held to what they say."""

import ast
import itertools
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec.toml
import pytest

import agent
from agent.cli import group
from agent.config.load import load

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
MODULES = sorted(ROOT.glob("agent/**/*.py"))
FUNCTION_LINES = 40

# Written so that this file does not hold what it looks for.
PLACES = re.compile(
    r"/wor[k]/|/tm[p]/w/|/roo[t]/|/hom[e]/\w|/op[t]/(?:pypi|wheels)|\.librar[y]\b"
    r"|pypi\.or[g]|pythonhosted\.or[g]|registry\.npmj[s]|deb\.debian\.or[g]|proxy\.golan[g]"
)


def blocks(document: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", document.read_text(), re.MULTILINE | re.DOTALL)


def commands(document: Path) -> Iterator[list[str]]:
    """Every command line of a document, without its prompt and sudo."""
    for line in itertools.chain.from_iterable(block.splitlines() for block in blocks(document, "console")):
        if line.startswith("$ "):
            words = shlex.split(line.removeprefix("$ "), comments=True)
            yield words[1:] if words[0] == "sudo" else words


def every_command(program: str) -> list[tuple[str, list[str]]]:
    found = [(d.name, words[1:]) for d in DOCUMENTS for words in commands(d) if words[0] == program]
    # Commands in running text and tables: `sockmem-agent run`.
    pattern = re.compile(rf"`{program} ([^`]+)`")
    return found + [(d.name, shlex.split(m)) for d in DOCUMENTS for m in pattern.findall(d.read_text())]


def tracked_files() -> list[Path]:
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("no git here: what is tracked cannot be told")
    listed = subprocess.run(
        [git, "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        check=True,
    )
    return [path for name in listed.stdout.decode().split("\0") if name and (path := ROOT / name).is_file()]


def resolve(words: list[str]) -> tuple[click.Command, list[str]]:
    """Walk from the program to the command that these words name; the rest are its arguments."""
    command: click.Command = group
    rest = list(words)
    with click.Context(group) as context:
        while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
            found = command.get_command(context, rest[0])
            assert found is not None, f"no command {rest[0]!r}"
            command = found
            rest.pop(0)
    return command, rest


@pytest.mark.parametrize(("document", "words"), every_command("sockmem-agent"))
def test_every_documented_command_exists_with_its_options(document: str, words: list[str]) -> None:
    command, arguments = resolve([word for word in words if word != "[FILE...]"])
    known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    used = {word.partition("=")[0] for word in arguments if word.startswith("--")}
    assert used <= known, f"{document}: {' '.join(words)}"


def test_readme_names_every_command() -> None:
    named = {words[0] for _, words in every_command("sockmem-agent")}
    assert set(group.list_commands(click.Context(group))) <= named


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_documented_make_target_exists(document: Path) -> None:
    targets = set(re.findall(r"^([a-z./-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    used = {words[1] for words in commands(document) if words[0] == "make"}
    used |= set(re.findall(r"`make ([a-z./-]+)`", document.read_text()))
    assert used <= targets


def test_every_row_of_the_security_page_names_tests_that_exist() -> None:
    rows = re.findall(r"^\| (?!Who |--|Setting )(.*)$", (ROOT / "docs/security.md").read_text(), re.MULTILINE)
    tests = {
        name
        for path in ROOT.glob("tests/**/*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    named = {row: set(re.findall(r"`(test_\w+)`", row.split("|")[-2])) for row in rows}

    assert len(rows) > 20
    assert [] == [row for row, found in named.items() if not found]
    assert set() == set().union(*named.values()) - tests


def test_readme_opens_with_a_picture_and_the_two_commands() -> None:
    opening = (ROOT / "README.md").read_text().partition("\n## ")[0]
    assert "](docs/slack.png)" in opening
    first = re.search(r"^```console\n(.*?)^```$", opening, re.MULTILINE | re.DOTALL)
    assert first is not None
    assert "$ contrib/run\n$ contrib/test\n" == first[1]


@pytest.mark.parametrize("name", ["slack.png", "incident-page.png"])
def test_picture_is_a_small_png_and_in_the_readme(name: str) -> None:
    content = (ROOT / "docs" / name).read_bytes()
    assert b"\x89PNG\r\n\x1a\n" == content[:8]
    assert len(content) < 200_000
    assert f"](docs/{name})" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_and_files_named_in_commands_are_there(document: Path) -> None:
    targets = [t for t in re.findall(r"\]\(([^)#]+)\)", document.read_text()) if "://" not in t]
    named = [
        w
        for words in commands(document)
        for w in words
        if re.match(r"(systemd/|config\.example|docs/|contrib/|\.ci/)", w)
    ]
    missing = [t for t in targets if not (document.parent / t).exists()] + [n for n in named if not (ROOT / n).exists()]
    assert [] == missing


@pytest.mark.parametrize("document", [ROOT / "CONTRIBUTING.md", ROOT / "ARCHITECTURE.md"], ids=lambda path: path.name)
def test_files_of_the_tree_that_are_named_are_there(document: Path) -> None:
    named = re.findall(r"`((?:agent|tests|packaging|contrib|benchmarks)/[\w./-]+)`", document.read_text())
    assert len(named) > 5
    assert [] == [name for name in named if not (ROOT / name).exists()]


def test_the_drawing_of_the_house_has_every_room_and_no_other() -> None:
    drawing = re.search(r"^```\nagent/\n(.*?)^```$", (ROOT / "ARCHITECTURE.md").read_text(), re.MULTILINE | re.DOTALL)
    assert drawing is not None
    outer, _, inner = drawing[1].partition("\nagent/core/")
    assert set(rooms(ROOT / "agent")) == set(re.findall(r"^  (\w+)/", outer, re.MULTILINE))
    files = {path.stem for path in (ROOT / "agent" / "core").glob("*.py") if path.stem != "__init__"}
    drawn = set(re.findall(r"(?<![\w-])(\w+)/?(?=[, /]|$)", inner, re.MULTILINE))
    assert set() == {*files, *rooms(ROOT / "agent" / "core")} - drawn


def test_a_module_of_core_that_one_other_room_alone_reads_is_named_as_a_door() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    named = re.search(r"\*\*Doors\.\*\*(.*?)\n\n", text, re.DOTALL)
    assert named is not None
    readers = core_readers()
    doors = [module for module, rooms_of in readers.items() if len(rooms_of) == 1 and None not in rooms_of]
    lone = [module for module in doors if module.split("/")[0] not in readers[module]]
    assert sorted(re.findall(r"`([\w/]+)`", named[1])) == sorted(lone)
    assert [] == [module for module, rooms_of in readers.items() if not rooms_of]


def core_readers() -> dict[str, set[str | None]]:
    """Return which rooms of core read each of its modules ("history/trend"); None for all that is not core."""
    core = ROOT / "agent" / "core"
    names = {str(path.relative_to(core).with_suffix("")) for path in core.rglob("*.py") if path.stem != "__init__"}
    readers: dict[str, set[str | None]] = {name: set() for name in names}
    for path in MODULES:
        room = path.relative_to(core).with_suffix("").parts[0] if core in path.parents else None
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("agent.core"):
                module = (node.module or "").removeprefix("agent.core").lstrip(".").replace(".", "/")
                for name in (module, *(f"{module}/{alias.name}".lstrip("/") for alias in node.names)):
                    if name in readers:
                        readers[name].add(room)
    return readers


def test_what_is_gathered_of_a_snapshot_is_not_gathered_again() -> None:
    calls = [node for path in MODULES for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    once = [name for call in calls if (name := ast.unparse(call.func)) in ("gather_facts", "find_main_holders")]
    assert ["find_main_holders", "gather_facts"] == sorted(once)
    assert [] == [ast.unparse(call) for call in calls if "facts.snapshot" in map(ast.unparse, call.args)]


def rooms(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if (path / "__init__.py").exists()]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_documented_configuration_is_valid(document: Path, tmp_path: Path) -> None:
    (tmp_path / "slack-url").write_text("https://hooks.example/T0/B0/x\n")
    (tmp_path / "ops-secret").write_text("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n")
    (tmp_path / "mail-password").write_text("password\n")
    (tmp_path / "pagerduty-key").write_text("0123456789abcdef0123456789abcdef\n")
    for number, block in enumerate(blocks(document, "toml")):
        config = tmp_path / f"{number}.toml"
        config.write_text(block)
        load(config, {"CREDENTIALS_DIRECTORY": str(tmp_path)})


def test_changelog_says_what_the_version_brings() -> None:
    version = msgspec.toml.decode((ROOT / "pyproject.toml").read_text())["project"]["version"]
    section = (ROOT / "CHANGELOG.md").read_text().partition(f"## [{version}] - ")[2].partition("\n## [")[0]
    assert re.search(r"^### (Added|Changed|Deprecated|Removed|Fixed|Security)\n\n- \S", section, re.MULTILINE)


def test_the_version_is_said_once_and_copied_truly() -> None:
    assert msgspec.toml.decode((ROOT / "pyproject.toml").read_text())["project"]["version"] == agent.__version__


def test_what_the_service_takes_when_idle_is_what_was_measured() -> None:
    table, readme, unit = (
        (ROOT / name).read_text() for name in ("docs/performance.md", "README.md", "systemd/sockmem-agent.service")
    )
    measured = re.search(r"^\| idle, one webhook: resident memory \| (\d+ MB)", table, re.MULTILINE)
    assert measured
    assert [True, True] == [f"Idle, it takes {measured[1]} " in readme, f"# {measured[1]} when idle." in unit]


def test_every_module_says_what_it_is() -> None:
    packages_without_code = {path for path in MODULES if path.name == "__init__.py" and not path.read_text().strip()}
    silent = [p for p in MODULES if p not in packages_without_code and not ast.get_docstring(ast.parse(p.read_text()))]
    assert [] == silent


def test_no_function_has_two_jobs() -> None:
    long = []
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.end_lineno is not None:
                size = node.end_lineno - node.lineno + 1
                if size > FUNCTION_LINES:
                    long.append((path.relative_to(ROOT), node.name, size))
    assert [] == long


def test_no_file_names_a_place_of_one_machine_or_network() -> None:
    found = []
    for path in tracked_files():
        if "corpus" in path.parts:
            continue  # quoted from public logs
        text = path.read_bytes().decode(errors="replace")
        found += [f"{path.relative_to(ROOT)}: {match[0]}" for match in PLACES.finditer(text)]
    assert [] == found
