"""In the machine: what a scenario does it with. Every wait has a deadline, and says what it waited for.

``act(rig)`` of a scenario runs against the installed service, with the configuration of install.py: its channels are a
webhook, Slack and Alertmanager on 127.0.0.1, and an incident is closed after a few seconds without an event.
"""

import contextlib
import json
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import host
from install import CHANNELS, CONFIG, do_without_witness, sh, take_witness
from receiver import Receiver

RUN = Path("/run/vm")
RESUME = Path("/var/lib/vm/resume")
STATE = Path("/var/lib/sockmem-agent")
UNIT = "sockmem-agent.service"
SECONDS = 200  # for one boot of a scenario; the host waits somewhat longer, so that what there is gets to it


class Rig:
    """The machine as a scenario sees it. ``note`` keeps a figure or a text for the check on the host."""

    def __init__(self, folder: Path, results: Path) -> None:
        self.folder = folder
        self.results = results
        self.notes: dict[str, object] = _read(results / "notes.json", {})
        self.earlier_posts: list[object] = _read(results / "posts.json", [])
        self.receiver: Receiver | None = None
        RUN.mkdir(exist_ok=True)

    CONFIG = CONFIG
    STATE = STATE

    def run(self, *command: str, check: bool = True, given: str | None = None) -> str:
        """Run a program and return what it printed; it must succeed unless ``check`` is off."""
        return sh(*command, check=check, given=given)

    def json(self, *command: str) -> object:
        """Run a program that prints one JSON document, and return that."""
        return json.loads(sh(*command))

    def pause(self, seconds: float) -> None:
        """Let time pass, where it is time itself that a scenario is about."""
        time.sleep(seconds)

    def note(self, name: str, value: object) -> None:
        self.notes[name] = value

    # --- the host's own files ---

    def sysctl(self, key: str, value: str) -> None:
        (Path("/proc/sys") / key.replace(".", "/")).write_text(value)

    sockstat = staticmethod(host.sockstat)
    counter = staticmethod(host.counter)
    segments = staticmethod(host.segments)
    kernel_lines = staticmethod(host.kernel_lines)
    orphans_in_inet_diag = staticmethod(host.orphans_in_inet_diag)

    # --- services ---

    def start(self, unit: str, what: str, *arguments: object, settings: tuple[str, ...] = ()) -> None:
        """Run a program of load.py in a service of its own."""
        program = self._load(unit.partition(".")[0], what, arguments)
        sh("systemd-run", "--quiet", "--collect", f"--unit={unit}", "-pLimitNOFILE=65536", *settings, *program)

    def _load(self, name: str, what: str, arguments: tuple[object, ...]) -> tuple[str, ...]:
        return ("/usr/bin/python3", str(self.folder / "load.py"), what, "--name", name, *map(str, arguments))

    def connect(
        self,
        count: int,
        *,
        service: str = "shop",
        clients: str = "phones",
        port: int = 8080,
        size: int = 110_000,
        pause: float = 0.002,
        stay: int = 0,
        manager: tuple[str, ...] = (),
        settings: tuple[str, ...] = (),
        client_settings: tuple[str, ...] | None = None,
        client_options: tuple[str, ...] = (),
    ) -> None:
        """Start a service, and so many clients that do not read; return when all are connected.

        At "send" the service queues ``size`` bytes for each; it closes one connection every ``pause`` seconds, but
        for those that ``stay``.
        ``settings`` are of its unit, and the clients' too unless they have their own; with a ``manager`` the
        service is run by that command instead, as a container is: not by systemd.
        """
        serving = ("--port", port, "--count", count, "--bytes", size, "--pause", pause, "--stay", stay)
        if manager:
            subprocess.Popen([*manager, *self._load(service, "serve", serving)], stdin=subprocess.DEVNULL)
        else:
            self.start(f"{service}.service", "serve", *serving, settings=settings)
        self.hear(service, "listening")
        where = settings if client_settings is None else client_settings
        connecting = ("--port", port, "--count", count, *client_options)
        self.start(f"{clients}.service", "clients", *connecting, settings=where)
        self.hear(service, "connected")

    def burst(self, count: int, limit: int, *, until: str = "closed", **connections: object) -> None:
        """Let a service close so many connections with data unsent where the host may keep ``limit`` orphans.

        Return when the kernel has said its line, and the service the word ``until``, if any. Some connections stay: a
        kernel that goes by a count of a moment ago may kill every single orphan, and then nobody could be named.
        """
        self.sysctl("net.ipv4.tcp_max_orphans", str(limit))
        self.connect(count, **{"stay": 20, **connections})
        service = str(connections.get("service", "shop"))
        self.tell(service, "send", then="full")
        said = len(self.kernel_lines())
        self.tell(service, "close", then=until)
        self.wait_for_lines(said + 1)

    def print_every_kill(self, limit: int) -> None:
        """Let the host keep so few orphans, and the kernel print a line for each that it kills."""
        self.sysctl("net.core.message_cost", "0")
        self.sysctl("net.ipv4.tcp_max_orphans", str(limit))
        self.sysctl("net.ipv4.tcp_mem", "200000 300000 400000")

    def provoke(self, name: str, rounds: int = 1) -> None:
        """Let the kernel kill some dozens of connections, this many times, of a service that is gone afterwards."""
        self.start(f"{name}.service", "churn", "--port", 8080, "--count", 60, "--rounds", rounds, "--bytes", 110_000)
        self.hear(name, "done", seconds=60)
        self.stop(name)

    def said(self) -> int:
        """Return how often the kernel said that it has too many orphans, as far as its ring goes back."""
        return sum("too many orphaned" in line for line in self.kernel_lines())

    def start_rsyslog(self) -> None:
        """Start rsyslog, writing the kernel's lines to /var/log/messages as Red Hat and SUSE do."""
        Path("/etc/rsyslog.d/messages.conf").write_text("kern.*  /var/log/messages\n")
        Path("/etc/systemd/system/rsyslog.service").unlink(missing_ok=True)
        sh("systemctl", "daemon-reload")
        sh("systemctl", "start", "rsyslog")

    def stop(self, *names: str) -> None:
        """End services, so that their connections go the way of a killed process's."""
        sh("systemctl", "stop", *(f"{name}.service" for name in names))

    def tell(self, name: str, word: str, then: str = "", seconds: float = 30) -> None:
        """Give a service a word, and wait until it says ``then``."""
        (RUN / f"{name}.{word}").touch()
        if then:
            self.hear(name, then, seconds)

    def hear(self, name: str, word: str, seconds: float = 30) -> None:
        """Wait until a service says a word."""
        self.wait(f"{name} says {word}", lambda: self.has_said(name, word), seconds)

    def has_said(self, name: str, word: str) -> bool:
        return (RUN / f"{name}.is-{word}").exists()

    def listen(self, *answers: int, reading: bool = True) -> Receiver:
        """Start the receiver of all channels; one that is not ``reading`` leaves connections to the kernel for now."""
        self.receiver = Receiver(answers or (200,), keep=self.keep_posts, reading=reading)
        return self.receiver

    # --- the agent ---

    def agent_pid(self) -> int:
        return int(sh("systemctl", "show", "-P", "MainPID", UNIT))

    def has_started(self) -> bool:
        """Return whether the service is ready."""
        return sh("systemctl", "is-active", UNIT, check=False).strip() == "active"

    def has_imported(self) -> bool:
        """Return whether the service has said what it follows: by then all that it imports is in memory."""
        return ": following " in sh("journalctl", "--quiet", f"_PID={self.agent_pid()}")

    def agent_memory(self) -> int:
        """Return what is resident of the agent, in bytes."""
        status = Path(f"/proc/{self.agent_pid()}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS:")).split()[1]) * 1024

    def incidents(self, state: Path = STATE) -> list[dict[str, object]]:
        """Return every incident.json, the oldest first."""
        return [json.loads(file.read_bytes()) for file in sorted(state.glob("incidents/[0-9]*/incident.json"))]

    def counted(self) -> int:
        """Return how many lines about orphans all incidents have."""
        return sum(incident["events"].get("too_many_orphans", 0) for incident in self.incidents())

    def look_as_advised(self) -> None:
        """Run the first command of the newest incident's advice that lists sockets; note it, and what it prints."""
        look = next((command for command in self._advised() if "ss -" in command), "")
        self.note("look", look)
        self.note("shown", self.run("sh", "-c", look))
        self.note("orphans_left", self.sockstat()["orphan"])

    def set_as_advised(self) -> None:
        """Run the first sysctl of the newest incident's advice."""
        self.run("sh", "-c", next(command for command in self._advised() if command.startswith("sysctl -w")))

    def _advised(self) -> list[str]:
        return [command for advice in self.incidents()[-1]["diagnosis"]["advice"] for command in advice["commands"]]

    def again(self, count: int, **connections: object) -> None:
        """Let another service close as many connections as before; what the kernel says now is noted."""
        said = len(self.kernel_lines())
        self.connect(count, service="again", clients="callers", port=8081, stay=20, **connections)
        self.tell("again", "send", then="full")
        self.note("mem_again", self.sockstat()["mem"])
        self.tell("again", "close", then="closed")
        self.pause(2)
        self.note("orphans_again", self.sockstat()["orphan"])
        self.note("lines_again", self.kernel_lines()[said:])

    def configure(self, text: str) -> None:
        """Put another configuration in place and start the service anew, as an administrator does."""
        Path("/etc/sockmem-agent/config.toml").write_text(text)
        sh("systemctl", "restart", UNIT)

    take_witness = staticmethod(take_witness)
    do_without_witness = staticmethod(do_without_witness)
    instances = staticmethod(host.instances)

    def second_agent(self, name: str, config: str) -> Path:
        """Run another agent beside the service, with a source and a state of its own; return its state directory."""
        state = Path("/var/lib") / f"agent-{name}"
        state.mkdir(mode=0o750)
        file = RUN / f"{name}.toml"
        file.write_text(config)
        sh(
            "systemd-run", "--quiet", f"--unit=agent-{name}", "--service-type=notify", "-pUMask=0027",
            f"-pSyslogIdentifier=agent-{name}", f"--setenv=STATE_DIRECTORY={state}",
            "/usr/bin/sockmem-agent", "run", "--config", str(file),
        )  # fmt: skip
        return state

    # --- waiting ---

    def wait(self, what: str, ready: Callable[[], object], seconds: float = 30) -> None:
        """Wait until something is so; fail with its name when it is not in time."""
        deadline = time.monotonic() + seconds
        while not ready():
            if time.monotonic() > deadline:
                raise AssertionError(f"not so after {seconds} s: {what}")
            time.sleep(0.05)

    def wait_for_lines(self, count: int = 1, seconds: float = 30) -> None:
        self.wait(f"{count} lines of the kernel's", lambda: len(self.kernel_lines()) >= count, seconds)

    def wait_for_posts(self, *types: str, seconds: float = 40) -> None:
        """Wait until the webhook took each of these types, and every channel all that it owes by then."""
        assert self.receiver is not None
        receiver = self.receiver
        self.wait(f"POSTs {types}, of {receiver.types()}", lambda: set(types) <= set(receiver.types()), seconds)
        self.wait("the other channels delivered it, too", lambda: not self.owed(), seconds)

    def owed(self) -> list[str]:
        """Name the receipts that are missing of what the incidents say."""
        folders = [STATE / "incidents" / str(incident["id"]) for incident in self.incidents()]
        receipts = [f / n.replace(".json", f".{c}.json") for f in folders for n in _notices(f) for c in CHANNELS]
        return [str(receipt) for receipt in receipts if not receipt.exists()]

    def wait_until_named(self, state: Path = STATE, unit: str = "", seconds: float = 30) -> None:
        """Wait until somebody, or this unit, is named who holds something; the load may go then.

        The trace names a unit before its sockets are looked at, so no other text will do.
        """

        def named() -> bool:
            holders = [holder for incident in self.incidents(state) for holder in incident["diagnosis"]["holders"]]
            held = [holder for holder in holders if holder["orphans"] or holder["bytes"]]
            return any(unit in ("", holder["unit"]) and (holder["unit"] or holder["container"]) for holder in held)

        self.wait(f"{state.name}: the holders are known", named, seconds)

    def wait_until_all_is_told(self, seconds: float = 120) -> None:
        """Wait until every incident is closed, and every notice of theirs has been taken."""

        def told() -> bool:
            incidents = self.incidents()
            return bool(incidents) and all(incident["closed_at"] for incident in incidents) and not self.owed()

        self.wait("all is told", told, seconds)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Note the highest gauges and the counters' deltas of a block."""
        before = self.counter("TCPAbortOnMemory")
        pressures = self.counter("TCPMemoryPressures")
        peaks: dict[str, int] = {}
        stop = threading.Event()

        def watch() -> None:
            while not stop.wait(0.02):
                for name, value in self.sockstat().items():
                    peaks[name] = max(value, peaks.get(name, 0))

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield
        finally:
            stop.set()
            watcher.join()
            self.note("peaks", peaks)
            self.note("killed", self.counter("TCPAbortOnMemory") - before)
            self.note("pressures", self.counter("TCPMemoryPressures") - pressures)

    def reboot(self) -> None:
        """Restart the machine; the scenario goes on with its ``after_reboot``."""
        self.keep()
        RESUME.touch()
        sh("sync")
        sh("systemctl", "--no-block", "reboot")
        time.sleep(600)

    # --- results ---

    def keep(self) -> None:
        """Write down the notes so far: a scenario may be cut off, or restart the machine."""
        (self.results / "notes.json").write_text(json.dumps(self.notes, indent=1))

    def keep_posts(self, posts: list[dict[str, object]]) -> None:
        """Write down the POSTs at each that comes, for the last may come when all else is collected."""
        (self.results / "posts.json").write_text(json.dumps([*self.earlier_posts, *posts], indent=1))

    def collect_state(self) -> None:
        """End the agents, and copy their state directories with owners and modes."""
        sh("systemctl", "stop", UNIT, "agent-*", check=False)
        for state in (STATE, *Path("/var/lib").glob("agent-*")):
            if state.exists() and not (self.results / state.name).exists():
                sh("cp", "-a", str(state), str(self.results))

    def collect(self) -> None:
        """Leave for the host all that a person would look at: state directories, the journal, POSTs, the notes."""
        self.write("status.txt", "systemctl", "status", "--no-pager", "-l", UNIT)
        self.write("sockets.txt", "ss", "-tanmoe", "--cgroup")
        self.note("restarts", int(sh("systemctl", "show", "-P", "NRestarts", UNIT).strip() or 0))
        self.collect_state()
        self.note("kernel_lines", self.kernel_lines())
        self.keep()
        self.write("journal.txt", "journalctl", "--no-pager", "-o", "short-precise", "-b", "all")
        self.write("dmesg.txt", "dmesg")

    def write(self, name: str, *command: str) -> None:
        """Put what a program prints into the results; the end of it, if that is much."""
        (self.results / name).write_text(sh(*command, check=False)[-400_000:])


def _notices(folder: Path) -> list[str]:
    return list(json.loads((folder / "incident.json").read_bytes())["notices"])


def _read(file: Path, otherwise: object) -> object:
    return json.loads(file.read_text()) if file.exists() else otherwise


def _give_up(*_: object) -> None:
    raise AssertionError("the scenario was not over in its time")


def run(scenario: object, folder: Path, results: Path) -> None:
    """Let a scenario act, and collect whether it succeeded or not."""
    rig = Rig(folder, results)
    again = RESUME.exists()
    RESUME.unlink(missing_ok=True)
    signal.signal(signal.SIGALRM, _give_up)
    signal.alarm(getattr(scenario, "SECONDS", SECONDS))
    try:
        if again:
            scenario.after_reboot(rig)
        else:
            scenario.act(rig)
    finally:
        signal.alarm(0)
        rig.collect()
