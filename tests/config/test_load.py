import os
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.config import load as config
from agent.config.load import ConfigError, channels, load, load_store, mask_url, masked, state_directory
from agent.core.settings import (
    AlertmanagerSettings,
    Settings,
    SlackSettings,
    StdoutSettings,
    StoreSettings,
    WebhookSettings,
)

SECRET = "T0000/B0000/XXXXverysecretXXXX"
SLACK_URL = f"https://hooks.slack.com/services/{SECRET}"
NOT_QUOTED = " (not shown: it may be a secret)"
NAME_RULE = "must be 1 to 32 of a-z, 0-9, - and _, beginning with a letter or digit"
TYPES = ("slack", "webhook", "alertmanager", "pagerduty", "command", "email", "journal", "stdout")
TYPE_RULE = "must be one of " + ", ".join(f'"{kind}"' for kind in TYPES)

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_config(text: str | bytes, name: str = "config.toml") -> Path:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write_config


def errors(path: Path, environ: dict[str, str] | None = None) -> list[str]:
    """Load what is wrong, and return what is said without the name of the file."""
    with pytest.raises(ConfigError) as caught:
        load(path, environ or {})
    assert all(line.startswith(f"{path}: ") and "\n" not in line for line in caught.value.errors)
    return [line.removeprefix(f"{path}: ") for line in caught.value.errors]


# --- what is right ----------------------------------------------------------------------------------------------------


def test_a_sound_file_loads_nothing_that_only_hints_need(write: Write) -> None:
    path = write('[incident]\nquiet_seconds = 300\n\n[[notify]]\nname = "out"\ntype = "stdout"\n')
    code = f"import sys, pathlib, agent.config.load as c; c.load(pathlib.Path({str(path)!r}), {{}})"
    program = [sys.executable, "-c", f"{code}; print('difflib' in sys.modules)"]
    assert "False\n" == subprocess.run(program, stdout=subprocess.PIPE, text=True, check=True).stdout


def test_an_empty_file_gives_the_defaults(write: Write) -> None:
    settings = load(write(""), {})

    assert settings.source == Settings().source
    assert settings.incident == Settings().incident
    assert () == settings.notify
    assert settings.store == StoreSettings(directory="")


def test_no_file_gives_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Write) -> None:
    monkeypatch.setattr(config, "DEFAULT_PATH", tmp_path / "none.toml")

    assert load(write(""), {}) == load(None, {})


def test_the_systems_file_is_read_when_no_other_is_named(monkeypatch: pytest.MonkeyPatch, write: Write) -> None:
    monkeypatch.setattr(config, "DEFAULT_PATH", write("[incident]\nquiet_seconds = 7\n"))

    assert 7 == load(None, {}).incident.quiet_seconds


def test_a_whole_configuration_is_read(write: Write) -> None:
    path = write(f"""
        [source]
        kind = "file"
        paths = ["/var/log/messages", "/srv/log/kern.log"]
        start = "beginning"
        [store]
        directory = "/srv/state"
        keep_days = 3
        [incident]
        quiet_seconds = 60
        [[notify]]
        name = "ops"
        type = "slack"
        url = "{SLACK_URL}"
        [[notify]]
        name = "am"
        type = "alertmanager"
        urls = ["http://127.0.0.1:9093", "http://[::1]:9093/am"]
        severity = "critical"
        [[notify]]
        name = "terminal"
        type = "stdout"
    """)

    settings = load(path, {})

    assert ("/var/log/messages", "/srv/log/kern.log") == settings.source.paths
    assert ("file", "beginning") == (settings.source.kind, settings.source.start)
    assert settings.store == StoreSettings(directory="/srv/state", keep_days=3)
    assert 60 == settings.incident.quiet_seconds
    assert settings.notify == (
        SlackSettings(name="ops", url=SLACK_URL),
        AlertmanagerSettings(
            name="am",
            urls=("http://127.0.0.1:9093", "http://[::1]:9093/am"),
            severity="critical",
        ),
        StdoutSettings(name="terminal"),
    )


def test_keys_at_their_empty_defaults_are_as_good_as_absent(write: Write) -> None:
    path = write(f'[[notify]]\nname="h"\ntype="webhook"\nurl="{SLACK_URL}"\nurl_file=""\nsecret_file=""\n')

    assert load(path, {}).notify == (WebhookSettings(name="h", url=SLACK_URL),)


def test_a_byte_order_mark_and_crlf_are_no_mistakes(write: Write) -> None:
    assert 5 == load(write(b"\xef\xbb\xbf[incident]\r\nquiet_seconds = 5\r\n"), {}).incident.quiet_seconds


@pytest.mark.parametrize("value", ["${CREDENTIALS_DIRECTORY}/ops-url", "$CREDENTIALS_DIRECTORY/ops-url"])
def test_url_file_is_found_among_the_credentials_and_read(write: Write, tmp_path: Path, value: str) -> None:
    write(f"  {SLACK_URL}\n\n", "ops-url")
    path = write(f'[[notify]]\nname = "ops"\ntype = "slack"\nurl_file = "{value}"\n')

    channel = load(path, {"CREDENTIALS_DIRECTORY": str(tmp_path)}).notify[0]

    assert (channel.url, channel.url_file) == (SLACK_URL, str(tmp_path / "ops-url"))


def test_other_variables_are_not_expanded(write: Write, tmp_path: Path) -> None:
    write(SLACK_URL, "$HOME")
    path = write(f'[[notify]]\nname = "ops"\ntype = "slack"\nurl_file = "{tmp_path}/$HOME"\n')

    assert SLACK_URL == load(path, {"HOME": "/root"}).notify[0].url


def test_secret_file_is_checked_and_its_path_kept(write: Write, tmp_path: Path) -> None:
    write("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n", "secret")
    path = write(
        '[[notify]]\nname="h"\ntype="webhook"\nurl="https://h.example/x"\n'
        'secret_file="${CREDENTIALS_DIRECTORY}/secret"\n'
    )

    channel = load(path, {"CREDENTIALS_DIRECTORY": str(tmp_path)}).notify[0]

    assert channel.secret_file == str(tmp_path / "secret")


def test_load_store_needs_no_secrets(write: Write) -> None:
    path = write('[store]\nkeep_count = 5\n[[notify]]\nname="o"\ntype="slack"\nurl_file="$CREDENTIALS_DIRECTORY/x"\n')

    assert load_store(path) == StoreSettings(directory="", keep_count=5)


def test_load_store_tells_what_is_wrong_in_its_own_table(write: Write) -> None:
    path = write("[store]\nkeep_count = 0\n[incident]\nquiet_seconds = 0\n")

    with pytest.raises(ConfigError) as caught:
        load_store(path)

    assert [
        f"{path}: [store]: key `keep_count` must be a whole number, 1 to 1000000 incidents, not 0"
    ] == caught.value.errors


# --- what is wrong ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "[incident]\nquiet_secnds = 1",
            "[incident]: key `quiet_secnds` is unknown; did you mean `quiet_seconds`?",
        ),
        ("[incident]\nfoo = 1", "[incident]: key `foo` is unknown; known: `quiet_seconds`, `pressure`, `claimed`"),
        ("[soruce]\nkind = 'file'", "unknown table `soruce`; did you mean [source]?"),
        ("kind = 'file'", "key `kind` is outside its table; move it below [source]"),
        (
            "verbose = true",
            "unknown key `verbose`; only tables are allowed here: [source], [store], [incident], [metrics], [[notify]]",
        ),
        (
            "[source]\nkind = 'fil'",
            '[source]: key `kind` must be one of "auto", "file", "journal", "kmsg", not "fil"',
        ),
        ("[source]\nkind = 3", '[source]: key `kind` must be one of "auto", "file", "journal", "kmsg", not 3'),
        ("[source]\npaths = '/x'", '[source]: key `paths` must be a list of strings, such as ["…", "…"], not a string'),
        (
            "[source]\npaths = []",
            '[source]: key `paths` must be a list of strings, such as ["…", "…"], not an empty list',
        ),
        ("[incident]\npressure = 1", "[incident]: key `pressure` must be true or false, not 1"),
        (
            "[source]\npaths = ['/x', 'log']",
            "[source]: key `paths`, entry 2, needs an absolute path, one that begins with /, not `log`",
        ),
        (
            "[source]\npaths = ['']",
            "[source]: key `paths`, entry 1, needs an absolute path, one that begins with /, not ``",
        ),
        (
            "[source]\ndirectory = 'x'",
            "[source]: key `directory` needs an absolute path, one that begins with /, not `x`",
        ),
        (
            '[store]\ndirectory = "x\\u001b"',
            "[store]: key `directory` needs an absolute path, one that begins with /, not `x\\x1b`",
        ),
        (
            "[incident]\nquiet_seconds = 0",
            "[incident]: key `quiet_seconds` must be a whole number, 1 to 86400 seconds, not 0",
        ),
        (
            "[incident]\nquiet_seconds = 86401",
            "[incident]: key `quiet_seconds` must be a whole number, 1 to 86400 seconds, not 86401",
        ),
        (
            "[incident]\nquiet_seconds = '5m'",
            "[incident]: key `quiet_seconds` must be a whole number, 1 to 86400 seconds, not a string",
        ),
        (
            "[incident]\nquiet_seconds = true",
            "[incident]: key `quiet_seconds` must be a whole number, 1 to 86400 seconds, not true",
        ),
        (
            "[incident]\nquiet_seconds = 1.5",
            "[incident]: key `quiet_seconds` must be a whole number, 1 to 86400 seconds, not 1.5",
        ),
        (
            "[incident]\nquiet_seconds = 2026-11-22",
            "[incident]: key `quiet_seconds` must be a whole number, 1 to 86400 seconds, not a date or time",
        ),
        ("[store]\nkeep_days = 0", "[store]: key `keep_days` must be a whole number, 1 to 36500 days, not 0"),
        (
            "[store]\nkeep_bytes = -1",
            "[store]: key `keep_bytes` must be a whole number, 1 to 4611686018427387904 bytes, not -1",
        ),
        ("incident = 3", "[incident]: must be a table: once, in single brackets, with its keys below"),
        ("[[source]]", "[source]: must be a table: once, in single brackets, with its keys below"),
        ("[notify]\nname='x'", "[[notify]]: needs two brackets on each side, once per channel"),
        ("notify = ['x']", "[[notify]]: needs two brackets on each side, once per channel"),
        (
            "[[notify]]\ntype = 'stdout'",
            f"[[notify]] #1: key `name` is missing; it {NAME_RULE}",
        ),
        (
            "[[notify]]\nname = 'a'",
            f"[[notify]] #1 (a): key `type` is missing; it {TYPE_RULE}",
        ),
        (
            "[[notify]]\nname = 'a'\ntype = 'slak'\nurl = 'http://h/'",
            f'[[notify]] #1 (a): key `type` {TYPE_RULE}, not "slak"',
        ),
        (
            "[[notify]]\nname = 'a'\ntype = 'slak'\nurl_file = '/does/not/exist'",
            f"""[[notify]] #1 (a): key `type` {TYPE_RULE}, not "slak"
[[notify]] #1 (a): key `url_file`: `/does/not/exist` cannot be read: No such file or directory""",
        ),
        (
            "[[notify]]\nname = 'a'\ntype = 'slak'\nulrs = []",
            f"""[[notify]] #1 (a): key `type` {TYPE_RULE}, not "slak"
[[notify]] #1 (a): key `ulrs` is unknown; did you mean `urls`?""",
        ),
        (
            "[[notify]]\nname = 'a/b'\ntype = 'stdout'",
            f"[[notify]] #1: key `name` {NAME_RULE}{NOT_QUOTED}",
        ),
        (
            '[[notify]]\nname = "a\\n"\ntype = "stdout"',
            f"[[notify]] #1: key `name` {NAME_RULE}{NOT_QUOTED}",
        ),
        (
            "[[notify]]\nname = 'a'\ntype = 'stdout'\n[[notify]]\nname = 'a'\ntype = 'stdout'",
            "[[notify]] #2 (a): key `name` must be unique; #1 already has this name",
        ),
        (
            "[[notify]]\nname = 'a'\ntype = 'stdout'\ngive_up_after = 59",
            "[[notify]] #1 (a): key `give_up_after` must be a whole number, 60 to 31536000 seconds, not 59",
        ),
        (
            "[[notify]]\nname = 'a'\ntype = 'stdout'\nurl = 'http://h/'",
            """[[notify]] #1 (a): key `url` is not for type stdout; known: `name`, `severity`, `runbook_url`, \
`updates`, `resolved`, `reminders`, `give_up_after`""",
        ),
        (
            "[[notify]]\nname = 'a'\ntype = 'slack'",
            "[[notify]] #1 (a): type slack needs exactly one of `url` and `url_file`",
        ),
        (
            "[[notify]]\nname = 'a'\ntype = 'alertmanager'",
            "[[notify]] #1 (a): type alertmanager needs exactly one of `urls` and `urls_file`",
        ),
        (
            "[[notify]]\nname = 'a'\ntype = 'alertmanager'\nurls = ['http://h']\nupdates = true\ngive_up_after = 60",
            """[[notify]] #1 (a): key `updates` is for message channels; type alertmanager shows the state: \
it always shows what is true now
[[notify]] #1 (a): key `give_up_after` is for message channels; type alertmanager shows the state: \
it is kept up to date for as long as the incident matters""",
        ),
        (
            "[[notify]]\nname = 'a'\ntype = 'pagerduty'\nresolved = false\nreminders = false",
            """[[notify]] #1 (a): key `resolved` is for message channels; type pagerduty shows the state: \
an alert that is not resolved would stay up
[[notify]] #1 (a): key `reminders` is for message channels; type pagerduty shows the state: \
it repeats alerts by its own rules
[[notify]] #1 (a): key `routing_key_file` is missing; it needs the absolute path of a file, one that begins with /""",
        ),
        (
            "[[notify]]\nname = 'a'\ntype = 'stdout'\nseverity = 'page'\nreminders = 1",
            """[[notify]] #1 (a): key `severity` must be one of "critical", "warning", not "page"
[[notify]] #1 (a): key `reminders` must be true or false, not 1""",
        ),
        (
            "[[notify]]\nname = 'a'\ntype = 'slack'\nurl = 'http://h/'\nmention = '@here'",
            """[[notify]] #1 (a): key `mention` must be "<!here>", "<!channel>", "<!subteam^S123>" or "<@U123>", \
or several with a blank between them, not `@here`""",
        ),
        (
            "[[notify]]\nname = 'a'\ntype = 'webhook'\nurl = 'http://h'\nlabels = {cause = 'x', a = ''}\nheaders = ''",
            """[[notify]] #1 (a): key `labels`, name 1, must be 1 to 48 of a-z, A-Z, 0-9 and _, \
beginning with a letter, and none of the agent's own labels \
(alertname, severity, host, instance, cause, incident), not `cause`
[[notify]] #1 (a): key `labels`, value 2, must be 1 to 200 characters on one line, not ``
[[notify]] #1 (a): key `headers` must be a table of strings, such as {name = "…"}, not a string""",
        ),
        (
            f"[[notify]]\nname = 'a'\ntype = 'slack'\nurl = 'http://h/'\nheaders = {{Cookie = '{SECRET} '}}",
            "[[notify]] #1 (a): key `headers`, value 1, must be printable ASCII, without blanks around it" + NOT_QUOTED,
        ),
        (
            "[[notify]]\nname = 'a'\ntype = 'command'\ncommand = ['echo', 'x']",
            """[[notify]] #1 (a): key `command` must be a list: the absolute path of a program, then its arguments, \
such as ["/usr/bin/x", "-v"], not this list""",
        ),
        (
            "[[notify]]\nname = 'a'\ntype = 'command'\ncommand = '/bin/echo x'\ntimeout_seconds = 0",
            """[[notify]] #1 (a): key `command` must be a list: the absolute path of a program, then its arguments, \
such as ["/usr/bin/x", "-v"], not a string
[[notify]] #1 (a): key `timeout_seconds` must be a whole number, 1 to 60 seconds, not 0""",
        ),
        (
            "[[notify]]\nname = 'a'\ntype = 'email'\nto = ['a@b, c@d']\nfrom = 'Ops <ops@h>'\nsmtp = 'h'",
            """[[notify]] #1 (a): key `to`, entry 1, must be a mail address such as "ops@example.org", \
or a local user, not `a@b, c@d`
[[notify]] #1 (a): key `from` must be a mail address such as "ops@example.org", or a local user, not `Ops <ops@h>`
[[notify]] #1 (a): key `smtp` must be a host and a port, such as "localhost:25", not `h`""",
        ),
        (
            '[[notify]]\nname = "a"\ntype = "email"\nto = ["a@b\\r\\nBcc: x@y"]\nfrom = "a@b\\n"\nsmtp = "h:25\\n"',
            """[[notify]] #1 (a): key `to`, entry 1, must be a mail address such as "ops@example.org", \
or a local user, not `a@b\\x0d\\x0aBcc: x@y`
[[notify]] #1 (a): key `from` must be a mail address such as "ops@example.org", or a local user, not `a@b\\x0a`
[[notify]] #1 (a): key `smtp` must be a host and a port, such as "localhost:25", not `h:25\\x0a`""",
        ),
        (
            "[[notify]]\nname = 'a'\ntype = 'alertmanager'\nurls = ['http://a:1', 'b', 'http://h:0']",
            f"""[[notify]] #1 (a): key `urls`, entry 2, must hold http:// or https:// and a host{NOT_QUOTED}
[[notify]] #1 (a): key `urls`, entry 3, must hold http:// or https:// and a host{NOT_QUOTED}""",
        ),
        (
            "[[notify]]\nname = 'a'\ntype = 'slack'\nurl_file = 'x/y'",
            f"[[notify]] #1 (a): key `url_file` needs the absolute path of a file, one that begins with /{NOT_QUOTED}",
        ),
        (
            "[[notify]]\nname = 'a'\ntype = 'slack'\nurl_file = '/does/not/exist'",
            "[[notify]] #1 (a): key `url_file`: `/does/not/exist` cannot be read: No such file or directory",
        ),
    ],
)
def test_a_mistake_is_told_with_its_place_and_its_mend(write: Write, text: str, expected: str) -> None:
    assert expected.split("\n") == errors(write(text))


def test_all_mistakes_are_told_at_once(write: Write) -> None:
    path = write("""
        [source]
        kind = "fil"
        [incident]
        quiet_secnds = 3
        [[notify]]
        type = "slack"
        [[notify]]
        name = "hook"
        type = "webhook"
        url = "ftp://example.org/x"
        urls = ["http://h"]
    """)

    assert [
        "[source]",
        "[incident]",
        "[[notify]] #1",
        "[[notify]] #1",
        "[[notify]] #2 (hook)",
        "[[notify]] #2 (hook)",
    ] == [line.partition(": key")[0].partition(": type")[0] for line in errors(path)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[source]\nkind = file\n", "is not valid TOML: Invalid value (at line 2, column 8)"),
        ("[source\n", "is not valid TOML: Expected ']' at the end of a table declaration (at line 1, column 8)"),
        ("a = " + "[" * 5000, "is nested too deeply"),
        ("a = " + "9" * 5000, "has a number that is too long"),
        (b"[source]\n# \xff", "is not UTF-8 text (byte 12)"),
        (b"#" * (1024 * 1024 + 1), "cannot be read: larger than 1048576 bytes"),
    ],
)
def test_what_is_no_toml_is_told_with_its_line(write: Write, text: str | bytes, expected: str) -> None:
    (line,) = errors(write(text))

    assert line.replace('"', "'").startswith(expected)  # tomli 2.0.0 has the other quotes.


def test_a_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    assert ["no such file"] == errors(tmp_path / "none.toml")
    assert ["cannot be read: Is a directory"] == errors(tmp_path)


def test_a_fifo_in_the_place_of_a_file_is_a_mistake_and_no_wait(write: Write, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    reason = "cannot be read: it is a FIFO, which may never get a writer"

    assert [reason] == errors(tmp_path / "fifo")
    (line,) = errors(write(f'[[notify]]\nname="a"\ntype="slack"\nurl_file="{tmp_path}/fifo"\n'))
    assert line.endswith(reason)


def test_credentials_without_a_directory_say_who_sets_it(write: Write) -> None:
    (line,) = errors(write('[[notify]]\nname="a"\ntype="slack"\nurl_file="${CREDENTIALS_DIRECTORY}/u"\n'))

    assert line.startswith("[[notify]] #1 (a): key `url_file` uses $CREDENTIALS_DIRECTORY, which is not set here: ")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "must hold one line, not 0"),
        (b"https://a.example/\nhttps://b.example/\n", "must hold one line, not 2"),
        (b"\xff\xfe", "is not text"),
    ],
)
def test_a_secrets_file_holds_one_line_of_text(write: Write, content: bytes, expected: str) -> None:
    secret = write(content, "url")
    path = write(f'[[notify]]\nname="a"\ntype="slack"\nurl_file="{secret}"\n')

    assert [f"[[notify]] #1 (a): key `url_file`: `{secret}` {expected}"] == errors(path)


@pytest.mark.parametrize(
    "url",
    [
        f"hooks.slack.com/{SECRET}",
        f"htps://hooks.slack.com/{SECRET}",
        f"https:///{SECRET}",
        f"https://hooks.slack.com:99999/{SECRET}",
        f"https://hooks.slack.com/ {SECRET}",
        f"https://[hooks/{SECRET}",
        f"\\u0000{SECRET}",
    ],
)
@pytest.mark.parametrize("key", ["url", "url_file", "urls", "type", "name", "give_up_after", "secret_file"])
def test_no_error_quotes_a_secret_whichever_key_it_was_put_into(write: Write, url: str, key: str) -> None:
    value = f'["{url}"]' if key == "urls" else f'"{url}"'
    table = {"name": '"a"', "type": '"webhook"'} | {key: value}
    path = write("[[notify]]\n" + "".join(f"{name} = {text}\n" for name, text in table.items()))

    assert not any("verysecret" in line for line in errors(path))


@pytest.mark.parametrize("secret", ["MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_", "whsec_???", "whsec_abc"])
def test_a_signing_secret_must_be_whsec_and_base64(write: Write, secret: str) -> None:
    file = write(secret, "secret")
    path = write(f'[[notify]]\nname="a"\ntype="webhook"\nurl="https://h.example/"\nsecret_file="{file}"\n')

    (line,) = errors(path)

    assert line.startswith("[[notify]] #1 (a): key `secret_file`: its file must hold whsec_ and base64")
    assert "MfKQ" not in line


TOML_VALUE = st.one_of(
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=20),
    st.lists(st.one_of(st.integers(), st.text(max_size=5)), max_size=3),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=2),
)
KEYS = st.one_of(
    st.sampled_from(
        ["source", "store", "incident", "notify", "kind", "paths", "directory", "keep_days", "name", "url"]
    ),
    st.text(max_size=8),
)


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        KEYS, st.one_of(TOML_VALUE, st.dictionaries(KEYS, TOML_VALUE), st.lists(st.dictionaries(KEYS, TOML_VALUE)))
    )
)
def test_any_document_is_settings_or_lines_of_errors(document: dict[str, Any]) -> None:
    lines = ["/x.toml: "]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config, "_read_document", lambda path: document)
        try:
            load(Path("/x.toml"), {})
        except ConfigError as error:
            lines = error.errors

    assert lines
    assert all(line.startswith("/x.toml: ") for line in lines)
    assert not any(unicodedata.category(char) in {"Cc", "Cf", "Zl", "Zp"} for line in lines for char in line)


@pytest.mark.parametrize(
    ("key", "content", "expected"),
    [
        ("token_file", f"{SECRET} x\n", "must hold a token: printable ASCII without blanks"),
        ("token_file", "tökenverysecret\n", "must hold a token: printable ASCII without blanks"),
        ("password_file", f"{SECRET}\x1b\n", "must hold no control characters"),
        ("ca_file", f"{SECRET}\n", "must hold certificates in PEM"),
        ("cert_file", f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n", "must hold a certificate in PEM"),
        ("key_file", f"-----BEGIN CERTIFICATE-----\n{SECRET}\n", "must hold a private key in PEM"),
    ],
)
def test_what_a_file_holds_is_checked_and_not_quoted(write: Write, key: str, content: str, expected: str) -> None:
    file = write(content, "file")
    path = write(f'[[notify]]\nname="h"\ntype="webhook"\nurl="https://h.example/x"\n{key} = "{file}"\n')

    said = errors(path)

    assert f"[[notify]] #1 (h): key `{key}`: its file {expected}{NOT_QUOTED}" in said
    assert "verysecret" not in str(said)


def test_an_integration_key_is_checked_and_not_quoted(write: Write) -> None:
    file = write(f"key={SECRET}\n", "file")
    (line,) = errors(write(f'[[notify]]\nname="p"\ntype="pagerduty"\nrouting_key_file = "{file}"\n'))

    assert (
        "[[notify]] #1 (p): key `routing_key_file`: its file must hold an integration key: letters and digits"
        f"{NOT_QUOTED}" == line
    )


def test_urls_file_is_read_line_by_line(write: Write) -> None:
    file = write("http://am-1.example:9093\n\n  http://am-2.example:9093  \n", "urls")
    table = f'[[notify]]\nname="am"\ntype="alertmanager"\nurls_file = "{file}"\n'

    assert ("http://am-1.example:9093", "http://am-2.example:9093") == load(write(table), {}).notify[0].urls
    file.write_text(f"http://am-1.example:9093\nhttps:/{SECRET}\n")
    rule = "must hold http:// or https:// and a host on every line"
    assert [f"[[notify]] #1 (am): key `urls_file`: its file {rule}{NOT_QUOTED}"] == errors(write(table))


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ('user = "u"', "keys `user` and `password_file` need each other"),
        ('password_file = "FILE"', "keys `user` and `password_file` need each other"),
        ('key_file = "KEY"', "key `key_file` needs `cert_file`"),
        (
            'token_file = "FILE"\nuser = "u"\npassword_file = "FILE"',
            "has more than one login: `user`, `token_file`; keep one",
        ),
        (
            'token_file = "FILE"\nheaders = {authorization = "x"}',
            "has more than one login: `token_file`, `headers`; keep one",
        ),
    ],
)
def test_keys_that_need_or_exclude_each_other_are_reported(write: Write, keys: str, expected: str) -> None:
    file, key = write("token\n", "file"), write("-----BEGIN EC PRIVATE KEY-----\n", "key")
    table = '[[notify]]\nname="h"\ntype="webhook"\nurl="https://h.example/x"\n'
    table += keys.replace("FILE", str(file)).replace("KEY", str(key))

    assert [f"[[notify]] #1 (h): {expected}"] == errors(write(table))


def test_keys_that_need_each_other_are_reported_beside_one_that_is_missing(write: Write) -> None:
    table = '[[notify]]\nname="m"\ntype="email"\nfrom="a@h"\nuser="u"\n'

    missing, *others = errors(write(table))
    assert missing.startswith("[[notify]] #1 (m): key `to` is missing; ")
    assert ["[[notify]] #1 (m): keys `user` and `password_file` need each other"] == others


def test_a_password_crosses_no_network_in_the_clear(write: Write) -> None:
    file = write("password\n", "file")
    table = f'[[notify]]\nname="m"\ntype="email"\nto=["root"]\nfrom="a@h"\nuser="u"\npassword_file="{file}"\n'

    assert "u" == load(write(table), {}).notify[0].user
    assert "u" == load(write(table + 'smtp = "h.example:25"\ntls = "starttls"\n'), {}).notify[0].user
    assert [
        '[[notify]] #1 (m): key `password_file` needs `tls`: with "none" anybody on the way could read the password'
    ] == errors(write(table + 'smtp = "h.example:25"\n'))


# --- the state directory ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("directory", "environ", "euid", "expected"),
    [
        ("", {"STATE_DIRECTORY": "/run/a:/run/b", "XDG_STATE_HOME": "/x"}, 0, "/run/a"),
        ("/srv/state", {"STATE_DIRECTORY": "/run/a"}, 1000, "/run/a"),
        ("/srv/state", {"STATE_DIRECTORY": ""}, 0, "/srv/state"),
        ("/srv/state", {"XDG_STATE_HOME": "/x"}, 1000, "/srv/state"),
        ("", {"XDG_STATE_HOME": "/x"}, 0, "/var/lib/sockmem-agent"),
        ("", {"XDG_STATE_HOME": "/x"}, 1000, "/x/sockmem-agent"),
        ("", {"XDG_STATE_HOME": "x", "HOME": "/users/a"}, 1000, "/users/a/.local/state/sockmem-agent"),
        ("", {"HOME": "/users/a"}, 1000, "/users/a/.local/state/sockmem-agent"),
    ],
)
def test_the_state_directory_follows_the_order_of_the_contract(
    directory: str, environ: dict[str, str], euid: int, expected: str
) -> None:
    settings = Settings(store=StoreSettings(directory=directory))

    assert Path(expected) == state_directory(settings, environ, euid)


def test_a_directory_that_the_file_names_is_told_from_the_default(write: Write) -> None:
    named = load(write('[store]\ndirectory = "/var/lib/sockmem-agent"\n'), {})

    assert Path("/var/lib/sockmem-agent") == state_directory(named, {"HOME": "/users/a"}, 1000)


# --- showing ----------------------------------------------------------------------------------------------------------


def test_masked_shows_no_more_than_the_host_of_a_url() -> None:
    channel = SlackSettings(name="a", url=f"https://user:pw@hooks.slack.com:8443/{SECRET}?t=1")
    more = AlertmanagerSettings(name="b", urls=("http://am:9093/verysecret",))

    shown = masked(Settings(notify=(channel, more)))

    assert "https://hooks.slack.com:8443/…" == shown["notify"][0]["url"]
    assert ["http://am:9093/…"] == shown["notify"][1]["urls"]
    text = msgspec.json.encode(shown).decode()
    assert "verysecret" not in text
    assert "pw" not in text


def test_masked_shows_the_names_of_headers_alone() -> None:
    channel = WebhookSettings(name="a", url=SLACK_URL, headers={"Cookie": SECRET})

    assert {"Cookie": "…"} == masked(Settings(notify=(channel,)))["notify"][0]["headers"]


def test_no_channel_shows_its_address_where_it_is_printed() -> None:
    kinds = (SlackSettings, WebhookSettings)
    shown = [repr(kind(name="a", url=SLACK_URL)) for kind in kinds]
    shown.append(repr(AlertmanagerSettings(name="a", urls=(SLACK_URL,))))

    assert ["SlackSettings(name='a')", "WebhookSettings(name='a')", "AlertmanagerSettings(name='a')"] == shown


def test_masking_nothing_gives_nothing() -> None:
    assert "" == mask_url("")


def test_the_channel_is_standard_output_when_none_is_configured() -> None:
    assert channels(Settings()) == (StdoutSettings(name="stdout"),)
    configured = (SlackSettings(name="a", url=SLACK_URL),)
    assert channels(Settings(notify=configured)) == configured
