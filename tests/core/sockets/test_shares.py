from typing import Any

import pytest
from material import NGINX, SHOP, make_group, make_table, tally

from agent.core.kernel.messages import detect
from agent.core.model import Holder, LogRecord
from agent.core.readings import Listener, Process
from agent.core.sockets.holder_names import guess_text, name_of
from agent.core.sockets.shares import add_up, largest, only, totals

TABLE = make_table(
    make_group(NGINX, 443, established=tally(500, 100), fin_wait1=tally(30, 4096)),
    make_group(SHOP, 80, established=tally(20, 100_000), last_ack=tally(70, 4096)),
)


def test_largest_is_by_the_kind_that_was_asked_for() -> None:
    orphans, open_sockets = largest(TABLE, only("orphaned")), largest(TABLE, only("held"))
    assert orphans
    assert open_sockets
    assert ("shop.service", 70, 100) == (orphans.name, orphans.holder.sockets, orphans.all_sockets)
    assert ("nginx.service", 500, 520) == (open_sockets.name, open_sockets.holder.sockets, open_sockets.all_sockets)


def test_largest_by_bytes_is_another() -> None:
    found = largest(TABLE, only("held"), by="bytes")
    assert found
    assert ("shop.service", 2_000_000, 2_050_000) == (found.name, found.holder.bytes, found.all_bytes)


def test_largest_of_a_kind_that_nobody_has_is_nobody() -> None:
    assert None is largest(TABLE, only("queued"))
    assert None is largest(TABLE, only("held", state="close_wait"))


def test_a_name_by_the_port_alone_is_a_guess_and_one_by_cgroup_is_none() -> None:
    listener = Listener(port=443, process=Process(pid=7, name="haproxy", cgroup="/system.slice/haproxy.service"))
    guessed = largest(make_table(make_group(None, 443, fin_wait1=tally(5)), listeners=(listener,)), only("orphaned"))
    named = largest(TABLE, only("orphaned"))
    assert guessed
    assert named
    assert ("haproxy.service", True, False) == (guessed.name, guessed.holder.guess, named.holder.guess)


def test_what_belongs_to_nobody_has_no_name() -> None:
    found = largest(make_table(make_group(None, 443, fin_wait1=tally(5))), only("orphaned"))
    assert found
    assert (None, 5) == (found.name, found.all_sockets)


def test_add_up_counts_one_kind_alone() -> None:
    assert tally(100) == add_up(TABLE, only("orphaned"))
    assert tally(70) == add_up(TABLE, only("orphaned", state="last_ack"))


def test_totals_are_the_hosts_and_never_less_than_what_was_seen() -> None:
    assert (100, 100) == totals(TABLE, None, 4096)[::2]
    assert (100, 7000) == totals(make_table(*TABLE.groups, orphan=7000), None, 4096)[::2]
    assert (100, 100) == totals(make_table(*TABLE.groups, orphan=3), None, 4096)[::2]


@pytest.mark.parametrize(
    ("holder", "name"),
    [
        ({"unit": "nginx.service"}, "nginx.service"),
        ({"unit": "nginx.service", "process": "nginx (pid 4)"}, "nginx.service"),
        ({"unit": "nginx.service", "container": "lxc web"}, "nginx.service in lxc web"),
        ({"container": "docker 9f2c9f2c9f2c", "process": "envoy (pid 4)"}, "docker 9f2c9f2c9f2c (envoy (pid 4))"),
        ({"process": "envoy (pid 4)"}, "envoy (pid 4)"),
        ({}, None),
        ({"unit": "a\u202eb\x1b[2J<!channel>"}, "a\\u202eb\\x1b[2J<!channel>"),
    ],
)
def test_a_holder_has_one_name_that_any_text_can_bear(holder: dict[str, str], name: str | None) -> None:
    assert name == name_of(Holder(sockets=1, orphans=0, bytes=0, **holder))


@pytest.mark.parametrize("words", ["TCP: too many orphaned sockets", "OUT OF SOCKET MEMORY", "9 callbacks suppressed"])
def test_a_name_with_the_kernels_words_does_not_look_like_the_kernel(words: str) -> None:
    name = name_of(Holder(unit=f"{words}", sockets=1, orphans=0, bytes=0))
    record = LogRecord(text=name or "", line=name or "", source="x", provenance="kernel", ordinal=1)
    assert None is detect(record)


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        ({"guess": True, "ports": (80, 443)}, "a guess: it serves port 80"),
        ({"guess": True}, "a guess: no cgroup says so"),
        ({"ports": (80,)}, ""),
    ],
)
def test_a_guess_is_said_with_the_port_it_rests_on(facts: dict[str, Any], text: str) -> None:
    assert text == guess_text(Holder(unit="nginx.service", sockets=1, orphans=1, bytes=0, **facts))
