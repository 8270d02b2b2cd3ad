"""The service with all its threads in this process, where a channel can be made to go wrong from within."""

import errno
import gc
import logging
import os
import threading
import weakref
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from material import make_incident
from msgspec.structs import replace
from pytest_httpserver import HTTPServer

from agent.core.delivery import Delivery
from agent.core.dispatch import Rules
from agent.core.model import KINDS, Incident, Notice, Silence, Witness
from agent.core.settings import IncidentSettings, MetricsSettings, Settings, SourceSettings, WebhookSettings
from agent.core.status import STATUS, Status
from agent.notifiers import Notifier, build
from agent.service import couriers, sdnotify
from agent.service import daemon as daemon_module
from agent.service.courier import Courier
from agent.service.daemon import Daemon
from agent.service.outside import Outside
from agent.service.signals import Signals
from agent.store import Outbox, Store, end_silence, write_silence

TOKEN = "T0kenT0ken"


class Broken:
    """A channel with a slip in it; the text of what it raises holds an address, as that of requests does."""

    def __init__(self, surprise: type[BaseException]) -> None:
        self.name = "broken"
        self.surprise = surprise

    def notify(self, notice: Notice) -> Delivery:
        raise self.surprise(f"http://hook/{TOKEN}")


def run_until(daemon: Daemon, steps: list[tuple[Callable[[], object], Callable[[], object]]]) -> None:
    """Run the service; whenever the condition of the next step holds, do what it says, and stop after the last."""
    waiting, pause = list(steps), threading.Event()

    def wait(timeout: float) -> None:
        if waiting and waiting[0][0]():
            waiting.pop(0)[1]()
        asked.stop = not waiting or next(turns) > 1000
        pause.wait(min(timeout, 0.02))

    turns, asked = iter(range(2000)), daemon._asked
    daemon._source.wait = wait  # type: ignore[method-assign]
    daemon.run(lambda: None)
    assert [] == waiting


@pytest.fixture
def log_file(tmp_path: Path) -> Path:
    path = tmp_path / "messages"
    path.write_text("Nov 22 15:00:00 web1 systemd[1]: Started.\n")
    return path


@pytest.fixture
def make_daemon(
    tmp_path: Path, log_file: Path, proc_root: Path, httpserver: HTTPServer
) -> Callable[[type[BaseException]], tuple[Daemon, Store]]:
    """Build the service with two webhooks: of the channel ``broken`` every attempt raises ``surprise``."""
    httpserver.expect_request("/hook").respond_with_data("ok")
    hook = httpserver.url_for("/hook")
    settings = Settings(
        source=SourceSettings(kind="file", paths=(str(log_file),)),
        incident=IncidentSettings(pressure=False),
        notify=tuple(WebhookSettings(name=name, url=hook) for name in ("broken", "good")),
    )

    def make(surprise: type[BaseException]) -> tuple[Daemon, Store]:
        def make_notifier(channel: WebhookSettings) -> Notifier:
            return Broken(surprise) if channel.name == "broken" else build(channel)

        store = Store(tmp_path / "state")
        os.close(store.open_for_writing())
        return Daemon(settings, store, Signals(), Outside(proc_root, build=make_notifier)), store

    return make


def test_a_notice_goes_before_what_the_clock_asks_for_and_our_own_log(
    make_daemon: Callable[[type[BaseException]], tuple[Daemon, Store]],
    log_file: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    daemon, store = make_daemon(AttributeError)
    waits: list[tuple[float, bool, bool]] = []
    asked = daemon._asked

    def wait(timeout: float) -> None:
        waits.append((timeout, (store.directory / "incidents/last").is_symlink(), " opened: " in caplog.text))
        if len(waits) == 1:
            with log_file.open("a") as file:
                file.write(f"{datetime.now():%b %d %H:%M:%S} web1 kernel: TCP: too many orphaned sockets\n")  # noqa: DTZ005 - a log's
        asked.stop = len(waits) == 3

    daemon._source.wait = wait  # type: ignore[method-assign]
    daemon.run(lambda: None)

    # A line that comes meanwhile ends the head start, and is read at once.
    assert [(daemon_module.HEAD_START_SECONDS, False, False), (0.0, True, True)] == waits[1:]


def test_a_log_that_cannot_be_followed_is_a_trouble_of_the_status_until_it_can(
    make_daemon: Callable[[type[BaseException]], tuple[Daemon, Store]], log_file: Path
) -> None:
    daemon, store = make_daemon(ValueError)
    why = f"{log_file}: is a directory: name a log file in it"

    def published() -> Status:
        daemon.turn()
        daemon._publish()
        return STATUS.decode((store.directory / "status.json").read_bytes())

    assert () == published().troubles
    log_file.rename(log_file.with_suffix(".1"))
    log_file.mkdir()
    assert ((why,), True) == (published().troubles, why in daemon.status())
    log_file.rmdir()
    log_file.touch()
    published()
    assert ((), False) == (published().troubles, why in daemon.status())


def test_a_directory_that_cannot_be_listed_is_one_trouble_and_over_with_it(
    make_daemon: Callable[[type[BaseException]], tuple[Daemon, Store]], monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon, store = make_daemon(ValueError)
    incidents, scandir, found = store.path(""), os.scandir, list[list[str]]()

    def fail(path: Path) -> object:
        if path == incidents:
            raise OSError(errno.EIO, "Input/output error", str(path))
        return scandir(path)

    for scan in (fail, scandir):
        monkeypatch.setattr(os, "scandir", scan)
        daemon._pruned_at -= daemon_module.PRUNE_SPACING
        daemon._do_what_is_due()
        found.append(list(daemon._troubles))
    daemon.end()

    assert [["retention cannot be applied"], []] == found


def test_what_sends_and_parses_is_imported_once_systemd_knows_that_the_service_is_ready_and_before_a_line_is_read(
    make_daemon: Callable[[type[BaseException]], tuple[Daemon, Store]], monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon, _ = make_daemon(ValueError)
    done: list[str] = []
    asked, read = daemon._asked, daemon._source.read
    monkeypatch.setattr(sdnotify, "notify", lambda state, **_: bool(done.append(state.partition("\n")[0])) or True)
    monkeypatch.setattr(daemon_module, "import_late", lambda: done.append("import"))
    monkeypatch.setattr(daemon_module, "import_parser", lambda settings: done.append(f"import for {settings.kind}"))
    monkeypatch.setattr(daemon._source, "read", lambda: (done.append("read"), read())[1])
    monkeypatch.setattr(daemon._source, "wait", lambda _: setattr(asked, "stop", True))

    daemon.run(lambda: None)

    assert ["READY=1", "WATCHDOG=1", "import", "import for file", "read"] == done[:5]


def test_systemd_hears_nothing_else_before_it_has_taken_that_the_service_is_ready(
    make_daemon: Callable[[type[BaseException]], tuple[Daemon, Store]], monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon, _ = make_daemon(ValueError)
    sent: list[str] = []
    answers = iter([False, True, True])  # The queue was full, and had room a moment later.
    monkeypatch.setattr(
        sdnotify, "notify", lambda state, **_: bool(sent.append(state.partition("\n")[0])) or next(answers)
    )
    daemon._feed()
    daemon._feed()

    assert ["READY=1", "READY=1", "WATCHDOG=1"] == sent


@pytest.mark.parametrize("surprise", [AttributeError, MemoryError, SystemExit])
def test_a_surprise_in_one_channel_ends_neither_the_watching_nor_another_channel(
    surprise: type[BaseException],
    make_daemon: Callable[[type[BaseException]], tuple[Daemon, Store]],
    log_file: Path,
    httpserver: HTTPServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    daemon, store = make_daemon(surprise)

    def say(text: str) -> None:
        with log_file.open("a") as file:
            file.write(f"{datetime.now():%b %d %H:%M:%S} web1 kernel: [  123.000001] {text}\n")  # noqa: DTZ005 - a log's

    broken = "unexpected " + surprise.__name__
    run_until(
        daemon,
        [
            (lambda: True, lambda: say("TCP: too many orphaned sockets")),
            (
                lambda: broken in daemon.status() and len(httpserver.log) == 1,
                lambda: say("TCP: out of memory -- consider tuning tcp_mem"),
            ),
            (lambda: len(httpserver.log) == 2, lambda: None),
        ],
    )

    (incident_id,) = store.ids()
    assert 2 == sum(store.load(incident_id).events.values())
    assert [{"good"}] * 2 == [set(receipts) for _, _, receipts in store.notices(incident_id)]
    assert 1 == caplog.text.count(f"broken: {broken} in test_daemon.py")
    assert TOKEN not in caplog.text


def test_a_status_of_foreign_words_is_one_line_that_systemd_reads(
    make_daemon: Callable[[type[BaseException]], tuple[Daemon, Store]],
) -> None:
    daemon, store = make_daemon(ValueError)
    foreign = [Courier(Broken(ValueError), Outbox(store), Rules()) for _ in range(50)]
    for courier in foreign:
        courier._set_back("HTTP 503\nMAINPID=1\x1b[2J \U0001f534\udce9" * 20)
        courier._show()
    daemon._couriers._served = foreign

    status = daemon.status()

    assert status.isprintable()
    assert "HTTP 503\\x0aMAINPID=1" in status
    assert len(f"WATCHDOG=1\nSTATUS={status}".encode()) <= sdnotify.MOST_BYTES
    daemon._troubles._lasting["\udce9 cannot be written"] = None
    daemon._publish()
    written = STATUS.decode((store.directory / "status.json").read_bytes())
    assert "HTTP 503\\x0aMAINPID=1" in str(written.channels[0].why)
    assert ("\\udce9 cannot be written",) == written.troubles


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Leave no room for another thread until this list is emptied, as a TasksMax= that is reached."""
    start, full = threading.Thread.start, [True]

    def start_if_there_is_room(thread: threading.Thread) -> None:
        if full:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_if_there_is_room)
    monkeypatch.setattr("agent.core.dispatch.SHORTEST_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr("agent.core.dispatch.EARLY_PAUSE_SECONDS", 0.0)
    return full


def test_without_room_for_a_thread_the_watching_goes_on_and_channels_deliver_once_there_is_room(
    tmp_path: Path, log_file: Path, proc_root: Path, httpserver: HTTPServer, full: list[bool]
) -> None:
    httpserver.expect_request("/hook").respond_with_data("ok")
    hook = httpserver.url_for("/hook")
    settings = Settings(
        source=SourceSettings(kind="file", paths=(str(log_file),)),
        incident=IncidentSettings(pressure=False),
        notify=tuple(WebhookSettings(name=f"c{number}", url=hook) for number in range(40)),
    )
    store = Store(tmp_path / "state")
    os.close(store.open_for_writing())
    daemon = Daemon(settings, store, Signals(), Outside(proc_root))

    def say() -> None:
        with log_file.open("a") as file:
            stamp = datetime.now().strftime("%b %d %H:%M:%S")  # noqa: DTZ005 - a log's
            file.write(f"{stamp} web1 kernel: [  123.000001] TCP: too many orphaned sockets\n")

    run_until(
        daemon,
        [
            (lambda: True, say),
            (lambda: store.ids() and daemon._couriers._served[39].status, full.clear),
            (lambda: len(httpserver.log) == 40, lambda: None),
        ],
    )


def test_a_channel_that_hangs_is_named_and_does_not_end_the_watching(
    make_daemon: Callable[[type[BaseException]], tuple[Daemon, Store]], monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon, _ = make_daemon(ValueError)
    sent: list[str] = []
    monkeypatch.setattr(daemon_module.sdnotify, "notify", lambda state, **_: bool(sent.append(state)) or True)
    daemon._couriers.take_over()
    next(iter(daemon._couriers)).thread.last_progress -= couriers.PATIENCE_SECONDS
    daemon._feed()
    assert "WATCHDOG=1\n" in sent[-1]
    assert "broken: hangs in an attempt" in sent[-1]


def test_the_status_says_that_a_new_configuration_could_not_be_used_until_one_can(
    make_daemon: Callable[[type[BaseException]], tuple[Daemon, Store]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: str) -> int:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr("agent.sources.kmsg.open_device", fail)
    daemon, _ = make_daemon(ValueError)
    daemon._couriers.take_over()

    daemon.take_over(None)
    assert daemon_module.UNUSABLE in daemon.status()
    daemon.take_over(daemon._settings)
    assert daemon_module.UNUSABLE not in daemon.status()
    daemon.take_over(replace(daemon._settings, source=SourceSettings(kind="kmsg")))
    assert daemon_module.UNUSABLE in daemon.status()
    daemon.end()


def test_after_a_reload_a_channel_that_hangs_holds_up_no_other(
    make_daemon: Callable[[type[BaseException]], tuple[Daemon, Store]],
) -> None:
    daemon, _ = make_daemon(ValueError)
    daemon._couriers.take_over()
    broken, good = daemon._couriers
    hang = threading.Event()
    broken.thread._step = lambda: float(hang.wait())
    daemon._couriers.serve()

    daemon.take_over(daemon._settings)
    good.thread.stop(timeout=10)
    daemon._couriers.serve()
    assert [False, True] == [courier.thread.is_alive() for courier in daemon._couriers]
    hang.set()
    broken.thread.stop(timeout=10)
    daemon._couriers.serve()
    assert [True, True] == [courier.thread.is_alive() for courier in daemon._couriers]
    daemon.end()


def test_after_a_reload_what_was_taken_and_has_no_receipt_yet_is_not_sent_again(
    make_daemon: Callable[[type[BaseException]], tuple[Daemon, Store]],
    log_file: Path,
    httpserver: HTTPServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def step() -> None:
        [courier] = [each for each in daemon._couriers if each.name == "good"]
        courier.step()

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    daemon, store = make_daemon(ValueError)
    daemon._couriers.take_over()
    with log_file.open("a") as file:
        file.write(f"{datetime.now():%b %d %H:%M:%S} web1 kernel: TCP: too many orphaned sockets\n")  # noqa: DTZ005 - a log's
    daemon._record()
    with monkeypatch.context() as disk:
        disk.setattr(Outbox, "write_receipt", fail)
        step()
        daemon.take_over(daemon._settings)
        step()
    step()
    daemon.end()

    assert 1 == len(httpserver.log)
    [(_, _, receipts)] = store.notices(store.ids()[0])
    assert {"good": "delivered"} == {name: receipt.outcome for name, receipt in receipts.items()}


def test_after_a_reload_what_the_couriers_before_remembered_takes_no_memory(
    make_daemon: Callable[[type[BaseException]], tuple[Daemon, Store]],
) -> None:
    daemon, _ = make_daemon(ValueError)
    daemon._couriers.take_over()
    daemon._couriers.serve()
    before = [weakref.ref(courier) for courier in daemon._couriers]
    gc.collect()
    gc.disable()  # It may take days, and never sees those of the start: they are frozen.
    try:
        for _ in range(5):
            threads = [courier.thread for courier in daemon._couriers]
            daemon.take_over(daemon._settings)
            for thread in threads:
                thread.stop(timeout=10)
            daemon._couriers.serve()
            before += [weakref.ref(courier) for courier in daemon._couriers]
        assert [None] * 10 == [courier() for courier in before[:-2]]
    finally:
        gc.enable()
        daemon.end()


@pytest.mark.parametrize("reload", [False, True])
def test_a_stop_in_the_middle_of_a_batch_leaves_the_rest_to_the_next_start(
    tmp_path: Path, log_file: Path, proc_root: Path, monkeypatch: pytest.MonkeyPatch, *, reload: bool
) -> None:
    with log_file.open("a") as file:
        for hour in range(24):
            file.write(f"Nov 20 {hour:02}:05:39 web1 kernel: net_ratelimit: 3 callbacks suppressed\n")
            file.write(f"Nov 20 {hour:02}:05:39 web1 kernel: TCP: too many orphaned sockets\n")
    settings = Settings(
        source=SourceSettings(kind="file", paths=(str(log_file),), start="beginning"),
        incident=IncidentSettings(pressure=False),
    )
    store = Store(tmp_path / "state")
    os.close(store.open_for_writing())
    commit, asked = store.commit, Signals()

    def commit_and_stop(incident: Incident) -> None:
        commit(incident)
        asked.stop = len(store.ids()) >= 3
        asked.reload = asked.stop and reload

    also = replace(settings, source=replace(settings.source, paths=(str(log_file), str(tmp_path / "syslog"))))
    monkeypatch.setattr(store, "commit", commit_and_stop)
    Daemon(settings, store, asked, Outside(proc_root)).run(lambda: also)
    assert 4 == len(store.ids())

    monkeypatch.setattr(store, "commit", commit)
    run_until(Daemon(settings, store, Signals(), Outside(proc_root)), [(lambda: len(store.ids()) == 24, lambda: None)])
    assert [2] * 24 == [sum(store.load(incident_id).events.values()) for incident_id in store.ids()]


def test_lines_after_a_kill_belong_to_the_hosts_that_spoke_before_it(
    make_daemon: Callable[[type[BaseException]], tuple[Daemon, Store]], log_file: Path
) -> None:
    def run(lines: list[str]) -> Store:
        daemon, store = make_daemon(ValueError)
        daemon.begin()
        with log_file.open("a") as file:
            file.writelines(f"{datetime.now():%b %d %H:%M:%S} {line}\n" for line in lines)  # noqa: DTZ005 - a log's
        daemon.turn()
        daemon.end()
        return store

    run([f"{host} kernel: TCP: too many orphaned sockets" for host in ("db7", "db8", "web1")])
    store = run([f"{host} kernel: net_ratelimit: {n} callbacks suppressed" for host, n in (("db8", 8), ("db7", 7))])
    incidents = {incident.host: incident for incident in map(store.load, store.ids())}
    _, still_open, _ = store.newest_commit()

    assert {"db7", "db8", "web1"} == incidents.keys()
    assert {"db7": 7, "db8": 8, "web1": 0} == {each.host: each.suppressed_at_least for each in still_open}


def test_a_repeat_behind_a_kill_is_counted_though_its_incident_is_closed_and_anothers_is_newer(
    tmp_path: Path, log_file: Path, proc_root: Path
) -> None:
    settings = Settings(
        source=SourceSettings(kind="file", paths=(str(log_file),), start="beginning"),
        incident=IncidentSettings(pressure=False, quiet_seconds=60),
    )
    store = Store(tmp_path / "state")
    os.close(store.open_for_writing())
    now = datetime.now(timezone.utc)

    def run(log: str, expected: int) -> None:
        nonlocal now
        with log_file.open("a") as file:
            file.write(log)
        outside = Outside(proc_root, now=lambda: now, monotonic=lambda: now.timestamp())  # noqa: PLW0108 - now moves
        daemon = Daemon(settings, store, Signals(), outside)
        daemon.begin()
        daemon.turn()
        now += timedelta(minutes=5)
        daemon.turn()
        daemon.end()
        incidents = [store.load(each) for each in store.ids()]
        assert expected == sum(sum(each.events.values()) for each in incidents)
        assert all(each.closed_at for each in incidents)

    line = "Nov 20 03:0{} kernel: TCP: too many orphaned sockets\n"
    run("".join(line.format(each) for each in ("5:39 web1", "6:00 web2", "6:20 web1")), 3)
    run("Nov 20 03:06:21 web1 last message repeated 7 times\n", 3 + 7)


def test_the_status_counts_resets_that_only_the_trace_shows(
    make_daemon: Callable[[type[BaseException]], tuple[Daemon, Store]],
) -> None:
    daemon, _ = make_daemon(ValueError)
    zeros = dict.fromkeys(KINDS, 0)
    daemon._recorder._last = make_incident(events=zeros, first_event=None, witness=Witness(kills=86))
    assert "0 lines, 86 resets traced" in daemon.status()


def test_the_couriers_hear_of_a_silence_at_once(
    make_daemon: Callable[[type[BaseException]], tuple[Daemon, Store]], monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon, store = make_daemon(ValueError)
    daemon._couriers.take_over()
    woken: list[str] = []
    for courier in daemon._couriers:
        monkeypatch.setattr(courier.thread, "wake", lambda name=courier.name: woken.append(name))
    now = datetime.now(timezone.utc)
    for change in (
        lambda: write_silence(store.directory, Silence(since=now, until=now + timedelta(hours=1), reason="upgrade")),
        lambda: None,
        lambda: end_silence(store.directory),
    ):
        change()
        daemon._feed()

    assert ["broken", "good"] * 2 == woken


def test_metrics_that_cannot_be_written_are_no_trouble_once_they_are_turned_off(
    make_daemon: Callable[[type[BaseException]], tuple[Daemon, Store]], tmp_path: Path
) -> None:
    daemon, _ = make_daemon(ValueError)
    off = daemon._settings
    daemon.take_over(replace(off, metrics=MetricsSettings(textfile=str(tmp_path / "missing/sockmem.prom"))))
    daemon.turn()
    assert "the metrics cannot be written" in daemon.status()
    daemon.take_over(off)

    assert "the metrics cannot be written" not in daemon.status()


def test_metrics_that_are_written_elsewhere_after_a_reload_leave_nothing_open_where_they_were(
    make_daemon: Callable[[type[BaseException]], tuple[Daemon, Store]], log_file: Path, tmp_path: Path
) -> None:
    daemon, _ = make_daemon(ValueError)
    before, after = tmp_path / "before.prom", tmp_path / "after.prom"
    daemon.take_over(replace(daemon._settings, metrics=MetricsSettings(textfile=str(before))))
    daemon.begin()
    with log_file.open("a") as file:
        file.write(f"{datetime.now():%b %d %H:%M:%S} web1 kernel: TCP: too many orphaned sockets\n")  # noqa: DTZ005 - a log's
    daemon.turn()
    assert 'sockmem_incident_open{class="event"} 1' in before.read_text()
    daemon.take_over(replace(daemon._settings, metrics=MetricsSettings(textfile=str(after))))
    daemon.turn()
    daemon.end()

    # node_exporter serves what is left there for as long as it is there.
    assert 'sockmem_incident_open{class="event"} 1' in after.read_text()
    assert 'sockmem_incident_open{class="event"} 0' in before.read_text()
    assert 'sockmem_events_total{kind="too_many_orphans"} 1' in before.read_text()
    assert "sockmem_tcp_" not in before.read_text()
