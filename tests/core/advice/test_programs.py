import pytest

from agent.core.advice.programs import PROGRAMS, find_program


@pytest.mark.parametrize(
    ("unit", "process", "name"),
    [
        ("nginx.service", None, "nginx"),
        ("nginx@edge.service", None, "nginx"),
        ("my-nginx.service", None, "nginx"),
        ("nginx.service (user 1000)", None, "nginx"),
        ("openresty.service", None, "nginx"),
        ("haproxy.service", None, "haproxy"),
        ("varnish.service", None, "Varnish"),
        ("cache.service", "cache-main (pid 9)", "Varnish"),
        ("tomcat9.service", "java (pid 4)", "Tomcat"),
        (None, "envoy (pid 31), envoy (pid 32)", "Envoy"),
        ("web.service", "sh (pid 3), haproxy (pid 4)", "haproxy"),
        ("nginx-exporter.service", None, None),
        ("nginxed.service", None, None),
        ("x.nginxservice", None, None),
        ("shop.service", "notnginx (pid 3)", None),
        ("shop.service", "nginx;reboot (pid 3)", None),
        (None, None, None),
        ("", "", None),
    ],
)
def test_a_program_is_known_by_a_whole_word(unit: str | None, process: str | None, name: str | None) -> None:
    found = find_program(unit, process)
    assert name == (found and found.name)


def test_a_process_outranks_the_word_of_a_unit() -> None:
    found = find_program("nginx-and-envoy.service", "envoy (pid 4)")
    assert found
    assert "Envoy" == found.name


def test_every_program_says_its_settings_its_price_and_how_to_see_them() -> None:
    assert 5 == len(PROGRAMS)
    assert all(each.orphans and each.memory and each.price and each.commands for each in PROGRAMS)
