"""sockmem-agent.toml(5): every key is in it, and man has nothing to complain about."""

import importlib
import re
import shutil
import subprocess
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from agent.core.settings import ChannelSettings, Settings

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tools(monkeypatch):
    """Import the scripts of packaging/, which is no package."""
    monkeypatch.syspath_prepend(str(ROOT / "packaging"))
    return importlib.import_module("example"), importlib.import_module("manual")


@pytest.fixture
def page(tools, tmp_path: Path) -> Path:
    example, manual = tools
    path = tmp_path / "sockmem-agent.toml.5"
    path.write_text(manual.configuration_page(example.read_example(example.EXAMPLE.read_text()), "1.2.3", "2026-11-22"))
    return path


def rendered(page: Path) -> str:
    if shutil.which("man") is None:
        pytest.skip("man is not installed: the page is there, but was not rendered")
    shown = subprocess.run(
        ["man", "--warnings", "--local-file", page],
        env={"MANWIDTH": "80", "LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "" == shown.stderr
    return shown.stdout


def test_every_key_stands_below_its_table_with_its_default_and_a_text(page: Path) -> None:
    sections = dict(re.findall(r"^(\[\S+)\n(.*?)(?=^\S)", rendered(page), re.MULTILINE | re.DOTALL))

    for field in msgspec.structs.fields(Settings):
        if field.name != "notify":
            for key, value in msgspec.to_builtins(field.default).items():
                shown = msgspec.json.encode(value).decode()
                assert re.search(
                    rf"^ {{7}}{key} = {re.escape(shown)}\n {{14}}\S", sections[f"[{field.name}]"], re.MULTILINE
                )
    keys = {"type"} | {key for struct in get_args(ChannelSettings) for key in struct.__struct_encode_fields__}
    for key in keys:
        assert re.search(rf"^ {{7}}{key}(?: +|\n {{14}})\S", sections["[[notify]]"], re.MULTILINE), key
    for struct in get_args(ChannelSettings):
        assert f'type = "{struct.__struct_config__.tag}"' in sections["[[notify]]"]


def test_the_page_says_what_the_example_says_to_the_letter(tools, page: Path) -> None:
    example, _ = tools
    words = " ".join(rendered(page).split())

    tables = example.read_example(example.EXAMPLE.read_text())
    texts = [
        text for table in tables for text in (*table.before, table.text.rstrip("."), *(k.text for k in table.keys))
    ]
    assert [] == [text for text in texts if " ".join(text.split()) not in words]


def test_nothing_in_the_example_can_be_a_request_or_an_escape(tools, tmp_path: Path) -> None:
    example, manual = tools
    text = 'Title.\n\n# .SH Fake\n[store]\n# \'tis \\fB a \\- `b` ^ ~ "c" -d\nkey = "\\\\ ."\n# .so /x\nother = 1\n'
    path = tmp_path / "hard.5"
    path.write_text(manual.configuration_page(example.read_example(text), "1", "2026-11-22"))

    shown = rendered(path)

    assert ".SH Fake" in shown
    assert '\'tis \\fB a \\- `b` ^ ~ "c" -d' in shown
    assert 'key = "\\\\ ."' in shown
    assert ".so /x" in shown


def test_the_pages_and_the_unit_name_each_other(page: Path) -> None:
    assert ".BR sockmem\\-agent (1)" in page.read_text()
    assert ".BR sockmem\\-agent.toml (5)" in (ROOT / "packaging" / "closing.1").read_text()
    unit = (ROOT / "systemd" / "sockmem-agent.service").read_text()
    assert "\nDocumentation=man:sockmem-agent(1) man:sockmem-agent.toml(5)\n" in unit
