"""The JSON Schemas of the files read and written, from the types: ``python packaging/schemas.py [DIRECTORY]``.

Without DIRECTORY it is docs/schemas, whose files go into the packages and the wheel. JSON Schema, draft 2020-12. What
the keys of the configuration are is told by the comments of config.example.toml.
"""

import json
import sys
from inspect import cleandoc
from pathlib import Path
from typing import Any, get_args

import msgspec
from example import EXAMPLE, Table, read_example

from agent.core.model import Diagnosis, Incident, Kind
from agent.core.settings import Headers, Labels, Settings

SCHEMAS = Path(__file__).parent.parent / "docs" / "schemas"
DIALECT = "https://json-schema.org/draft/2020-12/schema"
# A channel has exactly one of the two; "" and [] count as absent.
ONE_OF = (("url", "url_file"), ("urls", "urls_file"))


def schemas() -> dict[str, dict[str, Any]]:
    """Return every schema by file name."""
    made = {
        "config.json": _schema("config", "Configuration of sockmem-agent", Settings),
        "incident.json": _schema("incident", "incident.json of sockmem-agent", Incident),
        "diagnosis.json": _schema("diagnosis", "Output of sockmem-agent diagnose --json", Diagnosis),
    }
    _explain(made["config.json"], read_example(EXAMPLE.read_text()))
    # What msgspec leaves out before 0.23: the keys are the kinds of message.
    incident = made["incident.json"]["$defs"]["Incident"]["properties"]
    for counts in ("events", "suppressed"):
        incident[counts]["propertyNames"] = {"enum": sorted(get_args(Kind))}
    return made


def _schema(name: str, title: str, kind: type[msgspec.Struct]) -> dict[str, Any]:
    made = msgspec.json.schema(kind)
    for definition in made["$defs"].values():
        definition["description"] = cleandoc(definition["description"])
        for value in definition["properties"].values():
            # null comes last, as from msgspec 0.22 on.
            value.get("anyOf", []).sort(key=lambda choice: choice.get("type") == "null")
    # Not the relative "sockmem-agent/config/1" of a document's `schema`: Taplo rejects that as a name.
    return {"$schema": DIALECT, "$id": f"urn:sockmem-agent:{name}:1", "title": title, **made}


def _explain(schema: dict[str, Any], tables: list[Table]) -> None:
    """Describe tables and keys, and add what a channel's type cannot say: it needs exactly one URL."""
    definitions = schema["$defs"]
    sections = definitions["Settings"]["properties"]
    channels = sections["notify"]["items"].pop("discriminator")["mapping"]  # OpenAPI's word, not JSON Schema's
    told = {(table.name, key.name): key.text for table in tables for key in table.keys if key.text}
    for table in tables:
        kinds = [json.loads(key.value) for key in table.keys if key.name == "type"]
        reference = channels[kinds[0]] if kinds else sections[table.name]["$ref"]
        definition = definitions[reference.removeprefix("#/$defs/")]
        definition["description"] = table.text
        for name, key in definition["properties"].items():
            key["description"] = told[table.name, name]
        for names in ONE_OF:
            if definition["properties"].keys() >= set(names):
                definition["oneOf"] = [_set(name, definition["properties"][name]) for name in names]
        # What msgspec leaves out before 0.23.
        for name, kind in {"headers": Headers, "labels": Labels}.items():
            if name in definition["properties"]:
                pattern = get_args(get_args(kind)[0])[1].pattern
                definition["properties"][name]["propertyNames"] = {"pattern": pattern}
        if table.before:
            sections[table.name]["description"] = " ".join(table.before)


def _set(name: str, key: dict[str, Any]) -> dict[str, Any]:
    return {"required": [name], "properties": {name: {"minItems" if key["type"] == "array" else "minLength": 1}}}


def main() -> None:
    """Write them."""
    directory = Path(sys.argv[1]) if len(sys.argv) > 1 else SCHEMAS
    directory.mkdir(exist_ok=True)
    for name, schema in schemas().items():
        (directory / name).write_text(json.dumps(schema, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
