"""The schemas in docs/schemas: that they are of today, valid, and as strict as `config check` wherever they can be."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from copy import deepcopy
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import msgspec.toml
import pytest
import trustme
from harness import SCHEMAS, validator
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from agent.config.load import ConfigError, load
from agent.core.settings import Settings

ROOT = Path(__file__).parent.parent
CONFIG = validator("config")
WHSEC = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
HOOK = {"name": "hook", "type": "webhook", "url": "https://h.example/"}

MAIL = {"name": "mail", "type": "email", "to": ["root"], "from": "agent@h.example"}
TLS = {"ca_file": "/HERE/cert", "cert_file": "/HERE/cert", "key_file": "/HERE/cert-key"}

# What only `config check` finds: the rule as docs/configuration.md has it, a document against it, and what is said.
UNEXPRESSED: dict[str, tuple[dict[str, Any], str]] = {
    "Every `name` is unique.": (
        {"notify": [{"name": "a", "type": "stdout"}, {"name": "a", "type": "stdout"}]},
        r"key `name` must be unique; ",
    ),
    "A URL has a host, a port from 1 to 65535 if it has one, and no unprintable characters.": (
        {"notify": [HOOK | {"url": "https://h.example:65536/"}]},
        r"key `(urls?|runbook_url)`(, entry \d+,)? must hold http:// or https:// and a host",
    ),
    "A key that ends in `_file` names a file that can be read and holds text: one line, where it is a secret.": (
        {"notify": [HOOK | {"secret_file": "/does/not/exist"}]},
        r"key `\w+_file`: `.*` (cannot be read|is not text|must hold one line)",
    ),
    "Each line in a `url_file` or `urls_file` is a URL.": (
        {"notify": [{"name": "hook", "type": "webhook", "url_file": "$CREDENTIALS_DIRECTORY/secret"}]},
        r"key `urls?_file`: its file must hold http:// or https:// and a host",
    ),
    "The line in a `secret_file` is `whsec_` and base64.": (
        {"notify": [HOOK | {"secret_file": "${CREDENTIALS_DIRECTORY}/url"}]},
        r"key `secret_file`: its file must hold whsec_",
    ),
    "A token, a password or an integration key has no characters that it cannot have.": (
        {"notify": [HOOK | {"token_file": "$CREDENTIALS_DIRECTORY/odd"}]},
        r"key `(token|password|routing_key)_file`: its file must hold (a token|no control|an integration key)",
    ),
    "A `ca_file`, `cert_file` or `key_file` is PEM.": (
        {"notify": [HOOK | {"ca_file": "$CREDENTIALS_DIRECTORY/odd"}]},
        r"key `(ca|cert|key)_file`: its file must hold .* in PEM",
    ),
    "`user` and `password_file` need each other, and `key_file` needs `cert_file`.": (
        {"notify": [HOOK | {"user": "u"}]},
        r"keys `user` and `password_file` need each other|key `key_file` needs `cert_file`",
    ),
    "A channel has one login: `user`, `token_file`, credentials in its URL, or an `Authorization` in `headers`.": (
        {"notify": [HOOK | {"token_file": "$CREDENTIALS_DIRECTORY/key", "headers": {"authorization": "x"}}]},
        r"has more than one login: `token_file`, `headers`; keep one|has more than one login",
    ),
    "A password for a mail server on another host needs `tls`.": (
        {"notify": [MAIL | {"smtp": "h.example:25", "user": "u", "password_file": "$CREDENTIALS_DIRECTORY/key"}]},
        r"key `password_file` needs `tls`",
    ),
    "The agent sets some HTTP headers itself, such as `Content-Type`; `headers` cannot.": (
        {"notify": [HOOK | {"headers": {"content-type": "text/plain"}}]},
        r"key `headers`, name 1, must be the name of an HTTP header, other than",
    ),
    "The first entry of `command` is an absolute path.": (
        {"notify": [{"name": "c", "type": "command", "command": ["sh", "-c", "true"]}]},
        r"key `command` must be a list: the absolute path of a program",
    ),
    "The port in `smtp` is from 1 to 65535.": (
        {"notify": [MAIL | {"smtp": "localhost:65536"}]},
        r"key `smtp` must be a host and a port",
    ),
    "`$CREDENTIALS_DIRECTORY` is set where it is used.": (
        {"notify": [{"name": "unset", "type": "slack", "url_file": "${CREDENTIALS_DIRECTORY}/url"}]},
        r"uses \$CREDENTIALS_DIRECTORY, which is not set here",
    ),
    "`300.0` is not a whole number.": (
        {"incident": {"quiet_seconds": 300.0}},
        r"must be a whole number, \d+ to \d+ \w+, not \d+\.0$",
    ),
}


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> Path:
    """Make the directory of the configuration and its credentials."""
    made = tmp_path_factory.mktemp("credentials")
    (made / "url").write_text("https://hooks.example/T0/B0/x\n")
    (made / "secret").write_text(f"{WHSEC}\n")
    (made / "key").write_text("T0kenT0ken\n")
    (made / "odd").write_text("T0ken\x07 T0ken\n")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(made / "cert")
    authority.issue_cert("h.example").private_key_pem.write_to_path(made / "cert-key")
    (made / "lines").write_text("https://a.example/\nhttps://b.example/\n")
    return made


def toml(value: Any) -> str:
    """Write a value of TOML; a table within a list or a table stands inline."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{toml(key)} = {toml(item)}' for key, item in value.items())}}}"
    return value.isoformat() if isinstance(value, date) else str(value).lower()


def tables(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Give the document and the tables in it."""
    values = [item for value in document.values() for item in (value if isinstance(value, list) else [value])]
    return [document, *(value for value in values if isinstance(value, dict))]


def written(document: dict[str, Any], directory: Path) -> str:
    """Write a document, with the directory for /HERE."""
    text = "".join(f"{toml(key)} = {toml(value)}\n" for key, value in document.items())
    assert repr(document) == repr(msgspec.toml.decode(text))
    return text.replace("/HERE", str(directory))


def check(document: dict[str, Any], directory: Path, *, credentials: bool = True) -> list[str]:
    """Let the program read a document as a file; say what is wrong with it."""
    path = directory / "config.toml"
    path.write_text(written(document, directory))
    try:
        load(path, {"CREDENTIALS_DIRECTORY": str(directory)} if credentials else {})
    except ConfigError as error:
        return [line.removeprefix(f"{path}: ") for line in error.errors]
    return []


# --- configurations, from what the documents say and not from the schema --------------------------------------------

CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
PATHS = st.text(CHARACTERS, max_size=10).map(lambda text: f"/{text}")
OPTIONAL_PATHS = st.one_of(st.just(""), PATHS)
URLS = st.builds(
    "{}://{}{}{}".format,
    st.sampled_from(["http", "https", "HTTP", "Https"]),
    st.sampled_from(["h", "h.example", "127.0.0.1", "[::1]", "user:pw@h", "bücher.example"]),
    st.one_of(st.just(""), st.integers(1, 65535).map(":{}".format)),
    st.text(st.sampled_from("/?#&=%aé$^"), max_size=8).map(lambda text: f"/{text}" if text else ""),
)
COMMON = {"severity": st.sampled_from(["warning", "critical"]), "runbook_url": URLS}
READ = {name: st.booleans() for name in ("updates", "resolved", "reminders")} | {
    "give_up_after": st.integers(60, 31_536_000)
}


def files(name: str) -> st.SearchStrategy[str]:
    return st.sampled_from([f"$CREDENTIALS_DIRECTORY/{name}", f"${{CREDENTIALS_DIRECTORY}}/{name}", f"/HERE/{name}"])


def on_a_line(text: str) -> str:
    return re.sub(r"[\x00-\x1f\x7f]", " ", text)


def channel(kind: str, required: dict[str, Any], optional: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({"type": st.just(kind)} | required, optional=COMMON | optional)


WITH_URL = {"url": URLS}, {"url_file": st.just("")}
WITH_FILE = {"url_file": files("url")}, {"url": st.just("")}
LABELS = {
    "labels": st.dictionaries(
        st.from_regex(r"x[0-9A-Za-z_]{0,47}", fullmatch=True),
        st.text(CHARACTERS, min_size=1, max_size=9).map(on_a_line),
    )
}
HTTP: dict[str, Any] = {
    "ca_file": files("cert"),
    "cert_file": files("cert"),
    "token_file": st.just(""),
    "headers": st.dictionaries(st.from_regex(r"[xX]-[0-9A-Za-z!#$%&'*+.^_`|~-]{0,9}", fullmatch=True), st.just("a b~")),
}
ADDRESSES = st.sampled_from(["root", "ops@example.org", "a.b+c_d@h", "x@mail-1.example.org"])
SIGNED = {"secret_file": st.one_of(st.just(""), files("secret"))}
CHANNELS = st.one_of(
    channel(
        "slack", WITH_URL[0], WITH_URL[1] | READ | {"mention": st.sampled_from(["", "<!here>", "<@U1> <!channel>"])}
    ),
    channel("slack", WITH_FILE[0], WITH_FILE[1] | READ | HTTP),
    channel("webhook", WITH_URL[0], WITH_URL[1] | SIGNED | READ | LABELS),
    channel("webhook", WITH_FILE[0], WITH_FILE[1] | SIGNED | READ | LABELS | HTTP),
    channel("alertmanager", {"urls": st.lists(URLS, min_size=1, max_size=3)}, LABELS | {"urls_file": st.just("")}),
    channel("alertmanager", {"urls_file": files("lines")}, LABELS | HTTP | {"urls": st.just([])}),
    channel("pagerduty", {"routing_key_file": files("key")}, LABELS | HTTP | {"url": WITH_URL[0]["url"]}),
    channel(
        "command", {"command": st.lists(PATHS, min_size=1, max_size=3)}, READ | {"timeout_seconds": st.integers(1, 60)}
    ),
    channel(
        "email",
        {"to": st.lists(ADDRESSES, min_size=1, max_size=3), "from": ADDRESSES},
        READ | {"smtp": st.sampled_from(["localhost:25", "[::1]:2525", "127.0.0.1:65535"]), "tls": st.just("starttls")},
    ),
    channel(
        "email", {"to": st.just(["root"]), "from": ADDRESSES, "user": st.just("u"), "password_file": files("key")}, {}
    ),
    channel("journal", {}, READ | LABELS),
    channel("stdout", {}, READ),
)
NAMES = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,31}", fullmatch=True)
NOTIFY = st.lists(NAMES, unique=True, max_size=3).flatmap(
    lambda names: st.tuples(*(CHANNELS.map(lambda table, name=name: {"name": name} | table) for name in names)).map(
        list
    )
)
SECTIONS = {
    "source": {
        "kind": st.sampled_from(["auto", "journal", "file", "kmsg"]),
        "paths": st.lists(PATHS, min_size=1, max_size=3),
        "directory": OPTIONAL_PATHS,
        "start": st.sampled_from(["now", "beginning"]),
    },
    "store": {
        "directory": OPTIONAL_PATHS,
        "keep_days": st.integers(1, 36_500),
        "keep_count": st.integers(1, 1_000_000),
        "keep_bytes": st.integers(1, 2**62),
        "min_free_bytes": st.integers(0, 2**62),
    },
    "incident": {
        "quiet_seconds": st.integers(1, 86_400),
        "pressure": st.booleans(),
        "claimed": st.sampled_from(["notify", "record"]),
    },
    "metrics": {"textfile": OPTIONAL_PATHS},
}
VALID = st.fixed_dictionaries(
    {},
    optional={"notify": NOTIFY} | {name: st.fixed_dictionaries({}, optional=keys) for name, keys in SECTIONS.items()},
)
# --- and what is wrong with one --------------------------------------------------------------------------------------

WHOLE: list[dict[str, Any]] = [
    {"source": {"kind": "file", "paths": ["/a", "/b"], "directory": "/j", "start": "now"}},
    {"store": {"directory": "/s", "keep_days": 1, "keep_count": 1, "keep_bytes": 1, "min_free_bytes": 0}},
    {"incident": {"quiet_seconds": 1, "pressure": True, "claimed": "record"}},
    {"metrics": {"textfile": "/m.prom"}},
    {"notify": [{"type": "slack", "name": "s", "url": "https://h/", "url_file": "", "give_up_after": 60}]},
    {"notify": [{"type": "slack", "name": "s", "url_file": "/HERE/url"}]},
    {"notify": [HOOK | {"secret_file": "/HERE/secret", "url_file": "", "give_up_after": 60}]},
    {
        "notify": [
            {"type": "alertmanager", "name": "a", "urls": ["http://h:9093"], "urls_file": "", "severity": "critical"}
        ]
    },
    {"notify": [{"type": "alertmanager", "name": "a", "urls_file": "/HERE/lines", "labels": {"team": "net"}} | TLS]},
    {"notify": [{"type": "pagerduty", "name": "p", "routing_key_file": "/HERE/key", "url": "https://h/"}]},
    {"notify": [{"type": "command", "name": "c", "command": ["/x", "y"], "input": "text", "timeout_seconds": 1}]},
    {
        "notify": [
            MAIL | {"smtp": "h:25", "tls": "tls", "user": "u", "password_file": "/HERE/key", "ca_file": "/HERE/cert"}
        ]
    },
    {"notify": [{"type": "journal", "name": "j", "labels": {"a": "b"}, "updates": False, "reminders": True}]},
    {
        "notify": [
            HOOK | TLS | {"user": "u", "password_file": "/HERE/key", "headers": {"x-a": "b"}, "runbook_url": "http://h"}
        ]
    },
    {"notify": [{"type": "slack", "name": "s", "url": "https://h/", "mention": "<!here>", "token_file": "/HERE/key"}]},
    {"notify": [{"type": "stdout", "name": "o", "give_up_after": 60, "resolved": False}]},
]
KEYS = sorted({key for whole in WHOLE for table in tables(whole) for key in table} | {"", "x"})
ODD: list[Any] = [
    *("", "x", "A", "-", "a" * 33, "file", "slack", "webhook", "alertmanager", "stdout", "critical", "starttls"),
    *("<!here>", "<!everyone", "<@U1>  <@U2>", "a@b", "a@b, c@d", "h:0", "h:65536", "a:b"),
    *({"host": "x"}, {"x": ""}, {"x": "a\nb"}, {"x": "é"}, {"X y": "z"}, {"te": "x"}, {"x": 1}, {"Authorization": "x"}),
    *(["a@b", "c"], ["/x", ""], ["/x\0"], ["a\0b"], "/HERE/cert", "/HERE/key", "/HERE/odd", "/HERE/secret"),
    *("/", "/a\0", "~/a", "/HERE", "$CREDENTIALS_DIRECTORYx", "$CREDENTIALS_DIRECTORY/lines", "$OTHER/x"),
    *("http://", "http:///x", "http:h", "http://h:0", "http://h:65536", "http://[h", "http://h/ ", "http://h/\u202e"),
    *("ftp://h", "HTTPS://h", " http://h"),
    *(-1, 0, 1, 59, 60, 300, 36_501, 86_401, 1_000_001, 31_536_001, 2**62 + 1, 1.0, 300.0, 0.5, True, False),
    *([], [1], [""], ["/a", "b"], ["http://h"], ["http://h:0", "h"], [[]], {}, [{}], {"a": 1}, date(2026, 11, 22)),
]


def faults(whole: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Change one thing of a document: a value, a key that is not there yet, or one that is gone."""
    for number, table in enumerate(tables(whole)):
        for key in KEYS:
            for value in ODD if key in table or key in whole else ODD[:1]:
                changed = deepcopy(whole)
                tables(changed)[number][key] = value
                yield changed
            if key in table:
                changed = deepcopy(whole)
                del tables(changed)[number][key]
                yield changed


def differing(document: dict[str, Any], directory: Path) -> list[str]:
    """Say in what the schema and `config check` differ beyond what is listed; msgspec takes what both do."""
    told = check(document, directory)
    if not told:
        msgspec.convert(document, Settings)
    if CONFIG.is_valid(msgspec.toml.decode(written(document, directory))):
        return [line for line in told if not any(re.search(pattern, line) for _, pattern in UNEXPRESSED.values())]
    return [] if told else [f"only the schema refuses {document}"]


@settings(max_examples=150, deadline=None)
@given(document=VALID)
def test_a_valid_configuration_is_valid_to_both(directory: Path, document: dict[str, Any]) -> None:
    assert [] == check(document, directory)
    assert [] == list(CONFIG.iter_errors(document))
    assert isinstance(msgspec.convert(document, Settings), Settings)


@settings(max_examples=300, deadline=None)
@given(document=VALID, data=st.data())
def test_a_changed_configuration_is_the_same_to_both_but_for_what_is_listed(
    directory: Path, document: dict[str, Any], data: st.DataObject
) -> None:
    document = deepcopy(document)
    for _ in range(data.draw(st.integers(1, 2))):
        table = data.draw(st.sampled_from(tables(document)))
        key = data.draw(st.sampled_from([*table, *KEYS]))
        table[key] = deepcopy(data.draw(st.sampled_from(ODD)))

    assert [] == differing(document, directory)


@pytest.mark.parametrize("whole", WHOLE, ids="-".join)
def test_a_configuration_with_one_fault_is_the_same_to_both_but_for_what_is_listed(
    directory: Path, whole: dict[str, Any]
) -> None:
    assert [] == check(whole, directory)
    assert [] == [line for document in faults(whole) for line in differing(document, directory)]


@pytest.mark.parametrize("rule", UNEXPRESSED)
def test_what_is_listed_as_unexpressed_is_refused_by_config_check_alone(rule: str, directory: Path) -> None:
    document, pattern = UNEXPRESSED[rule]

    (line,) = check(document, directory, credentials="unset" not in str(document))

    assert re.search(pattern, line)
    assert [] == list(CONFIG.iter_errors(document))


def test_the_list_in_the_documents_is_this_one() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text()
    assert list(UNEXPRESSED) == re.findall(r"^\* (.*)$", text.partition("It cannot express")[2], re.MULTILINE)


# --- the files --------------------------------------------------------------------------------------------------------


def test_the_schemas_are_those_of_the_types_today(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "packaging" / "schemas.py", tmp_path], check=True)

    made, kept = (
        {path.name: json.loads(path.read_text()) for path in folder.iterdir()} for folder in (tmp_path, SCHEMAS)
    )
    assert made == kept, "make docs/schemas"


@pytest.mark.parametrize("name", ["config", "incident", "diagnosis"])
def test_every_schema_is_valid_and_named_without_a_place(name: str) -> None:
    schema = json.loads((SCHEMAS / f"{name}.json").read_text())

    Draft202012Validator.check_schema(schema)
    assert Draft202012Validator.META_SCHEMA["$id"] == schema["$schema"]
    assert f"urn:sockmem-agent:{name}:1" == schema["$id"]


def test_every_key_of_the_configuration_is_described() -> None:
    definitions = CONFIG.schema["$defs"]
    silent = [
        f"{name}.{key}"
        for name, definition in definitions.items()
        for key, told in definition["properties"].items()
        if "description" not in told and "$ref" not in told
    ]
    assert [] == silent
    assert {False} == {definition["additionalProperties"] for definition in definitions.values()}
