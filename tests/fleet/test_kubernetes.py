"""contrib/kubernetes: the manifests against the API's schemas, and the probes as a kubelet runs them."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from servers import KIT

from agent.config.load import load

FILES = KIT / "kubernetes"
MANIFESTS: list[dict[str, Any]] = list(yaml.safe_load_all((FILES / "daemonset.yaml").read_text()))
BY_KIND = {each["kind"]: each for each in MANIFESTS}
POD = BY_KIND["DaemonSet"]["spec"]["template"]["spec"]
PLUGIN = json.loads((FILES / "node-problem-detector.json").read_text())


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda manifest: manifest["kind"])
@pytest.mark.parametrize("version", ["1.27", kubernetes_validate.latest_version()])
def test_the_manifests_are_what_the_api_takes(manifest: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(manifest, version, strict=True)


def test_every_volume_is_mounted_and_only_the_agents_own_two_are_writable_on_the_host() -> None:
    mounts = POD["containers"][0]["volumeMounts"]
    hosts = {each["name"] for each in POD["volumes"] if "hostPath" in each}

    assert {each["name"] for each in POD["volumes"]} == {each["name"] for each in mounts}
    assert {"state", "runtime"} == {each["name"] for each in mounts if not each.get("readOnly")} & hosts


def test_the_agent_runs_as_a_user_without_capabilities_under_a_root_that_nobody_writes_to() -> None:
    agent, (first,) = POD["containers"][0]["securityContext"], POD["initContainers"]

    assert POD["securityContext"]["runAsNonRoot"]
    assert {"drop": ["ALL"]} == agent["capabilities"]
    assert ["CHOWN"] == first["securityContext"]["capabilities"]["add"]
    for each in (agent, first["securityContext"]):
        assert (False, True) == (each["allowPrivilegeEscalation"], each["readOnlyRootFilesystem"])


def test_the_configuration_in_the_config_map_is_one(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(BY_KIND["ConfigMap"]["data"]["config.toml"])

    assert "/run/sockmem-agent/sockmem.prom" == load(tmp_path / "config.toml", {}).metrics.textfile


def test_the_ids_are_those_of_the_image() -> None:
    recipe = (KIT / "container" / "Containerfile").read_text()
    user, group = re.search(r"(?m)^USER (\d+):(\d+)$", recipe).groups()

    assert (int(user), int(group)) == (POD["securityContext"]["runAsUser"], POD["securityContext"]["runAsGroup"])
    assert f"{user}:{group}" == POD["initContainers"][0]["command"][1]
    assert f"--uid {user}" in recipe
    assert f"--gid {group}" in recipe


@pytest.mark.parametrize(("status", "alive"), [(0, True), (1, True), (2, True), (3, False), (127, False)])
def test_an_open_incident_is_no_reason_to_restart_the_agent(status: int, *, alive: bool, tmp_path: Path) -> None:
    program = tmp_path / "sockmem-agent"
    program.write_text(f'#!/bin/sh\n[ "$*" = "status --check" ] && exit {status}\n')
    program.chmod(0o755)
    command = POD["containers"][0]["livenessProbe"]["exec"]["command"]

    done = subprocess.run(command, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, check=False)
    assert alive == (done.returncode == 0)


def test_node_problem_detector_takes_the_plugin() -> None:
    """As ApplyConfiguration and Validate of its pkg/custompluginmonitor/types/config.go want it."""
    seconds = {name: int(PLUGIN["pluginConfig"][name].removesuffix("s")) for name in ("timeout", "invoke_interval")}
    (rule,) = PLUGIN["rules"]

    assert "custom" == PLUGIN["plugin"]
    assert int(rule["timeout"].removesuffix("s")) <= seconds["timeout"] < seconds["invoke_interval"]
    assert rule["condition"] in [each["type"] for each in PLUGIN["conditions"]]
    assert ["/usr/bin/sockmem-agent", "status", "--check"] == [rule["path"], *rule["args"]]
    assert 80 == PLUGIN["pluginConfig"]["max_output_length"]
