"""contrib/grafana: every query of the dashboard, answered by a real Prometheus that scrapes a real node_exporter."""

import json
import re
import shutil
import urllib.parse
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from harness import wait_for
from material import make_incident
from servers import KIT, ask, held_address, serving

from agent.core.model import Sample
from agent.service import metrics

BOARD = json.loads((KIT / "grafana" / "sockmem.json").read_text())
PANELS = BOARD["panels"]
pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, ("prometheus", "prometheus-node-exporter"))),
    reason="prometheus or prometheus-node-exporter is not installed",
)


class Query(NamedTuple):
    title: str
    expr: str
    legend: str = ""


QUERIES = [Query(p["title"], t["expr"], t["legendFormat"]) for p in PANELS for t in p["targets"]]
QUERIES += [Query(each["name"], each["expr"], each["titleFormat"]) for each in BOARD["annotations"]["list"]]


def make_text(messages: int) -> str:
    """Return what the agent writes while an incident is open and a channel is down."""
    now = datetime.now(timezone.utc)
    sample = Sample(at=now, orphan=5000, tcp_max_orphans=8192, mem=700, tcp_mem=(1000, 2000, 3000))
    owed = SimpleNamespace(notices=2, since=now)
    counts = dict.fromkeys(metrics.OUTCOMES, messages)
    channel: Any = SimpleNamespace(name="ops", waiting=owed, counts=counts)
    return metrics.render(
        [
            *metrics.counters({"too_many_orphans": messages}, {("event", "orphans"): 1}, [channel]),
            *metrics.still_open([make_incident()]),
            *metrics.host(metrics.Gauges(sample, 4096, 4096)),
            *metrics.waiting([channel], now),
            *metrics.written(now),
        ]
    )


@pytest.fixture(scope="module")
def evaluate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], list[Any]]]:
    """Ask a Prometheus that has scraped the agent's metrics for some seconds, as Grafana would."""
    folder = tmp_path_factory.mktemp("grafana")
    collected = folder / "sockmem.prom"
    collected.write_text(make_text(1))
    with held_address() as exporter, held_address() as address:
        (folder / "prometheus.yml").write_text(
            "global: {scrape_interval: 500ms}\n"
            f"scrape_configs: [{{job_name: node, static_configs: [{{targets: ['{exporter}']}}]}}]\n"
        )
        command = ("prometheus-node-exporter", f"--web.listen-address={exporter}", "--collector.disable-defaults")
        textfile = ("--collector.textfile", f"--collector.textfile.directory={folder}")
        options = (f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data", "--log.level=error")
        with (
            serving(exporter, "/metrics", *command, *textfile),
            serving(address, "/-/ready", "prometheus", f"--web.listen-address={address}", *options) as url,
        ):

            def instant(expr: str) -> list[Any]:
                query = urllib.parse.urlencode({"query": fill_in(expr)})
                found: list[Any] = ask(f"{url}/api/v1/query?{query}")["data"]["result"]
                return found

            wait_for("a scrape", lambda: instant("sockmem_events_total == 1"))
            wait_for("a second one", lambda: instant("count_over_time(sockmem_build_info[1m]) > 2"))
            replace_whole(collected, make_text(9))
            wait_for("the change", lambda: instant("sockmem_events_total == 9"))
            yield instant


def replace_whole(path: Path, text: str) -> None:
    aside = path.with_suffix(".new")
    aside.write_text(text)
    aside.rename(path)


def fill_in(expr: str) -> str:
    """Put in what Grafana would for its variables."""
    return expr.replace("$__rate_interval", "1m").replace("$host", ".*")


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: f"{query.title}: {query.expr}")
def test_every_query_is_answered_with_the_labels_that_its_legend_shows(query: Query, evaluate: Any) -> None:
    found = evaluate(query.expr)

    assert "$" not in fill_in(query.expr)
    assert found
    for label in re.findall(r"\{\{(\w+)\}\}", query.legend):
        assert all(label in each["metric"] for each in found), label


def test_the_numbers_are_those_of_the_host(evaluate: Any) -> None:
    shown = {
        panel["title"]: float(evaluate(panel["targets"][0]["expr"])[0]["value"][1])
        for panel in PANELS
        if panel["type"] == "stat" or panel["title"].startswith("Closest")
    }

    assert {
        "Incidents": 1,
        "Early warnings": 0,
        "Notifications waiting": 2,
        "Stale agents": 0,
        "Agents": 1,
        "Closest to the orphan limit": pytest.approx(5000 / 8192),
        "Closest to the memory limit": pytest.approx(700 / 3000),
    } == shown


def test_the_hosts_to_choose_from_are_those_with_an_agent(evaluate: Any) -> None:
    hosts = next(each for each in BOARD["templating"]["list"] if each["name"] == "host")
    metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", hosts["query"]["query"]).groups()

    assert 1 == len({each["metric"][label] for each in evaluate(metric)})


def test_panels_have_their_own_ids_do_not_overlap_and_ask_the_chosen_prometheus() -> None:
    fields = [
        (x, y)
        for place in (panel["gridPos"] for panel in PANELS)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    sources = [each["datasource"]["uid"] for panel in PANELS for each in (panel, *panel["targets"])]

    assert len(PANELS) == len({panel["id"] for panel in PANELS})
    assert len(fields) == len(set(fields))
    assert {"${datasource}"} == set(sources)
    assert {x for x, _ in fields} == set(range(24))


def test_every_metric_of_the_agent_about_a_host_or_a_channel_is_shown() -> None:
    metered = set(re.findall(r"^# TYPE (\w+)", make_text(1), re.MULTILINE))
    shown = {name for query in QUERIES for name in re.findall(r"sockmem_\w+", query.expr)}

    assert metered == shown
