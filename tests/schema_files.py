"""The schemas in docs/schemas, and what an independent validator says of a document."""

import json
from functools import cache
from pathlib import Path

from jsonschema import Draft202012Validator

SCHEMAS = Path(__file__).parent.parent / "docs" / "schemas"


@cache
def validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(json.loads((SCHEMAS / f"{name}.json").read_text()))


def schema_errors(name: str, document: bytes) -> list[str]:
    """Say in what a JSON document differs from its schema in docs/schemas."""
    return [f"{error.json_path}: {error.message}" for error in validator(name).iter_errors(json.loads(document))]
