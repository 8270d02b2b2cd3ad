"""The metrics, as promtool and node_exporter read them."""

import contextlib
import itertools
import os
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import pytest
from harness import AgentProcess, hold_port, port_of, wait_for
from material import make_incident

from agent.core.model import Kind, Sample
from agent.core.status import Waiting
from agent.service import metrics
from agent.service.published import Published, replace_public

AT = datetime(2026, 11, 22, 15, 5, 39, tzinfo=timezone.utc)
LINE = "Nov 22 15:05:39 web1 kernel: [  123.000001] TCP: too many orphaned sockets\n"
OPS = SimpleNamespace(
    name="ops",
    counts=Counter(delivered=3, failed=2, gave_up=1, digested=5, superseded=6, skipped=4),
    waiting=Waiting(2, AT - timedelta(minutes=2), "HTTP 503"),
)
# One line a metric of the contract: its name and its labels.
CONTRACT = """
build_info{version} events_total{kind} incidents_total{class,cause} incident_open{class}
incident_opened_timestamp_seconds tcp_orphan_sockets tcp_orphan_limit_sockets tcp_memory_bytes
tcp_memory_limit_bytes{threshold} notifications_total{channel,outcome} notices_pending{channel}
notice_oldest_pending_seconds{channel} last_write_timestamp_seconds
"""

needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="prometheus is not installed")
needs_exporter = pytest.mark.skipif(
    shutil.which("prometheus-node-exporter") is None, reason="prometheus-node-exporter is not installed"
)


def values(text: str) -> dict[str, float]:
    """Return each sample's value by its name with labels, as it stands in the file."""
    return {name: float(value) for name, value in re.findall(r"^([^#\s]\S*) (\S+)$", text, re.MULTILINE)}


def in_order(name: str) -> tuple[str, ...]:
    """Take a sample's name apart; node_exporter sorts the labels."""
    return tuple(sorted(re.split(r"[{},]", name)))


def everything() -> str:
    sample = Sample(at=AT, orphan=5, tcp_max_orphans=8192, mem=7, tcp_mem=(1, 2, 3))
    return metrics.render(
        [
            *metrics.counters({"too_many_orphans": 7}, {("event", "orphans"): 1}, [OPS]),
            *metrics.still_open([make_incident(opened_at=AT)]),
            *metrics.host(metrics.Gauges(sample, 4096, 65536)),
            *metrics.waiting([OPS], AT),
            *metrics.written(AT),
        ]
    )


def test_the_names_and_labels_are_those_of_the_contract() -> None:
    found = {
        (name, tuple(re.findall(r'(\w+)="', labels)))
        for name, labels in re.findall(r"^sockmem_(\w+)(?:\{(.*)\})? \S+$", everything(), re.MULTILINE)
    }

    assert found == {
        (name, tuple(labels.split(",") if labels else ()))
        for name, labels in re.findall(r"(\w+)(?:\{([\w,]+)\})?", CONTRACT)
    }


def test_the_numbers_are_in_base_units_and_every_kind_and_cause_counts_from_0() -> None:
    found = values(everything())
    expected = {
        'events_total{kind="too_many_orphans"}': 7,
        'events_total{kind="tcp_mem"}': 0,
        'incidents_total{class="event",cause="orphans"}': 1,
        'incidents_total{class="pressure",cause="tcp_memory"}': 0,
        'incident_open{class="event"}': 1,
        'incident_open{class="pressure"}': 0,
        "incident_opened_timestamp_seconds": AT.timestamp(),
        "tcp_memory_bytes": 7 * 4096,
        'tcp_memory_limit_bytes{threshold="high"}': 3 * 65536,
        'notifications_total{channel="ops",outcome="digested"}': 5,
        'notices_pending{channel="ops"}': 2,
        'notice_oldest_pending_seconds{channel="ops"}': 120,
        "last_write_timestamp_seconds": AT.timestamp(),
    }

    assert expected == {name: found.get(f"sockmem_{name}") for name in expected}
    assert len(get_args(Kind)) == sum(name.startswith("sockmem_events_total") for name in found)


def test_what_is_not_known_is_left_out() -> None:
    text = metrics.render(metrics.host(metrics.Gauges(Sample(at=AT, orphan=5, mem=7, tcp_mem=(1, 2, 3)), None, None)))

    assert ["sockmem_tcp_orphan_sockets"] == list(values(text))
    assert "" == metrics.render(metrics.host(metrics.Gauges(None, 4096, 4096)))


@needs_promtool
def test_promtool_has_nothing_to_say() -> None:
    judged = subprocess.run(
        ["promtool", "check", "metrics"], input=everything(), capture_output=True, text=True, check=False
    )

    assert (0, "", "") == (judged.returncode, judged.stdout, judged.stderr)
    assert "_created" not in everything()


# --- the file -------------------------------------------------------------------------------------------------------


def test_a_file_is_written_when_it_changes_and_when_it_is_due(tmp_path: Path, clock) -> None:
    path = tmp_path / "sockmem.prom"
    file = Published(path, 60.0, clock.monotonic)

    def written(content: str) -> bool:
        path.unlink(missing_ok=True)
        file.update(content, content.encode)
        return path.exists()

    assert [True, False, True] == [written("1"), written("1"), written("2")]
    clock.advance(61)
    assert [True, False] == [written("2"), written("2")]


def test_who_reads_meanwhile_reads_a_whole_file(tmp_path: Path) -> None:
    path, stop = tmp_path / "status.json", threading.Event()
    replace_public(path, b"0" * 100_000)

    def rewrite() -> None:
        for digit in itertools.cycle(b"0123456789"):
            if stop.is_set():
                return
            replace_public(path, bytes([digit]) * 100_000)

    writer = threading.Thread(target=rewrite)
    writer.start()
    try:
        seen = [path.read_bytes() for _ in range(300)]
    finally:
        stop.set()
        writer.join()

    assert {(100_000, 1)} == {(len(data), len(set(data))) for data in seen}
    assert len({data[0] for data in seen}) > 1


def test_a_file_that_cannot_be_written_is_an_error_that_names_it_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "x.prom").mkdir()
    for path in (tmp_path / "nowhere" / "x.prom", tmp_path / "x.prom"):
        with pytest.raises(OSError, match=str(path)):
            Published(path, 60.0).update("", bytes)

    assert ["x.prom"] == [path.name for path in tmp_path.iterdir()]


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[AgentProcess]:
    """Make an agent under the unit's umask that writes metrics, with a channel that nobody answers."""
    (tmp_path / "messages").touch()
    (tmp_path / "metrics").mkdir(0o755)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        config = f"""[source]\nkind = "file"\npaths = ["{tmp_path}/messages"]
[metrics]\ntextfile = "{tmp_path}/metrics/sockmem.prom"
[[notify]]\nname = "ops"\ntype = "webhook"\nurl = "http://127.0.0.1:{unused.getsockname()[1]}/"\n"""
        process = AgentProcess(tmp_path, config)
        umask = os.umask(0o027)
        yield process
        os.umask(umask)
        if not process.ended():
            process.kill()


def read(agent: AgentProcess) -> dict[str, float]:
    with contextlib.suppress(FileNotFoundError):
        return values((agent.folder / "metrics/sockmem.prom").read_text())
    return {}


def test_it_is_there_soon_for_every_user_and_says_at_once_what_happens(agent: AgentProcess) -> None:
    agent.start()
    began = time.monotonic()
    wait_for("the metrics", lambda: "sockmem_tcp_orphan_sockets" in read(agent))

    assert time.monotonic() - began < 10
    assert 0o644 == (agent.folder / "metrics/sockmem.prom").stat().st_mode & 0o777
    assert 0 == read(agent)['sockmem_events_total{kind="too_many_orphans"}']
    with (agent.folder / "messages").open("a") as log:
        log.write(LINE)
    happened = {
        'sockmem_events_total{kind="too_many_orphans"}': 1,
        'sockmem_incident_open{class="event"}': 1,
        'sockmem_notices_pending{channel="ops"}': 1,
    }
    wait_for("what happened", lambda: happened == {name: read(agent).get(name) for name in happened}, 10)
    assert 1 == sum(count for name, count in read(agent).items() if name.startswith("sockmem_incidents_total"))


def test_a_clean_stop_leaves_nothing_open_in_it(agent: AgentProcess) -> None:
    agent.start()
    with (agent.folder / "messages").open("a") as log:
        log.write(LINE)
    wait_for("the incident", lambda: 1 == read(agent).get('sockmem_incident_open{class="event"}'))
    assert 0 == agent.stop()
    left = read(agent)

    assert 0 == left['sockmem_incident_open{class="event"}']
    assert 1 == left['sockmem_events_total{kind="too_many_orphans"}']
    assert abs(time.time() - left["sockmem_last_write_timestamp_seconds"]) < 10
    assert [] == [name for name in left if re.search("opened_timestamp|pending|sockmem_tcp_", name)]


@needs_exporter
def test_node_exporter_reads_it_beside_others_through_a_link(agent: AgentProcess, tmp_path: Path) -> None:
    collected = tmp_path / "node-exporter"
    collected.mkdir()
    (collected / "other.prom").write_text("other_metric 1\n")
    (collected / "sockmem.prom").symlink_to(tmp_path / "metrics/sockmem.prom")
    agent.start()
    wait_for("the metrics", lambda: "sockmem_tcp_orphan_sockets" in read(agent))
    held = hold_port()
    address = f"127.0.0.1:{port_of(held)}"
    exporter = subprocess.Popen(
        [
            "prometheus-node-exporter",
            f"--web.listen-address={address}",
            "--collector.disable-defaults",
            "--collector.textfile",
            f"--collector.textfile.directory={collected}",
        ],
        stderr=subprocess.DEVNULL,
    )
    try:
        found: dict[str, float] = {}

        def scraped() -> bool:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as page:
                found.update(values(page.read().decode()))
            return bool(found)

        wait_for("a scrape", scraped)
    finally:
        exporter.kill()
        exporter.wait()
        held.close()

    assert 0 == found["node_textfile_scrape_error"]
    assert 1 == found["other_metric"]
    assert set(map(in_order, read(agent))) <= set(map(in_order, found))
