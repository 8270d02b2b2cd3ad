"""The bill of materials in the packages: what they carry, as CycloneDX 1.6 (https://cyclonedx.org/docs/1.6/json/).

A library's hashes are those of the wheels it was taken from, which requirements.txt locks; ours are of each file. What
the distribution brings, Python and systemd's bindings, is no part of it.
"""

import hashlib
import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

# An item of pip's installation report: https://pip.pypa.io/en/stable/reference/installation-report/
Installed = dict[str, Any]


def write_sbom(
    path: Path, site_packages: Path, installed: list[Installed], project: dict[str, Any], at: datetime
) -> None:
    """Write it, with the same bytes for the same wheels and sources."""
    wheels: dict[str, list[Installed]] = {}
    for item in sorted(installed, key=lambda item: normal(item["metadata"]["name"])):
        wheels.setdefault(normal(item["metadata"]["name"]), []).append(item)
    libraries = {name: library(name, items) for name, items in wheels.items()}
    ours = program(site_packages, project)
    wanted = {name: items[0]["metadata"].get("requires_dist", []) for name, items in wheels.items()}
    edges = [depends(ours, project["dependencies"], libraries)]
    edges += [depends(libraries[name], requirements, libraries) for name, requirements in wanted.items()]
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": uuid5(NAMESPACE_URL, json.dumps([ours, libraries])).urn,
        "version": 1,
        "metadata": {"timestamp": at.isoformat(), "component": ours},
        "components": list(libraries.values()),
        "dependencies": edges,
    }
    path.write_text(json.dumps(bill, indent=1) + "\n")


def normal(name: str) -> str:
    """Write a library's name as a purl has it: Jinja2 and charset_normalizer as jinja2 and charset-normalizer."""
    return re.sub(r"[-_.]+", "-", name).lower()


def program(site_packages: Path, project: dict[str, Any]) -> dict[str, Any]:
    """Describe our own part, file by file."""
    files = sorted(path for path in (site_packages / "agent").rglob("*") if path.is_file())
    name, version = project["name"], project["version"]
    named = component("application", f"pkg:generic/{name}@{version}", name, version)
    return named | {
        "licenses": [{"expression": project["license"]}],
        "components": [
            {"type": "file", "name": str(path.relative_to(site_packages)), "hashes": [sha256(path.read_bytes())]}
            for path in files
        ],
    }


def library(name: str, wheels: list[Installed]) -> dict[str, Any]:
    """Describe a library that was taken from these wheels."""
    metadata = wheels[0]["metadata"]
    digests = sorted({wheel["download_info"]["archive_info"]["hashes"]["sha256"] for wheel in wheels})
    named = component("library", f"pkg:pypi/{name}@{metadata['version']}", name, metadata["version"])
    hashes = [{"alg": "SHA-256", "content": digest} for digest in digests]
    return named | {"licenses": [terms(metadata)], "hashes": hashes}


def component(kind: str, purl: str, name: str, version: str) -> dict[str, Any]:
    return {"type": kind, "bom-ref": purl, "name": name, "version": version, "purl": purl}


def sha256(content: bytes) -> dict[str, str]:
    return {"alg": "SHA-256", "content": hashlib.sha256(content).hexdigest()}


def terms(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return the license as SPDX has it, or by the name of its classifier."""
    told: str = metadata.get("license_expression") or metadata.get("license") or ""
    if told and " " not in told:
        return {"expression": told}
    (classified,) = (each for each in metadata["classifier"] if each.startswith("License ::"))
    return {"license": {"name": classified.rpartition(" :: ")[2]}}


def depends(one: dict[str, Any], requirements: list[str], libraries: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return which of the libraries that are carried are required, extras apart."""
    names = {normal(re.split(r"[^\w.-]", text)[0]) for text in requirements if "extra ==" not in text}
    return {
        "ref": one["bom-ref"],
        "dependsOn": [libraries[name]["bom-ref"] for name in sorted(names & libraries.keys())],
    }
