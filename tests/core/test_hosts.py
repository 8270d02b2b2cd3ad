import pytest

from agent.core.hosts import may_be_same, other_host

CONTAINER = "3f2a9c1be07d"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("web-7", "web-7"),
        ("web-7", "WEB-7.Example.org."),
        ("web-7.local", "web-7.example.org"),
        ("web-7.localdomain", "web-7"),
        ("localhost", "web-7"),
        ("localhost.localdomain", "web-7"),
        ("localhost4", "web-7"),
        ("127.0.1.1", "web-7"),
        ("::1", "web-7"),
        ("(none)", "web-7"),
        (CONTAINER, "web-7"),
        (CONTAINER + 52 * "a", "web-7"),
        (None, "web-7"),
        ("", "web-7"),
        ("10.0.0.7", "10.0.0.7"),
    ],
)
def test_forms_of_one_name_are_one_host(one: str | None, other: str) -> None:
    assert may_be_same(one, other)
    assert may_be_same(other, one)
    assert other_host(one, other) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("web-7", "web-70"),
        ("web-7", "db-7.example.org"),
        ("web-7.fra.example.org", "web-7.ams.example.org"),
        ("10.0.0.7", "10.0.0.70"),
        ("10.0.0.7", "web-7"),
        ("10", "100.0.0.7"),
        ("2001:db8::7", "2001:db8::8"),
        ("example", "web-7.example"),
        ("cafe", "web-7"),
    ],
)
def test_other_names_are_other_hosts(one: str, other: str) -> None:
    assert not may_be_same(one, other)
    assert one == other_host(one, other)
