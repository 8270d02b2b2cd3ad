"""Files generated from the program: man pages, shell completions, and the documents in /usr/share/doc.

man-pages(7); Debian Policy 12.5 (copyright) and 12.7 (changelog).
"""

import email
import gzip
import os
import re
import shutil
from collections.abc import Iterator
from datetime import datetime, timezone
from email.utils import format_datetime
from pathlib import Path

import click
import click_man.core  # type: ignore[import-untyped]  # It ships no types.
from click.shell_completion import get_completion_class
from example import EXAMPLE, read_example
from manual import configuration_page

from agent.cli import group

ROOT = Path(__file__).parent.parent
PROGRAM = "sockmem-agent"
# Of contrib the directories are for users, the files for developers; but for these.
DEVELOPERS = {"__pycache__", "mutants"}
TERMS = re.compile(r"(?i)(licen[cs]e|copying|notice|authors)(\.|$)")  # names of files
OTHERS = """What is in {libraries} besides agent/ is the work of others, under their own terms,
whose texts are in this directory. Debian has the Apache License and the MPL in /usr/share/common-licenses too.
"""
MAINTAINER = PROGRAM  # The project has no mail address.


def write_man_pages(directory: Path, version: str) -> None:
    """Write a page for the program, one for each command, and one for the configuration, compressed."""
    directory.mkdir()
    with click.Context(group) as context:
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            assert command is not None
            group.add_command(command, name)
    closings = {f"{PROGRAM}.1": (ROOT / "packaging" / "closing.1").read_text()}
    for path, command in all_commands(PROGRAM, group):
        # click-man would cut it in the middle of a sentence.
        command.short_help = (command.short_help or (command.help or "").partition("\n")[0]).removesuffix(".")
        closings[f"{path}.1"] = example(command) + closings.get(f"{path}.1", "")
    click_man.core.write_man_pages(PROGRAM, group, version=version, target_dir=str(directory))
    for page in sorted(directory.iterdir()):
        # click-man refers to a subcommand's page with a blank where its file name has a hyphen.
        text = re.sub(r"\\fB([a-z -]+)\(1\)\\fP", lambda found: found[0].replace(" ", "-"), page.read_text())
        write_compressed(page.with_name(page.name + ".gz"), text + closings[page.name])
        page.unlink()
    text = configuration_page(read_example(EXAMPLE.read_text()), version, f"{built_at():%Y-%m-%d}")
    write_compressed(directory / f"{PROGRAM}.toml.5.gz", text)


def all_commands(path: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    """Yield a command and its subcommands, with the names of their pages."""
    yield path, command
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield from all_commands(f"{path}-{name}", below)


def example(command: click.Command) -> str:
    """Make a section of the end of ``--help``: ``Example: sockmem-agent diagnose``."""
    line = (
        (command.epilog or "").removeprefix("Example: ").replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    )
    return f".SH EXAMPLE\n.nf\n\\fB{line}\\fP\n.fi\n"


def write_completions(directory: Path) -> None:
    """Write the completion scripts of bash, zsh and fish."""
    directory.mkdir()
    for shell in ("bash", "zsh", "fish"):
        completion = get_completion_class(shell)
        assert completion is not None
        (directory / shell).write_text(completion(group, {}, PROGRAM, "_SOCKMEM_AGENT_COMPLETE").source())


def write_documents(directory: Path, site_packages: Path, version: str) -> None:
    """Write the documents, Debian's changelog, and the copyright file."""
    shutil.copytree(ROOT / "docs", directory / "docs")
    for kit in sorted(path for path in (ROOT / "contrib").iterdir() if path.is_dir() and path.name not in DEVELOPERS):
        shutil.copytree(kit, directory / "contrib" / kit.name, ignore=shutil.ignore_patterns("__pycache__"))
    for document in (ROOT / "README.md", ROOT / "CHANGELOG.md"):
        shutil.copyfile(document, directory / document.name)
    at = format_datetime(built_at())
    write_compressed(
        directory / "changelog.gz",
        f"{PROGRAM} ({version}) unstable; urgency=medium\n\n  * See CHANGELOG.md.\n\n -- {MAINTAINER} <>  {at}\n",
    )
    write_copyright(directory, site_packages)


def built_at() -> datetime:
    """Return the time of the sources."""
    return datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), timezone.utc)


def write_copyright(directory: Path, site_packages: Path) -> None:
    """List every library in the package with version and license, and put the licenses' texts beside the list."""
    lines = [(ROOT / "LICENSE").read_text(), OTHERS.format(libraries=f"/usr/lib/{PROGRAM}/site-packages")]
    for metadata in sorted(site_packages.glob("*.dist-info/METADATA")):
        told = email.message_from_string(metadata.read_text())
        classified = [value.rpartition(" :: ")[2] for value in told.get_all("Classifier", []) if "License ::" in value]
        terms = told["License-Expression"] or ", ".join(classified) or told["License"]
        lines.append(f"{told['Name']} {told['Version']}: {terms}")
        for text in sorted(path for path in metadata.parent.rglob("*") if TERMS.match(path.name)):
            shipped = directory / "licenses" / told["Name"] / text.name
            shipped.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(text, shipped)
            lines.append(f"  {shipped.relative_to(directory)}")
        shutil.rmtree(metadata.parent / "licenses", ignore_errors=True)
    (directory / "copyright").write_text("\n".join(lines) + "\n")


def write_compressed(path: Path, text: str) -> None:
    """Write a gzip file that does not depend on the time."""
    path.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
