"""What the kernel's trace adds to the service: files as trace_pipe gives them, read by the real Reader."""

import json
from datetime import timedelta, timezone

import pytest
from harness import Trace, schema_errors, write_proc, write_process
from msgspec.structs import replace

from agent.core.budget import proof_of
from agent.core.kernel.tracing import REFUSAL_EVENT
from agent.core.readings import Namespace, Process, SocketGroup, SocketTable, Tally
from agent.core.report import notice_text, source_text, title
from agent.core.settings import IncidentSettings, StoreSettings
from agent.page.incident_files import IncidentFiles
from agent.page.rows import Clock, facts
from agent.service import recorder as module
from agent.service.open_incident import EVIDENCE
from agent.service.recorder import Recorder
from agent.service.troubles import Troubles
from agent.store import Store


class Service:
    """The recorder in its main loop, on a host whose processes, counters and trace are files."""

    def __init__(self, folder, clock, proc_root):
        self.clock, self.proc_root = clock, proc_root
        self.trace = Trace(folder / "trace")
        self.store = Store(folder / "state", StoreSettings(min_free_bytes=0))
        self.store.open_for_writing()
        write_process(proc_root, 4711, "nginx", "/system.slice/nginx.service")
        write_process(proc_root, 4712, "rsync", "/system.slice/backup.service")

    def start(self, **settings):
        """Start on the store as it is; what the trace had for the process before is read by then."""
        pipe = self.trace.instances.kills / "trace_pipe"
        if pipe.exists():
            pipe.write_text("")
        self.recorder = Recorder(
            self.store,
            settings=IncidentSettings(**settings),
            channels=("ops",),
            now=self.clock,
            on_notice=lambda _: None,
            troubles=Troubles(),
            proc_root=self.proc_root,
            trace=self.trace.instances,
            monotonic=self.clock.monotonic,
        )
        self.turn()

    def turn(self, *decided, seconds=1, times=1):
        """Do what the main loop does in a turn, some seconds later."""
        for _ in range(times):
            self.clock.advance(seconds)
            snapshot = self.recorder.take_event_snapshot(decided[0][1].host) if decided else None
            self.recorder.watch()
            if snapshot:
                self.recorder.handle(list(decided), snapshot)
            self.recorder.tick()

    def count(self, aborts):
        """Set TCPAbortOnMemory."""
        write_proc(self.proc_root, aborts=aborts)

    def incident(self):
        [only] = self.store.ids()
        return self.store.load(only)

    def told(self):
        return [(n.type.rsplit(".", 1)[-1], n) for i in self.store.ids() for _, n, _ in self.store.notices(i)]

    def told_types(self):
        return [word for word, _ in self.told()]


@pytest.fixture
def service(tmp_path, clock, proc_root, monkeypatch):
    """No socket of this host is looked at."""
    monkeypatch.setattr(module, "take_sockets", lambda *_, **__: SocketTable(complete=True))
    made = Service(tmp_path, clock, proc_root)
    yield made
    for path in tmp_path.glob("state/incidents/*/incident.json"):
        assert [] == schema_errors("incident", path.read_bytes())


def test_kills_without_a_line_open_an_incident_after_two_seconds(service):
    service.start()
    service.trace.kill(86)
    service.count(86)
    service.turn()
    seen_at = service.clock.time
    service.turn()
    assert not service.store.ids()
    service.turn()

    incident = service.incident()
    assert ("event", "kernel", None) == (incident.class_, incident.provenance, incident.first_event)
    assert {"out_of_socket_memory": 0, "too_many_orphans": 0, "tcp_mem": 0, "suppressed": 0} == incident.events
    assert (86, 0, 0) == (incident.witness.kills, incident.witness.refusals, incident.witness.lost)
    [by] = incident.witness.by
    assert ("nginx.service", "nginx", 86, (443,), ("192.0.2.7",), False) == (
        *(by.unit, by.process, by.kills, by.ports, by.peers),
        by.guess,
    )
    assert ["opened"] == service.told_types()
    assert "86 connections of nginx.service (port 443), seen by the trace" in incident.summary
    assert seen_at == service.store.snapshots(incident.id)[0][1].taken_at


def test_kills_wait_two_seconds_for_their_line_and_no_longer(service):
    service.start()
    service.trace.kill(86)
    service.turn()

    assert 2.0 == service.recorder.next_due()


def test_the_line_that_follows_a_kill_is_in_the_same_message(service, make_decided):
    service.start()
    service.trace.kill(5)
    service.turn()
    seen_at = service.clock.time
    service.turn(make_decided(at=seen_at))
    service.turn(times=5)

    incident = service.incident()
    assert 1 == incident.events["too_many_orphans"]
    assert 5 == incident.witness.kills
    assert ["opened"] == service.told_types()
    assert 5 == service.told()[0][1].data.witness.kills
    assert seen_at == service.store.snapshots(incident.id)[0][1].taken_at


def test_a_line_that_comes_later_is_folded_into_the_incident(service, make_decided):
    service.start()
    service.trace.kill(5)
    service.turn(times=10)
    service.turn(make_decided())
    service.turn()

    incident = service.incident()
    assert (1, 5) == (incident.events["too_many_orphans"], incident.witness.kills)
    assert incident.first_event is not None
    [(_, opened), (kind, updated)] = service.told()
    assert (None, "updated", "the cause is now orphans (was undetermined)") == (
        opened.data.first_event,
        kind,
        updated.reason,
    )


def test_the_snapshot_of_a_line_that_comes_later_is_what_is_judged(service, make_decided):
    service.start()
    service.trace.kill(5)
    service.turn(times=5)
    write_proc(service.proc_root, orphan=8192)
    service.turn(make_decided())
    service.turn()
    assert "orphans_at_limit" == service.incident().diagnosis.findings[0].claim


def test_kills_that_wait_for_their_line_are_written_when_the_service_stops(service):
    service.start()
    service.trace.kill(5)
    service.turn()
    service.recorder.flush()
    assert 5 == service.incident().witness.kills


def test_kills_keep_an_incident_open(service, make_decided):
    service.start()
    service.turn(make_decided())
    service.turn(seconds=200)
    service.trace.kill(2)
    service.turn()
    service.turn(seconds=299)
    assert service.incident().closed_at is None
    service.turn()
    assert service.incident().closed_at is not None
    assert ["opened", "resolved"] == service.told_types()


def test_a_quiet_period_after_the_last_kill_begins_another_incident(service):
    service.start()
    service.trace.kill(2)
    service.turn(times=5)
    service.trace.kill(3)
    for _ in range(5):
        service.turn(seconds=301)
    assert [2, 3] == [service.store.load(each).witness.kills for each in service.store.ids()]


def test_a_quiet_period_before_a_kill_ends_the_incident_though_its_old_line_came_late(service, make_decided):
    service.start()
    service.turn(make_decided(at=service.clock.time - timedelta(hours=1)))
    service.trace.kill(3)
    service.turn(times=4)
    assert [False, True] == [service.store.load(each).closed_at is None for each in service.store.ids()]


def test_kills_without_a_line_open_an_incident_at_the_time_of_the_first(service, monkeypatch):
    service.start()
    first = service.clock.time + timedelta(seconds=0.2)
    monkeypatch.setattr("agent.probe.witness._moment", lambda _: first)
    service.trace.kill(3)
    service.turn(times=4)
    assert first == service.incident().opened_at


def test_a_line_has_no_witness_unless_the_trace_is_read(service, make_decided):
    for path in service.trace.instances:
        (path / "trace_pipe").unlink()
    service.count(5)
    service.start()
    service.turn(make_decided())
    incident = service.incident()
    assert incident.witness is None
    [why] = [gap.why for gap in incident.diagnosis.gaps if gap.what == "the kernel's trace"]
    assert "not read (does not exist)" in why
    assert "sockmem-agent doctor has the commands" in why


def test_a_line_from_before_the_trace_was_read_has_no_witness(service, make_decided):
    service.start()
    service.turn(make_decided(at=service.clock.time - timedelta(minutes=3)))
    assert service.incident().witness is None


def test_a_restart_goes_on_adding(service, make_decided):
    service.start()
    service.turn(make_decided())
    service.trace.kill(5)
    service.turn(times=3)
    assert 5 == service.incident().witness.kills
    service.start()
    service.trace.kill(7, comm="rsync", pid=4712)
    service.turn(times=3)

    incident = service.incident()
    assert [("backup.service", 7), ("nginx.service", 5)] == [(by.unit, by.kills) for by in incident.witness.by]
    assert 12 == incident.witness.kills


def test_what_the_counter_rose_beyond_the_trace_is_reported(service, make_decided):
    service.count(10)
    service.start()
    service.trace.kill(5)
    service.count(19)
    service.turn(make_decided(at=service.clock.time + timedelta(seconds=1)))
    service.turn(times=3)

    incident = service.incident()
    assert (5, 4) == (incident.witness.kills, incident.witness.unseen)
    assert "4 more are only counted" in incident.summary
    assert "owners of killed sockets" in [gap.what for gap in incident.diagnosis.gaps]


def test_the_counter_is_held_against_the_trace_once_nothing_more_is_in_it(service, make_decided):
    service.count(0)
    service.start()
    service.trace.kill(1)
    service.count(1)
    service.turn(make_decided(at=service.clock.time + timedelta(seconds=1)))
    service.turn(times=40)
    service.count(41)
    service.turn(seconds=10)
    service.trace.kill(10)
    service.turn()
    assert (11, 0) == (service.incident().witness.kills, service.incident().witness.unseen)
    service.trace.kill(30)
    service.turn(times=3)
    assert (41, 0) == (service.incident().witness.kills, service.incident().witness.unseen)


def test_what_the_counter_rose_counts_from_before_the_first_kill_though_its_line_comes_later(service, make_decided):
    service.count(10)
    service.start()
    service.trace.kill(5)
    service.count(19)
    service.turn()
    line = make_decided(at=service.clock.time + timedelta(seconds=1.5))
    service.turn(line, seconds=1.5)
    service.turn(times=3)
    assert (5, 4) == (service.incident().witness.kills, service.incident().witness.unseen)


def test_unseen_survives_a_restart(service, make_decided):
    service.count(10)
    service.start()
    service.trace.kill(5)
    service.count(19)
    service.turn(make_decided(at=service.clock.time + timedelta(seconds=1)))
    service.turn(times=3)
    service.start()
    service.count(21)
    service.turn(times=15)
    witness = service.incident().witness
    assert (5, 6) == (witness.kills, witness.unseen)


def test_lost_kills_are_counted_and_marked(service, make_decided):
    service.start()
    service.turn(make_decided())
    service.trace.kill(30)
    service.trace.lose(6)
    service.trace.kill(10, comm="rsync", pid=4712)
    service.turn(times=3)
    witness = service.incident().witness
    assert (46, 6) == (witness.kills, witness.lost)
    assert [("nginx.service", 35, True), ("backup.service", 11, True)] == [
        (by.unit, by.kills, by.pro_rata) for by in witness.by
    ]


def test_a_claimed_line_is_confirmed_by_the_trace(service, make_decided):
    service.start(claimed="record")
    service.turn(make_decided(provenance="claimed"))
    assert [] == service.told_types()
    service.trace.kill(5)
    service.turn(times=3)

    incident = service.incident()
    assert ("kernel", "claimed") == (incident.provenance, incident.first_event.provenance)
    assert "likely" == incident.confidence
    assert ["opened"] == service.told_types()


def test_a_claim_that_the_kernel_denies_says_so_on_the_lock_screen(service, make_decided):
    service.start()
    service.turn(times=11)
    service.turn(make_decided(provenance="claimed"))
    [(_, notice)] = service.told()
    assert "web1: log claims kills; the kernel reports none" == title(notice)
    assert "possible" == notice.data.confidence


def test_a_claim_is_not_denied_where_a_counter_moved(service, make_decided):
    service.start()
    service.turn(times=11)
    service.count(1)
    service.turn(make_decided(provenance="claimed"))
    assert "the kernel reports none" not in title(service.told()[0][1])


def test_refusals_open_a_warning_in_the_same_turn_with_the_sizes(service):
    service.start()
    service.trace.refuse(120)
    service.trace.refuse(58, kind="SK_MEM_RECV")
    service.turn()

    incident = service.incident()
    assert ("pressure", 3) == (incident.class_, incident.pressure.level)
    assert title(service.told()[0][1]).endswith(": 178 times in 10 s; 381,400 pages allocated of 381,372")
    assert [("backup.service", 120), (None, 58)] == [(by.unit, by.refusals) for by in incident.witness.by]
    assert (0, 178) == (incident.witness.kills, incident.witness.refusals)


def test_a_few_refusals_warn_of_nothing(service):
    service.start()
    for _ in range(30):
        service.trace.refuse(1, allocated=200_000)
        service.turn(seconds=2)
    assert [] == list(service.store.ids())


def test_kills_make_a_warning_the_kernels_own(service):
    service.start()
    service.trace.refuse(50)
    service.turn()
    service.trace.kill(3)
    service.turn(times=3)
    incident = service.incident()
    assert ("event", "kernel", 3) == (incident.class_, incident.provenance, incident.witness.kills)
    assert ["opened", "updated"] == service.told_types()
    assert "the kernel has confirmed the warning" == service.told()[1][1].reason


def test_a_program_that_has_ended_is_named_by_its_port(service, make_decided, monkeypatch):
    group = SocketGroup(cgroup=7, port=8080, orphaned={"fin_wait1": Tally(sockets=40, bytes=4096)})
    table = SocketTable(groups=(group,), paths={1: "/", 7: "/system.slice/shop.service"}, complete=True)
    service.start()
    monkeypatch.setattr(module, "take_sockets", lambda *_, **__: table)
    service.trace.kill(60, comm="python3", pid=99, src="10.0.0.5:8080")
    service.turn(make_decided())
    service.turn(times=5)
    [by] = service.incident().witness.by
    assert ("shop.service", "python3", 60, True) == (by.unit, by.process, by.kills, by.guess)


def test_kills_that_come_after_the_dump_are_named_by_it(service, make_decided, monkeypatch):
    group = SocketGroup(cgroup=7, port=8080, orphaned={"fin_wait1": Tally(sockets=40, bytes=4096)})
    table = SocketTable(groups=(group,), paths={1: "/", 7: "/system.slice/shop.service"}, complete=True)
    service.start()
    monkeypatch.setattr(module, "take_sockets", lambda *_, **__: table)
    service.trace.kill(1)
    service.turn(make_decided())
    service.turn(times=20)
    service.trace.kill(60, comm="python3", pid=99, src="10.0.0.5:8080")
    service.turn()
    assert ["shop.service", "nginx.service"] == [by.unit for by in service.incident().witness.by]


def test_kills_in_an_interrupt_are_of_who_acted_on_that_port_though_its_group_is_gone(
    service, make_decided, monkeypatch
):
    write_process(service.proc_root, 77, "python3", "/system.slice/shop.service")
    group = SocketGroup(cgroup=7, port=8080, orphaned={"fin_wait1": Tally(sockets=40, bytes=4096)})
    service.start()
    monkeypatch.setattr(module, "take_sockets", lambda *_, **__: SocketTable(groups=(group,), complete=True))
    service.trace.kill(60, comm="python3", pid=77, src="10.0.0.5:8080")
    service.trace.kill(30, flags="..s1.", src="10.0.0.5:8080")
    service.turn(make_decided())
    service.turn(times=5)
    [by] = service.incident().witness.by
    assert ("shop.service", 90) == (by.unit, by.kills)


def test_kills_in_an_interrupt_are_named_by_the_namespace_that_has_the_address(service, make_decided, monkeypatch):
    write_process(service.proc_root, 77, "app", "/system.slice/docker-" + "3f" * 32 + ".scope")
    net = service.proc_root / "77/net"
    net.mkdir()
    (net / "fib_trie").write_text("Local:\n  +-- 10.88.0.0/16\n     |-- 10.88.0.7\n        /32 host LOCAL\n")
    space = Namespace(process=Process(pid=77, name="app", cgroup=f"/system.slice/docker-{'3f' * 32}.scope"))
    service.start()
    monkeypatch.setattr(module, "take_sockets", lambda *_, **__: SocketTable(namespaces=(space,), complete=True))
    service.trace.kill(8, flags="..s1.", src="10.88.0.7:8080")
    service.turn(make_decided())
    service.turn(times=5)
    [by] = service.incident().witness.by
    assert ("docker 3f3f3f3f3f3f", 8, False) == (by.container, by.kills, by.guess)


def test_kills_that_the_first_dump_cannot_name_are_named_by_the_next(service, make_decided, monkeypatch):
    write_process(service.proc_root, 77, "app", "/system.slice/docker-" + "3f" * 32 + ".scope")
    net = service.proc_root / "77/net"
    net.mkdir()
    (net / "fib_trie").write_text("Local:\n  +-- 10.88.0.0/16\n     |-- 10.88.0.7\n        /32 host LOCAL\n")
    space = Namespace(process=Process(pid=77, name="app", cgroup=f"/system.slice/docker-{'3f' * 32}.scope"))
    group = SocketGroup(cgroup=7, port=1, orphaned={"fin_wait1": Tally(sockets=700, bytes=4096)})
    dumps = [SocketTable(complete=True), SocketTable(groups=(group,), namespaces=(space,), complete=True)]
    service.start()
    monkeypatch.setattr(module, "take_sockets", lambda *_, **__: dumps.pop(0) if dumps[1:] else dumps[0])
    service.trace.kill(8, flags="..s1.", src="10.88.0.7:8080")
    service.turn(make_decided())
    service.turn(times=4)
    assert [None] == [by.container for by in service.incident().witness.by]
    write_proc(service.proc_root, orphan=700)
    service.turn(times=40)
    assert ["docker 3f3f3f3f3f3f"] == [by.container for by in service.incident().witness.by]


def test_another_hosts_incident_has_no_witness(service, make_decided):
    record, event = make_decided(provenance="claimed")
    service.start()
    service.trace.kill(4)
    service.turn((replace(record, host="web7"), replace(event, host="web7")))
    service.turn(times=4)
    found = {service.store.load(each).host: service.store.load(each).witness for each in service.store.ids()}
    assert found["web7"] is None
    assert 4 == found["web1"].kills


def test_before_6_12_refusals_alone_are_seen_and_a_gap_says_why(service, make_decided):
    (service.trace.instances.kills / "trace_pipe").unlink()
    service.count(5)
    service.start()
    service.turn(make_decided())
    incident = service.incident()
    assert (None, None) == (incident.witness.kills, incident.witness.unseen)
    [gap] = [gap for gap in incident.diagnosis.gaps if gap.what == "the kernel's trace"]
    assert "from Linux 6.12 on" in gap.why


def test_incident_json_has_the_witness_of_the_contract(service, make_decided):
    service.start()
    service.trace.kill(1)
    service.turn(make_decided())
    data = json.loads((service.store.path(service.store.ids()[0]) / "incident.json").read_bytes())
    assert {"kills", "refusals", "lost", "unseen", "by"} == data["witness"].keys()


def test_texts_say_what_an_incident_rests_on(service, make_decided):
    service.start()
    service.trace.kill(40)
    service.turn(times=4)
    text = " ".join(notice_text(service.told()[0][1]).split())
    assert "source kernel, by its trace; messages: none" in text
    assert "messages none" in text
    assert "40 nginx.service" in text
    assert "most resets hit nginx.service" in title(service.told()[0][1])
    service.turn(make_decided(provenance="claimed"))
    service.turn()
    assert "messages: text log (unverified" in source_text(service.incident())
    service.turn(make_decided())
    service.turn()
    assert "kernel" == source_text(service.incident())


def test_an_incident_of_the_trace_alone_goes_on_after_a_restart_and_ends(service):
    service.start()
    service.trace.kill(40)
    service.turn(times=4)
    assert "kernel" == proof_of(service.incident())
    service.start()
    service.trace.kill(2)
    service.turn(times=2)
    assert 42 == service.incident().witness.kills
    service.turn(seconds=300)
    assert service.incident().closed_at is not None
    assert ["opened", "resolved"] == service.told_types()


def test_ten_times_the_resets_are_news_where_no_message_tells_of_any(service):
    service.start()
    service.trace.kill(40)
    service.turn(times=4)
    service.turn(times=60)
    service.trace.kill(399 - 40)
    service.turn(times=2)
    assert ["opened"] == service.told_types()
    service.trace.kill(1)
    service.turn(times=2)
    assert "400 resets so far, 40 at the last notification" == service.told()[-1][1].reason


def test_an_old_line_gets_no_kills_of_now(service, make_decided):
    service.start()
    service.trace.kill(3)
    service.turn(make_decided(at=service.clock.time - timedelta(hours=1)))
    service.turn(times=4)
    assert [None, 3] == [each.witness and each.witness.kills for each in map(service.store.load, service.store.ids())]


def test_a_clock_that_is_set_delays_no_kill_for_long(service):
    service.start()
    service.trace.kill(3)
    service.turn()
    service.clock.set(-3600)
    service.turn(times=3)
    assert 3 == service.incident().witness.kills


HISTOGRAM = """# event histogram
#
# trigger info: hist:keys=common_pid.execname:vals=hitcount,allocated:sort=hitcount:size=512 if kind == 0 [active]
#

{{ common_pid: rsync           [      4712] }} hitcount: {hits:>10}  allocated: {allocated:>10}

Totals:
    Hits: {hits}
    Entries: 1
    Dropped: 0
"""


def test_refusals_that_a_histogram_counts_are_held_against_the_limits_of_now(service):
    hist = service.trace.instances.refusals / "events" / REFUSAL_EVENT / "hist"
    hist.write_text(HISTOGRAM.format(hits=7, allocated=7 * 400_000))
    service.start()
    hist.write_text(HISTOGRAM.format(hits=27, allocated=27 * 400_000))
    service.turn()
    incident = service.incident()
    assert ("pressure", 3, 20) == (incident.class_, incident.pressure.level, incident.witness.refusals)
    assert "20 times in 10 s; 400,000 pages allocated of 381,372" in incident.pressure.claim
    assert ["backup.service"] == [by.unit for by in incident.witness.by]


def test_refusals_at_the_limit_sharpen_a_warning_that_is_open(service):
    write_proc(service.proc_root, mem=260_000)
    service.start()
    service.turn(times=11)
    assert 2 == service.incident().pressure.level
    service.trace.refuse(30)
    service.turn(times=2)
    assert 3 == service.incident().pressure.level
    assert ["opened", "updated"] == service.told_types()
    assert "30 times in 10 s" in service.told()[1][1].reason


def test_interrupts_on_the_port_of_a_program_that_has_ended_go_by_its_name(service, make_decided):
    service.start()
    service.trace.kill(30, comm="python3", pid=99, src="10.0.0.5:8080")
    service.trace.kill(8, flags="..s1.", src="10.0.0.5:8080")
    service.turn(make_decided())
    service.turn(times=5)
    [by] = service.incident().witness.by
    assert (None, "python3", 38, False) == (by.unit, by.process, by.kills, by.guess)


def test_a_limit_that_no_line_names_is_called_probable(service):
    write_proc(service.proc_root, orphan=8192)
    service.start()
    service.trace.kill(40)
    service.turn(times=4)
    incident, [(_, opened)] = service.incident(), service.told()
    assert ("orphans", "likely") == (incident.cause, incident.confidence)
    assert "is resetting TCP connections: probably orphan limit reached" in title(opened)


def test_whose_resets_they_are_is_reported_once_it_is_known(service, monkeypatch):
    group = SocketGroup(cgroup=7, port=8080, orphaned={"fin_wait1": Tally(sockets=40, bytes=4096)})
    table = SocketTable(groups=(group,), paths={1: "/", 7: "/system.slice/shop.service"}, complete=True)
    service.start()
    monkeypatch.setattr(module, "take_sockets", lambda *_, **__: table)
    service.trace.kill(60, flags="..s1.", src="10.0.0.5:8080")
    service.turn(times=6)
    assert ["opened", "updated"] == service.told_types()
    assert "most resets hit shop.service" == service.told()[1][1].reason
    service.turn(times=30)
    assert ["opened", "updated"] == service.told_types()


def test_what_ends_after_resets_without_a_line_has_no_further_resets(service):
    service.start()
    service.trace.kill(2)
    service.turn(times=5)
    service.turn(seconds=301)
    assert "no further resets" == service.told()[-1][1].reason


def test_kills_an_hour_into_an_incident_have_a_snapshot_of_their_own(service):
    service.start()
    service.trace.kill(5)
    service.turn(times=4)
    for _ in range(15):
        service.trace.kill(1)
        service.turn(seconds=240)
    service.turn(seconds=61)
    write_proc(service.proc_root, orphan=8192)
    service.trace.kill(9)
    service.turn(times=2)
    assert "orphans_at_limit" == service.incident().diagnosis.findings[0].claim


def test_kills_behind_a_claim_are_judged_by_what_the_host_looks_like_then(service, make_decided):
    service.count(0)
    service.start()
    service.turn(make_decided(provenance="claimed"))
    service.turn(times=10)
    service.count(30)
    service.trace.kill(30)
    service.turn(times=3)
    incident = service.incident()
    assert 30 == incident.witness.kills
    assert "confirmation by counters" not in [gap.what for gap in incident.diagnosis.gaps]


def test_a_snapshot_of_kills_that_is_written_ends_no_trouble_of_what_is_not(service, make_decided):
    service.start()
    service.turn(make_decided(provenance="claimed"))
    service.turn(times=10)
    with service.recorder._troubles.survived(EVIDENCE):
        raise OSError
    service.trace.kill(3)
    service.recorder.watch()

    assert EVIDENCE in service.recorder._troubles


def test_refusals_within_an_incident_take_no_snapshot_of_kills(service, make_decided, monkeypatch):
    service.start()
    service.turn(make_decided())
    service.turn(times=40)
    taken = []
    monkeypatch.setattr(module, "take_snapshot", lambda *_, **__: taken.append(1))
    service.trace.refuse(1)
    service.turn(times=2)
    assert 1 == service.incident().witness.refusals
    assert [] == taken


def test_a_trace_that_begins_within_an_incident_denies_nothing_that_was_before(service, make_decided):
    pipe = service.trace.instances.kills / "trace_pipe"
    refusals = service.trace.instances.refusals / "trace_pipe"
    pipe.unlink()
    refusals.unlink()
    service.count(0)
    service.start()
    service.turn(make_decided(provenance="claimed"))
    pipe.touch()
    refusals.touch()
    service.turn(times=2)
    service.trace.refuse(1)
    service.turn(times=2)
    assert (None, 1) == (service.incident().witness.kills, service.incident().witness.refusals)
    assert "trace_contradicts" not in [each.claim for each in service.incident().diagnosis.findings]
    service.trace.kill(4)
    service.turn(times=2)
    assert 4 == service.incident().witness.kills


def test_a_clock_that_is_set_back_leaves_the_trace_in_sight(service, make_decided):
    service.start()
    service.clock.set(-3600)
    service.turn(times=11)
    service.turn(make_decided(provenance="claimed"))
    assert service.incident().witness is not None


def rows_of(incident):
    return dict(facts(IncidentFiles(incident), Clock(timezone.utc, incident.opened_at)))


def test_a_warning_of_the_trace_says_what_it_rests_on_and_its_number_once(service):
    service.start()
    service.trace.refuse(120)
    service.turn(times=2)
    incident = service.incident()
    assert "the kernel's trace (no kernel message)" == source_text(incident)
    rows = rows_of(incident)
    assert 1 == rows["Early warning"].count("120")


def test_kills_just_after_the_clock_was_set_forward_go_on_with_the_incident(service):
    service.start()
    service.trace.kill(1)
    service.turn(times=5)
    service.clock.set(3600)
    service.trace.kill(1)
    service.turn(times=5)

    assert 2 == service.incident().witness.kills
    assert ["opened"] == service.told_types()


def test_times_of_kills_are_not_called_those_of_messages(service, make_decided):
    service.start()
    service.trace.kill(5)
    service.turn(times=10)
    service.turn(make_decided())
    service.turn(times=2)
    rows = rows_of(service.incident())
    assert "First message" not in rows
    assert "Opened" in rows
