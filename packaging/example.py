"""The comments of config.example.toml, from which the man page and the schema's descriptions are made.

A comment stands above its key or table; its last paragraph is about that table, those before are about all of that
name. A table that is commented out has no blank behind ``#``::

    # Where incidents are stored.
    [store]
    # Days to keep a closed incident.
    keep_days = 365

    # Who is notified.

    # Slack, an incoming webhook.
    #[[notify]]
    # Your name for the channel.
    #name = "ops"
"""

import re
from pathlib import Path
from typing import NamedTuple

EXAMPLE = Path(__file__).parent.parent / "config.example.toml"
LINE = re.compile(r"#?(?:(?P<header>\[\[?(?P<table>\w+)\]\]?)|(?P<key>[a-z]\w*) = (?P<value>.*))|# ?(?P<text>.*)")


class Key(NamedTuple):
    """A key; ``text`` is "" if an earlier table describes it."""

    name: str
    value: str
    text: str


class Table(NamedTuple):
    """A table; ``before`` is the text above the first table of its name, about all of them."""

    name: str
    header: str
    before: list[str]
    text: str
    keys: list[Key]


def read_example(text: str) -> list[Table]:
    """Parse the file, without its first paragraph, which says what to do with it."""
    tables: list[Table] = []
    paragraphs: list[list[str]] = [[]]
    for line in text.partition("\n\n")[2].splitlines():
        found = LINE.fullmatch(line)
        if found is None or found["text"] == "":
            paragraphs += [[]] if paragraphs[-1] else []
        elif found["text"] is not None:
            paragraphs[-1].append(found["text"])
        else:
            *before, about = [" ".join(lines) for lines in paragraphs]
            if found["table"]:
                tables.append(Table(found["table"], found["header"], before, about, []))
            else:
                tables[-1].keys.append(Key(found["key"], found["value"], about))
            paragraphs = [[]]
    return tables
