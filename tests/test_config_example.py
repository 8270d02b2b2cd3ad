import re
from pathlib import Path
from typing import Any, get_args

import msgspec
import msgspec.toml

from agent.config.load import load
from agent.core.settings import ChannelSettings, Settings, StdoutSettings

EXAMPLE = Path(__file__).parent.parent / "config.example.toml"


def uncommented() -> dict[str, Any]:
    """Parse the example with its keys uncommented: `#key = ...` without a blank is a key, `# Text` is a text."""
    return msgspec.toml.decode(re.sub(r"^#(?=[\[a-z])", "", EXAMPLE.read_text(), flags=re.MULTILINE))


def test_the_example_as_it_stands_is_the_default_configuration(tmp_path: Path) -> None:
    empty = tmp_path / "empty.toml"
    empty.write_text("")

    assert load(empty, {}) == load(EXAMPLE, {})


def test_the_example_shows_every_key_and_nothing_else() -> None:
    document = uncommented()

    assert set(Settings.__struct_fields__) == set(document)
    for field in msgspec.structs.fields(Settings):
        if field.name != "notify":
            assert set(field.type.__struct_fields__) == set(document[field.name]), field.name
    shown = {key for table in document["notify"] for key in table}
    assert {"type"} | {key for struct in get_args(ChannelSettings) for key in struct.__struct_encode_fields__} == shown


def test_the_example_shows_every_type_of_channel() -> None:
    tables = uncommented()["notify"]

    assert {struct.__struct_config__.tag for struct in get_args(ChannelSettings)} == {table["type"] for table in tables}


def test_the_example_shows_what_all_channels_of_a_kind_share_at_its_default() -> None:
    shown = uncommented()["notify"][0]

    for key, default in msgspec.structs.asdict(StdoutSettings(name="ops")).items():
        assert default == shown[key], key


def test_the_examples_channels_are_valid_when_uncommented(tmp_path: Path) -> None:
    (tmp_path / "ops-url").write_text("https://hooks.slack.com/services/x\n")
    (tmp_path / "pager-key").write_text("0123456789abcdef0123456789abcdef\n")
    (tmp_path / "hook-secret").write_text("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n")
    path = tmp_path / "config.toml"
    path.write_text(re.sub(r"^#(?=[\[a-z])", "", EXAMPLE.read_text(), flags=re.MULTILINE))

    settings = load(path, {"CREDENTIALS_DIRECTORY": str(tmp_path)})

    assert ["ops", "hook", "alerts", "pager", "script", "mail", "journal", "terminal"] == [
        channel.name for channel in settings.notify
    ]
