"""Write docs/kernels.md from the results of the runs: what each kernel said and showed. `make docs/kernels.md`

usage: kernels_page.py RESULTS
"""

import sys
from pathlib import Path

import vm_apt
from vm_found import Found, Json, scenario_named

from agent.core.sockets.holder_names import LOSES

SCENARIOS = {
    "orphans": "too many orphans",
    "penalised": "penalised orphans (half of the limit)",
    "penalised_twice": "orphans that count fourfold (a quarter of the limit)",
    "memory": "too much TCP memory",
}
HEAD = """\
# What real kernels log and show

`make docs/kernels.md` generates this page from runs of the package in booted machines (`make vm-test`: Debian's cloud
kernels under QEMU without KVM). Each scenario makes the kernel log its message with real sockets; tests/vm/scenarios
shows how.

*At the line* is sockstat in the agent's first snapshot, with the time from the kernel's own stamp of the first line to
the snapshot; under this emulation everything takes about ten times as long as on real hardware. *Highest* is the
highest reading of a process that read sockstat every 20 ms until just after the first line; *killed* is how far
TCPAbortOnMemory rose until then. A kernel that cannot produce a scenario is omitted from its table.
"""
SECTION = """\
## {title}

| kernel | `tcp_max_orphans` | `tcp_mem` | at the line | highest | killed | TCPMemoryPressures | verdict | named first |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
{rows}

The first line, as /dev/kmsg has it (priority, sequence, microseconds since boot, flags; text), and how many there were:

{lines}

One of the orphans, as inet_diag shows it (`ss -tanmoe --cgroup`):

{sockets}
"""
SILENCE = """\
## Silence

Receivers do not read while `tcp_mem` is 3000 4500 6000 and nothing closes: no kernel logs anything. *Refused* is how
many segments the kernel refused until the end of the run, *warned after* the time from the first refusal to the POST.

| kernel | mem at the warning | refused | warned after | warning | named first | loses data |
| --- | --- | --- | --- | --- | --- | --- |
{rows}
"""


def main() -> None:
    results = Path(sys.argv[1])
    sys.stdout.write(f"{HEAD}\n")
    for scenario, title in SCENARIOS.items():
        sys.stdout.write(f"{section(title, results_of(results, scenario))}\n")
    sys.stdout.write(silence(results_of(results, "silent")))


def results_of(results: Path, scenario: str) -> dict[str, Found]:
    """Return what a scenario left on each kernel that can do it; one that left nothing good ends the program."""
    cannot = getattr(scenario_named(scenario), "CANNOT", {})
    found = {k: Found(results / k / scenario) for k in vm_apt.KERNELS if k not in cannot}
    missing = [kernel for kernel, one in found.items() if not one.incidents or (one.folder / "error.txt").exists()]
    if missing:
        sys.exit(f"{results}: no good result of {scenario} on {', '.join(missing)}; run make vm-test")
    return found


def section(title: str, found: dict[str, Found]) -> str:
    return SECTION.format(
        title=title[0].upper() + title[1:],
        rows="\n".join(row(kernel, one) for kernel, one in found.items()),
        lines=listing({kernel: said(one) for kernel, one in found.items()}),
        sockets=listing({kernel: (one.notes["inet_diag"] or ["(none was left)"])[0] for kernel, one in found.items()}),
    )


def row(kernel: str, one: Found) -> str:
    incident = one.the_incident()
    first = one.snapshots(incident)[0]
    tcp, peaks = first["sockstat"]["tcp"], one.notes["peaks"]
    named, mechanism = one.first_named(incident), incident["diagnosis"]["mechanism"]
    cells = (
        f"{kernel} ({first['kernel']})",
        mechanism["tcp_max_orphans"],
        " ".join(map(str, mechanism["tcp_mem_pages"])),
        f"orphan {tcp['orphan']}, mem {tcp['mem']}, after {delay(one, first):.0f} ms",
        f"orphan {peaks['orphan']}, mem {peaks['mem']}",
        one.notes["killed"],
        f"+{one.notes['pressures']}",
        ", ".join(one.verdict(incident)),
        named["unit"] or named["container"],
    )
    return f"| {' | '.join(map(str, cells))} |"


def silence(found: dict[str, Found]) -> str:
    return SILENCE.format(rows="\n".join(silent_row(kernel, one) for kernel, one in found.items()))


def silent_row(kernel: str, one: Found) -> str:
    incident = one.the_incident("pressure")
    first = one.snapshots(incident)[0]
    lost = [f for f in incident["diagnosis"]["findings"] if f["claim"] == "sockets_lose_data"]
    losers = [each["value"] for finding in lost for each in finding["evidence"] if each["name"] == LOSES]
    cells = (
        f"{kernel} ({first['kernel']})",
        first["sockstat"]["tcp"]["mem"],
        one.notes["refused"],
        f"{one.posts[0]['at'] - one.notes['refused_at']:.0f} s",
        f"level {incident['pressure']['level']}, {incident['pressure']['claim']}",
        one.first_named(incident)["unit"],
        ", ".join(losers),
    )
    return f"| {' | '.join(map(str, cells))} |"


def delay(one: Found, snapshot: Json) -> float:
    """Return the milliseconds from the kernel's stamp of the first line to the snapshot; both count from boot."""
    stamp = int(one.notes["kernel_lines"][0].split(",")[2]) / 1e6
    return (snapshot["uptime_seconds"] - stamp) * 1000


def said(one: Found) -> str:
    lines = one.notes["kernel_lines"]
    return f"{lines[0]}    ({len(lines)} {'line' if len(lines) == 1 else 'lines'})"


def listing(texts: dict[str, str]) -> str:
    return "```\n" + "\n".join(f"{kernel:>5}  {' '.join(text.split())}" for kernel, text in texts.items()) + "\n```"


if __name__ == "__main__":
    main()
