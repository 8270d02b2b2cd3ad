import shlex

import pytest
from material import NGINX, PATHS, SHOP, make_event, make_group, make_sample, make_snapshot, make_table, tally

from agent.core.advice import main_holder
from agent.core.diagnosis.diagnose import diagnose
from agent.core.diagnosis.rules_cause import HOLDER_RULES, apply_rules
from agent.core.facts import gather_facts
from agent.core.model import Advice, Diagnosis, Holder, Sample, Witness, WitnessedBy
from agent.core.readings import Listener, Process, SocketTable
from agent.core.sockets.holder_names import LargestHolder

MB = 1 << 20


def judged(table: SocketTable, text: str = "orphans", history: tuple[Sample, ...] = ()) -> Diagnosis:
    mem = 390_000 if text == "tcp_memory" else 9000
    return diagnose(make_snapshot(orphan=65600, mem=mem, sockets=table), (make_event(text),), history)


def first(table: SocketTable, text: str = "orphans", history: tuple[Sample, ...] = ()) -> Advice:
    return judged(table, text, history).advice[0]


def orphans_of(path: str, cgroup: int = 77) -> SocketTable:
    return make_table(make_group(cgroup, 443, fin_wait1=tally(60_000)), paths=PATHS | {77: path})


def test_who_holds_most_orphans_is_named_with_port_and_settings() -> None:
    step = first(make_table(make_group(fin_wait1=tally(12_345)), make_group(SHOP, 80, last_ack=tally(4045))))
    assert "Fix nginx.service: it holds 12,345 of 16,390 orphans on port 443." == step.action
    assert "reset_timedout_connection" in step.why
    assert "systemctl status --no-pager -- nginx.service" in step.commands
    assert any(command.startswith("nstat -az TcpExtTCPAbortOnMemory") for command in step.commands)


def test_the_ports_are_those_of_what_is_short_alone() -> None:
    orphans, held = make_group(fin_wait1=tally(60_000)), make_group(NGINX, 80, established=tally(300, 4 * MB))
    assert first(make_table(orphans, held)).action.endswith(" orphans on port 443.")
    assert first(make_table(orphans, held), "tcp_memory").action.endswith(" in 60,300 sockets on ports 80, 443.")


def test_the_command_lists_the_states_that_the_orphans_on_its_port_are_in() -> None:
    others = make_group(SHOP, 80, closing=tally(9))
    step = first(make_table(make_group(fin_wait2=tally(60_000), last_ack=tally(70_000), fin_wait1=tally(0)), others))
    assert "ss -tanoem state last-ack state fin-wait-2 '( sport = :443 )' | head -20" in step.commands


def test_the_ports_are_those_of_what_is_short_though_somebody_has_more_of_the_other() -> None:
    fat, held = make_group(SHOP, 90, fin_wait1=tally(10, 900 * MB)), make_group(NGINX, 80, established=tally(300))
    orphans = make_table(make_group(fin_wait1=tally(60_000)), fat, held)
    assert first(orphans).action.endswith(" orphans on port 443.")
    thin, waiting = (
        make_group(SHOP, 90, last_ack=tally(9000)),
        make_group(NGINX, 80, queued={"established": tally(300, 4 * MB)}),
    )
    memory = make_table(make_group(NGINX, 443, established=tally(5, 4 * MB)), thin, waiting)
    assert first(memory, "tcp_memory").action.endswith(" of TCP memory in 305 sockets on ports 80, 443.")


@pytest.mark.parametrize(("limit", "is_named"), [(0, False), (1, True)])
def test_nobody_is_blamed_where_no_orphan_is_allowed(limit: int, *, is_named: bool) -> None:
    snapshot = make_snapshot(orphan=9000, max_orphans=limit, sockets=make_table(make_group(fin_wait1=tally(9000))))
    advice = diagnose(snapshot, (make_event(),), ()).advice
    assert is_named == any(step.action.startswith("Fix nginx.service") for step in advice)


def test_a_restart_is_not_said_to_free_what_waits_for_slow_peers() -> None:
    main = LargestHolder(
        "tcp_memory", "shop.service", Holder(sockets=9, bytes=9, orphans=0), held=9, total=9, is_main=True
    )
    leak, slow = "one_owner_leaks_connections", "peers_take_data_slowly"
    assert "frees their memory at once" in main_holder._restart_text(main, frozenset({leak}), "for a minute")
    for seen in ({slow}, {leak, slow}):
        text = main_holder._restart_text(main, frozenset(seen), "for a minute")
        assert "A restart drops its open connections; the memory stays in orphans for a minute." == text


def test_three_ports_are_named_and_of_more_that_there_are_others() -> None:
    assert " on ports 1, 2, 3" == main_holder._ports_text((1, 2, 3))
    assert " on ports 1, 2, 3 and others" == main_holder._ports_text((1, 2, 3, 4))


def test_who_holds_most_memory_is_named_with_its_bytes() -> None:
    table = make_table(make_group(SHOP, 80, established=tally(300, 4 * MB)), make_group(established=tally(9000)))
    assert "Fix shop.service: it holds 1.2 GiB of 1.2 GiB of TCP memory in 300 sockets on port 80." == (
        first(table, "tcp_memory").action
    )


@pytest.mark.parametrize(
    "table",
    [
        make_table(*(make_group(each, 80, fin_wait1=tally(5000)) for each in (NGINX, SHOP, 77))),
        make_table(make_group(fin_wait1=tally(5000)), orphan=65_600),
        make_table(make_group(None, 443, fin_wait1=tally(5000))),
        make_table(),
    ],
    ids=["a third each", "most out of sight", "nobody named", "empty"],
)
def test_nobody_is_blamed_who_is_not_known_to_hold_half(table: SocketTable) -> None:
    assert first(table).action.startswith("List the orphaned sockets")


def test_nobody_is_blamed_for_the_few_orphans_that_are_left_when_a_burst_is_over() -> None:
    left, many = (make_table(make_group(fin_wait1=tally(number))) for number in (2047, 2048))
    assert first(left).action.startswith("List the orphaned sockets")
    assert "nginx.service: it holds 2,048 of 2,048" in first(many).action


def test_a_guess_is_told_as_one() -> None:
    listener = Listener(port=443, process=Process(pid=7, name="haproxy", cgroup="/system.slice/haproxy.service"))
    step = first(make_table(make_group(None, 443, fin_wait1=tally(5000)), listeners=(listener,)))
    assert step.action.startswith("Fix haproxy.service (a guess: it serves port 443): it holds")
    assert "a guess" in step.why
    assert "a guess" not in first(make_table(make_group(fin_wait1=tally(5000)))).why


@pytest.mark.parametrize(
    "name",
    [
        "$(reboot).service",
        "x;reboot;.service",
        "`id`.service",
        "a b.service",
        "'\"'.service",
        "-H evil.service",
        "caf\u00e9.service",
    ],
)
def test_no_name_gets_into_a_shell_that_systemd_would_not_take(name: str) -> None:
    step = first(orphans_of(f"/system.slice/{name}"))
    assert step.action.startswith("Fix ")
    assert not any("systemctl" in command for command in step.commands)
    assert not any(part in " ".join(step.commands) for part in ("reboot", "id`", "evil"))


@pytest.mark.parametrize(
    ("name", "shown"), [("a\\x2db.service", "a\\x2db.service"), ("a\nb.service", "a\\x0ab.service")]
)
def test_an_escaped_unit_name_is_quoted(name: str, shown: str) -> None:
    step = first(orphans_of(f"/system.slice/{name}"))
    command = next(each for each in step.commands if "systemctl" in each)
    assert shown == shlex.split(command)[-1]
    assert "\n" not in command


def test_what_was_seen_of_it_is_said_of_it_alone() -> None:
    stalled = make_table(make_group(fin_wait1=tally(5000, probing=4000)), make_group(SHOP, 80, close_wait=tally(900)))
    assert "stopped reading" in first(stalled).why
    assert "CLOSE-WAIT" not in first(stalled).why


def test_a_leak_is_said_where_the_memory_grew_slowly() -> None:
    history = (make_sample(3600, mem=1000), make_sample(1200, mem=180_000))
    table = make_table(make_group(SHOP, None, close_wait=tally(900, 2 * MB, rmem_bytes=1800 * MB)), mem=390_000)
    why = first(table, "tcp_memory", history).why
    assert "only a restart frees them" in why
    assert "like a leak" in why


def test_a_burst_is_said_where_the_orphans_came_at_once() -> None:
    table = make_table(make_group(fin_wait1=tally(60_000)))
    assert "small batches" in first(table, history=(make_sample(10, orphan=50),)).why
    assert "small batches" not in first(table).why


def test_the_limits_come_after_the_main_holder() -> None:
    steps = judged(make_table(make_group(fin_wait1=tally(60_000)))).advice
    assert [True, False] == [steps[0].action.startswith("Fix nginx"), steps[0].sysctl is not None]
    assert any(each.sysctl and each.sysctl.key == "net.ipv4.tcp_max_orphans" for each in steps[1:])


def test_a_full_memory_of_orphans_names_who_orphaned_them_and_leaves_their_limit_alone() -> None:
    table = make_table(make_group(fin_wait1=tally(800, 2 * MB)), make_group(SHOP, 80, established=tally(100)))
    diagnosis = diagnose(make_snapshot(orphan=800, mem=390_000, sockets=table), (make_event("tcp_memory"),), ())
    assert "Fix nginx.service: it holds 800 of 800 orphans on port 443." == diagnosis.advice[0].action
    assert not any(each.sysctl and "orphans" in each.sysctl.key for each in diagnosis.advice)


@pytest.mark.parametrize(
    ("text", "orphan_bytes", "named"),
    [
        ("tcp_memory", 4096, {"tcp_memory"}),
        ("tcp_memory", 2 * MB, {"orphans", "tcp_memory"}),
        ("orphans", 2 * MB, {"tcp_memory"}),
    ],
    ids=["they fill nothing", "they fill the memory", "their limit ran out"],
)
def test_a_few_orphans_have_a_main_holder_where_they_fill_the_memory_alone(
    text: str, orphan_bytes: int, named: set[str]
) -> None:
    table = make_table(make_group(fin_wait1=tally(800, orphan_bytes)), make_group(SHOP, 80, established=tally(60, MB)))
    events = (make_event(text),)
    facts = gather_facts(make_snapshot(orphan=800, mem=390_000, sockets=table), events, ())
    assert named == set(main_holder.find_main_holders(facts, apply_rules(facts)))


def test_the_price_of_an_orphan_is_measured_at_orphans() -> None:
    table = make_table(make_group(fin_wait1=tally(60_000, 5000)))
    step = next(each for each in judged(table).advice if each.sysctl and "max_orphans" in each.sysctl.key)
    assert "at 4.9 KiB a socket, measured here on 60,000" in step.risk


def test_what_is_said_of_a_main_holder_is_what_a_rule_can_claim() -> None:
    assert set() == set(main_holder._SEEN) - {rule.__name__ for rule in HOLDER_RULES}


def traced(kills: int, total: int, **by: object) -> Witness:
    mine = WitnessedBy(**({"unit": "nginx.service", "process": "nginx", "kills": kills, "ports": (443,)} | by))
    return Witness(kills=total, by=(mine, *([WitnessedBy(kills=total - kills)] if total > kills else [])))


def advised(witness: Witness, table: SocketTable) -> Advice:
    return diagnose(make_snapshot(orphan=65600, sockets=table), (make_event(),), (), witness).advice[0]


def test_who_was_reset_is_named_where_the_dump_came_too_late() -> None:
    step = advised(traced(86, 90), make_table())
    assert "Fix nginx.service: 86 of 90 connections that the kernel reset were its own on port 443." == step.action
    assert "reset_timedout_connection" in step.why
    assert "systemctl status --no-pager -- nginx.service" in step.commands


def test_who_was_reset_is_advised_to_be_fixed_whichever_limit_it_was() -> None:
    found = diagnose(make_snapshot(), (), (), traced(86, 90))
    assert "undetermined" == found.cause
    assert found.advice[0].action.startswith("Fix nginx.service: 86 of 90")
    assert "in the message" not in found.advice[1].why


def test_resets_are_counted_where_the_dump_shows_none_in_every_namespace() -> None:
    commands = advised(traced(86, 90), make_table()).commands
    assert [True] == ["lsns -t net" in each for each in commands if "TCPAbortOnMemory" in each]


def test_who_was_reset_a_few_times_or_half_of_all_is_not_advised_to_be_fixed() -> None:
    for witness in (traced(15, 15), traced(45, 90)):
        assert not advised(witness, make_table()).action.startswith("Fix nginx")


def test_who_holds_comes_before_who_was_reset_and_both_are_named() -> None:
    table = make_table(make_group(SHOP, 80, last_ack=tally(60_000)))
    found = diagnose(make_snapshot(orphan=65600, sockets=table), (make_event(),), (), traced(86, 90))
    assert found.advice[0].action.startswith("Fix shop.service")
    assert "shop.service holds" in found.summary
    assert "86 of nginx.service (port 443), seen by the trace" in found.summary
