"""contrib/prometheus, as promtool, amtool and a real Alertmanager take it."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import wait_for
from material import OPENED_AT, make_incident, make_notice
from servers import KIT, ask, held_address, serving

from agent.core.settings import AlertmanagerSettings
from agent.notifiers.alertmanager import alerts

FILES = KIT / "prometheus"
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="prometheus is not installed")
needs_amtool = pytest.mark.skipif(shutil.which("amtool") is None, reason="prometheus-alertmanager is not installed")


def tell(*command: str | Path) -> str:
    told = subprocess.run(command, cwd=FILES, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout + told.stderr
    return told.stdout


@needs_promtool
def test_promtool_finds_the_rules_right_and_to_fire_as_their_tests_say() -> None:
    assert "SUCCESS: 7 rules found" in tell("promtool", "check", "rules", "rules.yml")
    assert "SUCCESS" in tell("promtool", "test", "rules", "rules_test.yml")


def test_every_rule_has_a_test_in_which_it_fires() -> None:
    names = re.findall(r"alert: (\w+)", (FILES / "rules.yml").read_text())
    fired = re.findall(r"alertname: (\w+)\n +exp_alerts:\n", (FILES / "rules_test.yml").read_text())

    assert set(names) == set(fired)


@needs_amtool
@pytest.mark.parametrize(
    ("receiver", "labels"),
    [
        ("page", ["alertname=SockmemIncident", "severity=critical"]),
        ("page", ["alertname=SockmemIncidentOpen", "severity=critical"]),
        ("page", ["alertname=SockmemFleet", "severity=critical"]),
        ("chat", ["alertname=SockmemIncident", "severity=warning"]),
        ("chat", ["alertname=SockmemAgentStale", "severity=warning"]),
        ("chat", ["alertname=SockmemTest", "severity=info"]),
    ],
)
def test_critical_alerts_page_and_the_rest_is_chat(receiver: str, labels: list[str]) -> None:
    verify = f"--verify.receivers={receiver}"
    tell("amtool", "config", "routes", "test", "--config.file=alertmanager.yml", verify, *labels)


@needs_amtool
def test_amtool_finds_nothing_wrong_with_the_configuration() -> None:
    assert "SUCCESS" in tell("amtool", "check-config", "alertmanager.yml")


def test_what_is_grouped_and_compared_by_are_labels_of_the_agents_alerts() -> None:
    routing = yaml.safe_load((FILES / "alertmanager.yml").read_text())
    settings = AlertmanagerSettings(name="am", urls=("http://127.0.0.1:9093",))
    (alert,) = alerts(make_notice(make_incident()), settings, OPENED_AT)
    compared = {label for rule in routing["inhibit_rules"] for label in rule.get("equal", [])}

    assert {"cause", "host", "incident"} == compared
    assert compared | {*routing["route"]["group_by"]} <= alert["labels"].keys()
    assert ("SockmemIncident", "critical") == (alert["labels"]["alertname"], alert["labels"]["severity"])


@needs_amtool
def test_alertmanager_mutes_what_a_better_alert_says(tmp_path: Path) -> None:
    fired = [
        make_alert("SockmemIncident", "critical", host="web1", incident="i1", cause="tcp_memory"),
        make_alert("SockmemIncident", "warning", host="web1", incident="i1", cause="tcp_memory"),
        make_alert("SockmemIncidentOpen", "critical", host="web1"),
        make_alert("SockmemMemoryHigh", "warning", host="web1"),
        make_alert("SockmemNoticesNotDelivered", "warning", host="web1"),
        make_alert("SockmemIncident", "warning", host="web2", incident="i2", cause="orphans"),
        make_alert("SockmemEarlyWarning", "warning", host="web2"),
        make_alert("SockmemIncidentOpen", "critical", host="web3"),
        make_alert("SockmemOrphansHigh", "warning", host="web3"),
        make_alert("SockmemOrphansHigh", "warning", host="web4"),
    ]
    unmuted = {
        "SockmemIncident critical web1",
        "SockmemNoticesNotDelivered warning web1",
        "SockmemIncident warning web2",
        "SockmemIncidentOpen critical web3",
        "SockmemOrphansHigh warning web4",
    }

    hold_to(tmp_path, fired, unmuted)


@needs_amtool
def test_many_hosts_with_one_cause_are_one_page(tmp_path: Path) -> None:
    fired = [
        make_alert("SockmemFleet", "critical", cause="orphans"),
        *(
            make_alert("SockmemIncident", "critical", host=f"web{n}", incident=f"i{n}", cause="orphans")
            for n in range(12)
        ),
        *(make_alert("SockmemIncidentOpen", "critical", host=f"web{n}") for n in range(12)),
        make_alert("SockmemIncident", "critical", host="db1", incident="j1", cause="tcp_memory"),
    ]

    hold_to(tmp_path, fired, {"SockmemFleet critical -", "SockmemIncident critical db1"})


def make_alert(name: str, severity: str, **labels: str) -> dict[str, Any]:
    return {"labels": {"alertname": name, "severity": severity} | labels}


def hold_to(tmp_path: Path, fired: list[dict[str, Any]], unmuted: set[str]) -> None:
    """Fire alerts at an Alertmanager with the shipped routes, whose receivers send nothing, and see what it mutes."""
    routes = (FILES / "alertmanager.yml").read_text().partition("\nreceivers:")[0]
    (tmp_path / "alertmanager.yml").write_text(f"{routes}\nreceivers: [{{name: page}}, {{name: chat}}]\n")
    found: list[dict[str, Any]] = []
    command = ("prometheus-alertmanager", "--cluster.listen-address=")
    options = (f"--config.file={tmp_path}/alertmanager.yml", f"--storage.path={tmp_path}/data", "--log.level=error")

    def is_as_expected() -> bool:
        found[:] = ask(f"{url}/api/v2/alerts")
        active = [each["labels"] for each in found if each["status"]["state"] == "active"]
        shown = {f"{each['alertname']} {each['severity']} {each.get('host', '-')}" for each in active}
        return len(found) == len(fired) and shown == unmuted

    with (
        held_address() as address,
        serving(address, "/-/ready", *command, f"--web.listen-address={address}", *options) as url,
    ):
        ask(f"{url}/api/v2/alerts", fired)
        wait_for(f"{unmuted} of {found}", is_as_expected)
