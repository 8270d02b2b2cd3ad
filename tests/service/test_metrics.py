import subprocess
import sys
from datetime import datetime, timezone
from types import SimpleNamespace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from agent.core.model import Sample
from agent.service.metrics import write_metrics

AT = datetime(2026, 11, 22, 15, 5, 39, tzinfo=timezone.utc)


def values(text: str) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_the_file_is_what_prometheus_reads(tmp_path):
    path = tmp_path / "sockmem.prom"
    ops = SimpleNamespace(name="ops", delivered=3, failed=2, gave_up=1, digested=5, skipped=4)
    write_metrics(path, [ops], {"too_many_orphans": 7}, None, Sample(at=AT, orphan=5, mem=None))
    found = values(path.read_text())

    assert 7 == found["sockmem_events_total", "too_many_orphans"]
    assert (3, 2, 1) == tuple(
        found["sockmem_notifications_total", "ops", outcome] for outcome in ("delivered", "failed", "gave_up")
    )
    assert 5 == found["sockmem_orphan",]
    assert ("sockmem_mem",) not in found
    assert 0 == found["sockmem_incident_open",]


def test_a_file_that_cannot_be_written_is_an_error_that_names_it(tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        write_metrics(tmp_path / "nowhere" / "x.prom", [], {}, None, None)


def test_the_service_without_metrics_does_not_pay_for_them():
    code = "import sys, agent.cli.run; sys.exit('prometheus_client' in sys.modules)"

    assert 0 == subprocess.run([sys.executable, "-c", code], check=False).returncode
