"""Mail, against aiosmtpd, a real exim4, and servers that say what the test wants."""

import contextlib
import email
import logging
import os
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from harness import Handler, Tray, hang, hold_port, port_of, wait_for
from material import OPENED_AT, make_sent_incident, make_sent_notice
from msgspec.structs import replace

from agent.core.delivery import Delivered, Rejected, Retry
from agent.core.dispatch import rules_of
from agent.core.model import Notice, NoticeType, Silence
from agent.core.report import body_text, title
from agent.core.settings import EmailSettings
from agent.notifiers import ChannelError
from agent.notifiers.email import REMEMBERED, EmailNotifier, compose
from agent.service.courier import Courier

PASSWORD = "T0kenT0ken"
SHORT = 0.5


class Inbox:
    """Keeps the mails that a server took, and refuses the recipients that a test names."""

    def __init__(self) -> None:
        self.mails: list[bytes] = []
        self.recipients: list[list[str]] = []
        self.replies: dict[str, str] = {}

    async def handle_RCPT(self, server, session, envelope, address, options):  # noqa: N802 - aiosmtpd's name
        if reply := self.replies.get(address):
            return reply
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):  # noqa: N802 - as above
        if reply := self.replies.get("DATA"):
            return reply
        self.mails.append(envelope.content)
        self.recipients.append(envelope.rcpt_tos)
        return "250 OK"

    def read(self) -> list[EmailMessage]:
        return [email.message_from_bytes(mail, policy=default) for mail in self.mails]


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


@pytest.fixture
def smtp(inbox: Inbox) -> Iterator[Callable[..., str]]:
    """Start aiosmtpd with these options; the address is that of a loopback port."""
    with contextlib.ExitStack() as running:

        def start(**options: Any) -> str:
            port = port_of(running.enter_context(hold_port()))
            controller = Controller(inbox, hostname="127.0.0.1", port=port, **options)
            controller.start()
            running.callback(controller.stop)
            return f"localhost:{port}"

        yield start


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    return context


@pytest.fixture
def keys(authority: trustme.CA, tmp_path: Path) -> dict[str, str]:
    """Make the keys of a channel that logs in over TLS."""
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    return {"ca_file": str(tmp_path / "ca.pem"), "user": "agent", "password_file": str(tmp_path / "password")}


def channel(server: str, *, deadline_seconds: float = 10.0, **keys: Any) -> EmailNotifier:
    settings = EmailSettings(
        **{"name": "mail", "to": ("ops@example.org",), "from_": "agent@web1.example", "smtp": server} | keys
    )
    return EmailNotifier(settings, deadline_seconds=deadline_seconds)


def logins(server, session, envelope, mechanism, data) -> AuthResult:
    return AuthResult(success=data.login == b"agent" and data.password == PASSWORD.encode(), handled=False)


# --- the mail ---------------------------------------------------------------------------------------------------------


def test_a_server_on_this_host_is_greeted_without_a_name_lookup(smtp, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resolver that does not answer would hold the attempt beyond its deadline, each time."""
    server = smtp(server_hostname="mx")
    monkeypatch.setattr(socket, "getfqdn", lambda: pytest.fail("looked up"))

    assert isinstance(channel(server).notify(make_sent_notice()), Delivered)


def test_a_notice_arrives_as_a_readable_mail(smtp, inbox: Inbox) -> None:
    notice = make_sent_notice()

    delivery = channel(smtp(), to=("ops@example.org", "root"), runbook_url="https://wiki.example/x").notify(notice)

    assert delivery == Delivered(detail="taken for 2 of 2 recipients")
    (mail,) = inbox.read()
    assert [["ops@example.org", "root"]] == inbox.recipients
    assert ("agent@web1.example", "ops@example.org, root") == (mail["From"], mail["To"])
    assert title(notice) == mail["Subject"]
    assert notice.at == mail["Date"].datetime
    assert "auto-generated" == mail["Auto-Submitted"]
    assert "text/plain" == mail.get_content_type()
    assert body_text(notice, "https://wiki.example/x") == mail.get_content().replace("\r\n", "\n")
    assert "runbook: https://wiki.example/x" in mail.get_content()


def test_an_incident_is_one_thread_and_a_repeat_is_the_same_mail(smtp, inbox: Inbox) -> None:
    mails = channel(smtp())
    notices = [
        make_sent_notice(),
        Notice(**{**as_dict(make_sent_notice("sockmem.incident.updated")), "id": "msg_20261122T150539Z-7f3a_002"}),
        Notice(**{**as_dict(make_sent_notice("sockmem.incident.resolved")), "id": "msg_20261122T150539Z-7f3a_003"}),
    ]
    for notice in [*notices, notices[0]]:
        mails.notify(notice)

    read = inbox.read()
    assert ["<20261122T150539Z-7f3a@web1.example>"] * 4 == [mail["References"] for mail in read]
    assert ["<20261122T150539Z-7f3a@web1.example>"] * 4 == [mail["In-Reply-To"] for mail in read]
    identifiers = [mail["Message-ID"] for mail in read]
    assert "<20261122T150539Z-7f3a.001@web1.example>" == identifiers[0] == identifiers[3]
    assert 3 == len(set(identifiers))
    assert inbox.mails[0] == inbox.mails[3]


def as_dict(notice: Notice) -> dict[str, Any]:
    return {name: getattr(notice, name) for name in Notice.__struct_fields__ if name != "schema"}


@pytest.mark.parametrize("kind", ["sockmem.digest", "sockmem.test"])
def test_what_is_of_no_incident_is_in_no_thread(smtp, inbox: Inbox, kind: str) -> None:
    channel(smtp()).notify(make_sent_notice(kind))

    (mail,) = inbox.read()
    assert mail["References"] is None
    assert mail["In-Reply-To"] is None


HOSTILE = "web1\r\nBcc: x@y\r\n\r\nbody\0\x1b[2J \u202e=?utf-8?q?=0d=0aBcc:_x?= ü"


def test_no_foreign_text_begins_another_header(smtp, inbox: Inbox) -> None:
    notice = make_sent_notice(host=HOSTILE, summary=HOSTILE, id="20261122T150539Z-7f3a>\r\nBcc: <x@y")

    assert isinstance(channel(smtp()).notify(notice), Delivered)

    (mail,) = inbox.read()
    wanted = ["From", "To", "Subject", "Date", "Message-ID", "In-Reply-To", "References", "Auto-Submitted"]
    assert [*wanted, "Content-Type", "Content-Transfer-Encoding", "MIME-Version"] == [
        name for name in mail if not name.startswith("X-")
    ]
    assert title(notice)[:200].replace("=?", "= ?") == mail["Subject"]
    assert [["ops@example.org"]] == inbox.recipients


def test_what_is_sent_is_ascii_whatever_it_says(smtp, inbox: Inbox) -> None:
    notice = make_sent_notice(host="größer-日本", summary="Größer: «日本» 🔥 " + "x" * 2000)

    channel(smtp()).notify(notice)

    assert inbox.mails[0].isascii()
    assert max(map(len, inbox.mails[0].split(b"\r\n"))) <= 998
    (mail,) = inbox.read()
    assert title(notice) == mail["Subject"]
    assert "größer-日本" in mail["Subject"]
    assert "«日本» 🔥" in mail.get_content()


def test_a_dot_alone_on_a_line_does_not_end_the_mail(smtp, inbox: Inbox) -> None:
    incident = make_sent_incident()
    notice = make_sent_notice(summary=".\n.\n" + incident.summary)

    channel(smtp()).notify(notice)

    assert body_text(notice) == inbox.read()[0].get_content().replace("\r\n", "\n")


@pytest.mark.parametrize("sender", ["agent@web1.example", "root"])
def test_a_mails_identity_does_not_depend_on_the_moment(sender: str) -> None:
    settings = EmailSettings(name="mail", to=("a@b",), from_=sender)

    assert compose(make_sent_notice(), settings).as_bytes() == compose(make_sent_notice(), settings).as_bytes()


# --- encryption and login ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["starttls", "tls"])
def test_it_logs_in_over_tls_with_a_ca_of_its_own(
    smtp, inbox: Inbox, tls: ssl.SSLContext, keys: dict[str, str], how: str
) -> None:
    options = {"tls_context": tls, "require_starttls": True} if how == "starttls" else {"ssl_context": tls}
    server = smtp(**options, authenticator=logins, auth_require_tls=how == "starttls")

    assert channel(server, tls=how, **keys).notify(make_sent_notice()) == Delivered(detail="taken for 1 of 1 recipient")
    assert 1 == len(inbox.mails)


@pytest.mark.parametrize("how", ["starttls", "tls"])
def test_a_certificate_of_nobody_is_not_trusted(smtp, inbox: Inbox, tls: ssl.SSLContext, how: str) -> None:
    server = smtp(**({"tls_context": tls} if how == "starttls" else {"ssl_context": tls}))

    delivery = channel(server, tls=how).notify(make_sent_notice())

    assert delivery == Retry(why="certificate not trusted: unable to get local issuer certificate")
    assert [] == inbox.mails


def test_a_certificate_for_another_host_is_not_trusted(smtp, inbox: Inbox, tls: ssl.SSLContext, keys) -> None:
    server = smtp(tls_context=tls).replace("localhost", "127.0.0.1")

    delivery = channel(server, tls="starttls", ca_file=keys["ca_file"]).notify(make_sent_notice())

    assert isinstance(delivery, Retry)
    assert delivery.why.startswith("certificate not trusted: IP address mismatch")


def test_a_server_whose_starttls_was_stripped_gets_no_mail_and_no_password(smtp, inbox: Inbox, keys) -> None:
    server = smtp(authenticator=logins, auth_require_tls=False)

    delivery = channel(server, tls="starttls", **keys).notify(make_sent_notice())

    assert delivery == Rejected(why="the server offers no STARTTLS: wrong port, or something on the way removes it")
    assert [] == inbox.mails


def test_a_wrong_password_is_refused_with_the_code_alone(smtp, inbox: Inbox, keys, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("wr0ng\n")
    server = smtp(authenticator=logins, auth_require_tls=False)

    delivery = channel(server, user="agent", password_file=keys["password_file"]).notify(make_sent_notice())

    assert delivery == Rejected(why="SMTP 535 5.7.8: user or password is wrong")


def test_a_server_without_a_login_is_refused(smtp, keys) -> None:
    delivery = channel(smtp(), user="agent", password_file=keys["password_file"]).notify(make_sent_notice())

    assert delivery == Rejected(why="the server offers none of the logins CRAM-MD5, PLAIN and LOGIN")


def test_a_password_that_smtp_cannot_carry_is_refused(smtp, keys, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("pässword\n")
    server = smtp(authenticator=logins, auth_require_tls=False)

    delivery = channel(server, user="agent", password_file=keys["password_file"]).notify(make_sent_notice())

    assert delivery == Rejected(why="user, password or server name has characters that SMTP cannot carry")


@pytest.mark.parametrize("key", ["ca_file", "password_file"])
def test_a_file_that_is_not_there_is_a_configuration_error(tmp_path: Path, keys: dict[str, str], key: str) -> None:
    with pytest.raises(ChannelError, match=rf"^mail: {key} .*/none: [Nn]o such file or directory$"):
        channel("localhost:25", tls="tls", **keys | {key: str(tmp_path / "none")})


# --- refusals ---------------------------------------------------------------------------------------------------------

TWO = {"to": ("a@example.org", "b@example.org")}
ONE = "taken for 1 of 2 recipients"


def test_a_recipient_who_is_refused_for_good_is_named_and_the_others_have_the_mail(
    smtp, inbox: Inbox, caplog: pytest.LogCaptureFixture
) -> None:
    inbox.replies["a@example.org"] = "550 5.1.1 no such mailbox"

    delivery = channel(smtp(), **TWO).notify(make_sent_notice())

    why = "a@example.org: SMTP 550 5.1.1: it does not relay from here, or knows no such mailbox"
    assert delivery == Delivered(detail=f"taken for 1 of 2 recipients; {why}")
    assert [["b@example.org"]] == inbox.recipients
    assert f"mail: the mail was taken, but not for {why}" in caplog.text


def test_a_recipient_who_is_refused_for_now_is_tried_again_and_the_others_get_it_once(smtp, inbox: Inbox) -> None:
    inbox.replies["a@example.org"] = "451 4.7.1 greylisted"
    mails = channel(smtp(), **TWO)

    assert mails.notify(make_sent_notice()) == Retry(why="a@example.org: SMTP 451 4.7.1", taken=ONE)
    inbox.replies.clear()
    assert mails.notify(make_sent_notice()) == Delivered(detail="taken for 2 of 2 recipients")
    assert [["b@example.org"], ["a@example.org"]] == inbox.recipients


def test_who_has_a_mail_is_not_sent_it_again_when_another_was_tried_in_between(smtp, inbox: Inbox) -> None:
    first, second = make_sent_notice(), Notice(**{**as_dict(make_sent_notice()), "id": "another"})
    inbox.replies["a@example.org"] = "452 4.2.2 mailbox full"
    mails = channel(smtp(), **TWO)

    for notice in (first, second, first, second, first):
        assert mails.notify(notice) == Retry(why="a@example.org: SMTP 452 4.2.2", taken=ONE)
    inbox.replies.clear()
    for notice in (second, first):
        assert mails.notify(notice) == Delivered(detail="taken for 2 of 2 recipients")
    assert [["b@example.org"], ["b@example.org"], ["a@example.org"], ["a@example.org"]] == inbox.recipients


def test_of_mails_that_some_have_no_more_are_remembered_than_may_wait(smtp, inbox: Inbox) -> None:
    inbox.replies["a@example.org"] = "452 4.2.2 mailbox full"
    mails = channel(smtp(), **TWO)
    notices = [Notice(**{**as_dict(make_sent_notice()), "id": str(number)}) for number in range(REMEMBERED + 1)]
    for notice in notices:
        mails.notify(notice)
    inbox.recipients.clear()

    for notice in (notices[-1], notices[0]):
        mails.notify(notice)

    assert [["b@example.org"]] == inbox.recipients


def test_a_mail_that_some_lack_is_remembered_whatever_many_mails_all_have(smtp, inbox: Inbox) -> None:
    inbox.replies["a@example.org"] = "452 4.2.2 mailbox full"
    mails = channel(smtp(), **TWO)
    first = make_sent_notice()
    mails.notify(first)
    inbox.replies.clear()
    for number in range(REMEMBERED + 1):
        mails._taken[str(number)] = set()
    mails.notify(Notice(**{**as_dict(first), "id": "another"}))
    inbox.recipients.clear()

    mails.notify(first)

    assert [["a@example.org"]] == inbox.recipients


def test_the_next_notice_goes_to_all_again(smtp, inbox: Inbox) -> None:
    inbox.replies["a@example.org"] = "451 greylisted"
    mails = channel(smtp(), **TWO)
    mails.notify(make_sent_notice())
    inbox.replies.clear()

    mails.notify(make_sent_notice("sockmem.test"))
    mails.notify(Notice(**{**as_dict(make_sent_notice()), "id": "another"}))

    assert ["a@example.org", "b@example.org"] == inbox.recipients[-1]


@pytest.mark.parametrize(
    ("replies", "expected"),
    [
        ({"a@example.org": "550 no", "b@example.org": "553 no"}, Rejected),
        ({"a@example.org": "550 no", "b@example.org": "452 full"}, Retry),
        ({"DATA": "554 5.7.1 spam"}, Rejected),
        ({"DATA": "452 4.3.1 disk full"}, Retry),
        ({"DATA": "421 4.3.2 going down"}, Retry),
        ({"a@example.org": "421 4.3.2 going down"}, Retry),
    ],
)
def test_refused_for_now_is_tried_again_and_for_good_is_refused(
    smtp, inbox: Inbox, replies: dict[str, str], expected: type
) -> None:
    inbox.replies |= replies

    delivery = channel(smtp(), **TWO).notify(make_sent_notice())

    assert type(delivery) is expected
    assert all(reply[:3] in delivery.why for reply in replies.values())
    assert [] == inbox.mails


# --- the mails of an incident while one mailbox is full ---------------------------------------------------------------

A, B = "a@example.org", "b@example.org"
FULL = f"{A}: SMTP 452 4.2.2"
UPDATE, RESOLVED = "sockmem.incident.updated", "sockmem.incident.resolved"


class Post:
    """A courier with mail for two, on a clock of its own."""

    def __init__(self, server: str, inbox: Inbox, **keys: Any) -> None:
        self.seconds, self.box, self.inbox = 1000.0, Tray(), inbox
        self._settings = EmailSettings(name="ops", to=(A, B), from_="agent@web1.example", smtp=server, **keys)
        self.courier = self.start()

    def start(self) -> Courier:
        notifier = EmailNotifier(self._settings)
        clocks = {"monotonic": lambda: self.seconds, "now": self.now, "random": lambda: 1.0}
        return Courier(notifier, self.box, rules_of(self._settings), **clocks)

    def now(self) -> datetime:
        return OPENED_AT + timedelta(seconds=self.seconds - 1000)

    def say(self, kind: NoticeType = "sockmem.incident.opened", incident: str = "20261122T150539Z-7f3a") -> None:
        number = 1 + sum(owner == incident for owner, _ in self.box.notices)
        notice = make_sent_notice(kind, id=incident)
        self.box.put(incident, replace(notice, id=f"msg_{incident}_{number:03}", at=self.now()))

    def run(self, seconds: float) -> None:
        end = self.seconds + seconds
        while self.seconds < end:
            self.seconds = min(end, self.seconds + self.courier.step())

    def read(self, reader: str) -> list[str]:
        """Return of each mail that somebody got the end of its Message-ID and what the subject says in the end."""
        mails = [mail for mail, to in zip(self.inbox.read(), self.inbox.recipients, strict=True) if reader in to]
        return [f"{mail['Message-ID'].partition('@')[0][-3:]} {mail['Subject'].split('(')[-1]}" for mail in mails]

    @property
    def receipts(self) -> list[tuple[str, str, str]]:
        return sorted((receipt.notice[-3:], receipt.outcome, receipt.detail) for receipt in self.box.receipts)


@pytest.fixture
def post(smtp, inbox: Inbox) -> Post:
    inbox.replies[A] = "452 4.2.2 mailbox full"
    return Post(smtp(), inbox)


LIMIT = "131,080 of 131,072)"


def test_who_takes_mails_reads_each_notice_once_and_in_order_while_another_is_refused(post: Post) -> None:
    for kind in ("sockmem.incident.opened", UPDATE, RESOLVED):
        post.say(kind)
        post.run(600)
        assert (1, FULL) == (post.courier.waiting.notices, post.courier.waiting.why)
        assert f"ops: 1 waiting, {FULL} since" in (post.courier.status or "")

    assert [f"001 {LIMIT}", "002 update)", "003 resolved after 12 min)"] == post.read(B)
    assert [] == post.read(A)
    taken = ("delivered", f"taken for 1 of 2 recipients; {FULL}")
    assert [("001", *taken), ("002", *taken), ("003", *taken)] == post.receipts


def test_the_refused_one_gets_the_newest_when_there_is_room_and_the_trouble_is_over(
    post: Post, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="sockmem-agent")
    post.say()
    post.run(600)
    post.say(UPDATE)
    post.run(1200)
    post.inbox.replies.clear()
    post.run(600)

    assert ["002 update)"] == post.read(A)
    assert [f"001 {LIMIT}", "002 update)"] == post.read(B)
    assert ("002", "delivered", "taken for 2 of 2 recipients") == post.receipts[-1]
    assert (0, None) == (post.courier.waiting.notices, post.courier.status)
    logged = [record.getMessage() for record in caplog.records if record.name == "sockmem-agent"]
    assert [f"ops: not delivered, will be tried again: {FULL}", "ops: delivered again after 30 min"] == logged
    assert 2 == post.courier.counts["delivered"]


def test_a_mailbox_that_is_full_for_a_day_is_given_up_alone_and_the_others_read_on(
    post: Post, caplog: pytest.LogCaptureFixture
) -> None:
    post.say()
    post.run(23.9 * 3600)
    assert 0 == post.courier.counts["gave_up"]
    post.run(0.2 * 3600)
    assert [("001", "delivered", f"taken for 1 of 2 recipients; {FULL}")] == post.receipts
    assert post.courier.counts["failed"] - 5 == post.box.receipts[0].attempts > 288  # Five were reminders.
    assert f"ops: gave up sockmem.incident.opened of incident 20261122T150539Z-7f3a: {FULL}" in caplog.text
    assert 1 == post.courier.counts["gave_up"]
    assert (0, None) == (post.courier.waiting.notices, post.courier.status)
    post.run(3600)
    post.say(UPDATE)
    post.run(3600)
    post.say(RESOLVED)
    post.run(25 * 3600)

    read = post.read(B)
    assert (f"001 {LIMIT}", "002 update)", "003 resolved after 12 min)") == (read[0], read[-2], read[-1])
    assert [f"still open after {hours} h)" for hours in (1, 2, 4, 8, 16)] == [each[4:] for each in read[1:-2]]
    assert ["delivered"] * 3 == [outcome for _, outcome, _ in post.receipts]


def test_a_full_mailbox_delays_nobody_elses_next_mail(post: Post) -> None:
    post.say()
    for number in range(4):
        post.run(3607)
        post.inbox.recipients.clear()
        post.say(incident=f"20261122T160539Z-000{number}")
        post.courier.step()
        assert [[B]] == post.inbox.recipients


def test_a_restart_or_reload_sends_nothing_again_and_the_refused_one_gets_the_next(post: Post) -> None:
    post.say()
    post.run(600)
    before, post.courier = post.courier, post.start()
    post.courier.succeed(before)
    post.run(600)
    assert (0, None) == (post.courier.waiting.notices, post.courier.status)
    post.courier = post.start()
    post.inbox.replies.clear()
    post.run(600)
    post.say(UPDATE)
    post.run(60)

    assert [f"001 {LIMIT}", "002 update)"] == post.read(B)
    assert ["002 update)"] == post.read(A)
    assert ("001", "delivered", f"taken for 1 of 2 recipients; {FULL}") == post.receipts[0]


def test_an_opening_that_some_lack_gives_way_when_the_incident_ends_and_nobody_is_told(smtp, inbox: Inbox) -> None:
    inbox.replies[A] = "452 4.2.2 mailbox full"
    post = Post(smtp(), inbox, resolved=False)
    post.say()
    post.run(600)
    post.say(RESOLVED)
    post.run(60)
    inbox.replies.clear()
    post.run(600)

    assert ["delivered", "skipped"] == [outcome for _, outcome, _ in post.receipts]
    assert ([], [f"001 {LIMIT}"]) == (post.read(A), post.read(B))
    assert (0, None) == (post.courier.waiting.notices, post.courier.status)
    assert {} == post.courier._stories


def test_an_opening_that_some_lack_is_tried_on_though_the_update_is_none_for_the_channel(smtp, inbox: Inbox) -> None:
    inbox.replies[A] = "452 4.2.2 mailbox full"
    post = Post(smtp(), inbox, updates=False)
    post.say()
    post.run(600)
    post.say(UPDATE)
    post.run(60)
    inbox.replies.clear()
    post.run(600)

    assert ["delivered", "skipped"] == [outcome for _, outcome, _ in post.receipts]
    assert [f"001 {LIMIT}"] == post.read(A) == post.read(B)


def test_a_reminder_and_a_digest_are_for_those_who_take_them(post: Post, caplog: pytest.LogCaptureFixture) -> None:
    post.inbox.replies.clear()
    for number in range(21):
        post.say(incident=f"20261122T150539Z-{number:04}")
    post.run(60)
    post.inbox.replies[A] = "452 4.2.2 mailbox full"
    post.run(3700)

    assert 21 == len([outcome for _, outcome, _ in post.receipts])
    assert any(
        outcome == "digested" and detail.endswith(f": taken for 1 of 2 recipients; {FULL}")
        for _, outcome, detail in post.receipts
    )
    assert 21 == len(post.read(B)) - len(post.read(A))
    assert f"ops: taken for 1 of 2 recipients; {FULL}" in caplog.text
    assert (0, None) == (post.courier.waiting.notices, post.courier.status)


def test_a_refused_recipient_is_spared_in_a_silence_too_and_tried_after_it(smtp, inbox: Inbox) -> None:
    inbox.replies[A] = "452 4.2.2 mailbox full"
    post = Post(smtp(), inbox, reminders=False)
    post.say()
    post.run(60)
    post.inbox.replies.clear()
    post.box.silenced = Silence(since=post.now(), until=post.now() + timedelta(hours=25), reason="upgrade")
    post.run(24.5 * 3600)
    assert [] == post.read(A)
    post.run(3600)

    assert [f"001 {LIMIT}"] == post.read(A)


# --- servers that behave badly ----------------------------------------------------------------------------------------


def says(*replies: bytes) -> Handler:
    """Answer each line with the next of these, and the last one for ever."""

    def handle(connection: socket.socket) -> None:
        connection.settimeout(5)
        lines = connection.makefile("rb")
        for reply in replies[:-1]:
            connection.sendall(reply)
            if not lines.readline():
                return
        while True:
            connection.sendall(replies[-1])
            if not lines.readline():
                return

    return handle


@pytest.mark.parametrize(
    ("replies", "expected"),
    [
        ((b"554 5.3.2 not here\r\n",), Rejected(why="SMTP 554 5.3.2")),
        ((b"421 busy\r\n",), Retry(why="SMTP 421")),
        ((b"HTTP/1.1 400 Bad Request\r\n\r\n",), Retry(why="the answer is not SMTP")),
        ((b"\0\xff\n",), Retry(why="the answer is not SMTP")),
        ((b"999 x\r\n",), Retry(why="the answer is not SMTP")),
        (
            (b"220 hi\r\n", b"250 hi\r\n", b"530 5.7.0 T0kenT0ken\r\n"),
            Rejected(why="SMTP 530 5.7.0: it requires a login, or encryption"),
        ),
        (
            (b"220 hi\r\n", b"250-hi\r\n250 SIZE x\r\n", b"250 ok\r\n", b"250 ok\r\n", b"250 data?\r\n"),
            Retry(why="the answer is not SMTP"),
        ),
        ((b"220 " + b"x" * 9000 + b"\r\n",), Retry(why="the answer is not SMTP")),
    ],
)
def test_every_answer_ends_in_a_value_without_the_servers_words(
    serve: Callable[[Handler], str], replies: tuple[bytes, ...], expected: object
) -> None:
    assert channel(serve(says(*replies))).notify(make_sent_notice()) == expected


def pour(connection: socket.socket) -> None:
    connection.settimeout(5)
    for _ in range(1000):
        connection.sendall(b"220-" + b"x" * 8000 + b"\r\n")


def drip_reply(connection: socket.socket) -> None:
    connection.settimeout(5)
    for _ in range(100):
        connection.sendall(b"2")
        time.sleep(0.05)


def close(connection: socket.socket) -> None:
    connection.sendall(b"220")


@pytest.mark.parametrize(
    ("handler", "why"),
    [
        (hang, f"no answer within {SHORT} s"),
        (drip_reply, f"no answer within {SHORT} s"),
        (close, "connection closed"),
        (pour, "connection closed"),
    ],
)
def test_one_deadline_and_a_bounded_answer_whatever_the_server_does(
    serve: Callable[[Handler], str], handler: Handler, why: str
) -> None:
    started = time.monotonic()

    delivery = channel(serve(handler), deadline_seconds=SHORT).notify(make_sent_notice())

    assert delivery == Retry(why=why)
    assert time.monotonic() - started < SHORT + 2


def read_mail(connection: socket.socket) -> None:
    """Be a server until it has the whole mail, to which it has not answered yet."""
    connection.settimeout(5)
    lines = connection.makefile("rb")
    connection.sendall(b"220 hi\r\n")
    for reply in (b"250 hi\r\n", b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n"):
        lines.readline()
        connection.sendall(reply)
    while lines.readline() != b".\r\n":
        pass


def say(text: bytes) -> Handler:
    return lambda connection: connection.sendall(text)


@pytest.mark.parametrize(
    ("end", "why"),
    [
        (lambda _: None, "connection closed"),
        (hang, f"no answer within {SHORT} s"),
        (say(b"what?\r\n"), "the answer is not SMTP"),
        (say(b"251 taken\r\n"), "the answer is not SMTP"),
        (say(b"250 " + b"x" * 9000 + b"\r\n"), "the answer is not SMTP"),
    ],
)
def test_a_server_that_does_not_answer_to_the_mail_may_have_it(
    serve: Callable[[Handler], str], end: Handler, why: str
) -> None:
    def handle(connection: socket.socket) -> None:
        read_mail(connection)
        end(connection)

    delivery = channel(serve(handle), deadline_seconds=SHORT).notify(make_sent_notice())

    assert Retry(why=why, may_be_taken=True) == delivery


@pytest.mark.parametrize("reply", [b"", b"what?\r\n"])
def test_a_server_that_never_asked_for_the_mail_cannot_have_it(serve: Callable[[Handler], str], reply: bytes) -> None:
    def handle(connection: socket.socket) -> None:
        connection.settimeout(5)
        lines = connection.makefile("rb")
        connection.sendall(b"220 hi\r\n")
        for said in (b"250 hi\r\n", reply):
            lines.readline()
            connection.sendall(said)

    delivery = channel(serve(handle)).notify(make_sent_notice())

    assert Retry(why="the answer is not SMTP" if reply else "connection closed") == delivery


def test_a_server_that_hangs_after_it_took_the_mail_has_it(serve: Callable[[Handler], str]) -> None:
    """Postfix may take its time for QUIT; the mail was taken at the dot."""

    def handle(connection: socket.socket) -> None:
        read_mail(connection)
        connection.sendall(b"250 taken\r\n")
        hang(connection)

    delivery = channel(serve(handle), deadline_seconds=5).notify(make_sent_notice())

    assert delivery == Delivered(detail="taken for 1 of 1 recipient")


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        ("127.0.0.1:9", Retry(why="connection refused")),
        ("none.invalid:25", Retry),
        (f"{'x' * 70}.example:25", Rejected),
    ],
)
def test_a_server_that_cannot_be_reached_is_a_value(server: str, expected: object) -> None:
    delivery = channel(server).notify(make_sent_notice())

    assert delivery == expected or type(delivery) is expected


def test_no_odd_answer_is_a_surprise(serve: Callable[[Handler], str], pytestconfig: pytest.Config) -> None:
    seed = pytestconfig.getoption("fuzz_seed") or os.urandom(4).hex()
    words = [b"250", b"250-", b"220", b"334", b"354", b"421", b"235", b"-1", b"AUTH PLAIN LOGIN CRAM-MD5", b"SIZE 9"]
    words += [
        b"STARTTLS",
        b" ",
        b"\r\n",
        b"\n",
        b"\0",
        b"\xff",
        b"====",
        b"T0kenT0ken",
        b"1.2.3",
        b"4.7.1",
        b"x" * 9000,
    ]

    def handle(connection: socket.socket) -> None:
        dice = Random(f"{seed}:{len(seen)}")
        connection.settimeout(0.2)
        seen.append(dice.choice([b"220 x\r\n250-x\r\n250 AUTH CRAM-MD5\r\n", b"", b"220 x\r\n"]))
        for _ in range(40):
            seen[-1] += dice.choice(words) + dice.choice([b"", b" ", b"\r\n"])
        connection.sendall(seen[-1])

    seen: list[bytes] = []
    address = serve(handle)
    mails = channel(address, user="agent", password_file=str(Path(__file__).with_name("conftest.py")))
    mails._password = PASSWORD
    for _ in range(200):
        delivery = mails.notify(make_sent_notice())
        assert isinstance(delivery, Retry | Rejected), (seed, seen[-1])
        assert PASSWORD not in delivery.why, (seed, seen[-1])
        assert "no answer within" not in delivery.why, (seed, seen[-1])


# --- a real one -------------------------------------------------------------------------------------------------------

EXIM = """
spool_directory = {here}/spool
log_file_path = {here}/spool/%slog
primary_hostname = mail.example.org
keep_environment =
tls_advertise_hosts = *
tls_certificate = {here}/server.pem
acl_smtp_rcpt = check
begin acl
check:
  deny local_parts = nobody-here
  accept
begin routers
all:
  driver = accept
  transport = files
begin transports
files:
  driver = appendfile
  file = {here}/mail/ops
  create_file = anywhere
  user = Debian-exim
  group = Debian-exim
"""


def listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def exim(authority: trustme.CA, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path]]:
    """Run an exim4 of the test's own, which delivers into files; return its address and the files' folder."""
    program = shutil.which("exim4", path="/usr/sbin:/usr/bin")
    if program is None:
        pytest.skip("no exim4 here: apt-get install exim4-daemon-light")
    if os.geteuid() != 0:
        pytest.skip("exim4 takes another configuration from root alone")
    # Exim's user must get there, which pytest's folders do not allow.
    with tempfile.TemporaryDirectory() as folder, hold_port() as held:
        here, port = Path(folder), port_of(held)
        for path in (here, here / "spool", here / "mail"):
            path.mkdir(exist_ok=True)
            path.chmod(0o777)
        authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(here / "server.pem"))
        (here / "server.pem").chmod(0o644)
        (here / "conf").write_text(EXIM.format(here=here))
        process = subprocess.Popen([program, "-C", here / "conf", "-bdf", "-odi", "-oX", f"127.0.0.1:{port}"])
        try:
            wait_for("exim", lambda: listens(port))
            yield f"localhost:{port}", here / "mail"
        finally:
            process.terminate()
            process.wait()


def test_a_real_exim_delivers_it_over_starttls(exim: tuple[str, Path], keys: dict[str, str]) -> None:
    server, folder = exim
    notice = make_sent_notice(host="größer")

    delivery = channel(
        server, to=("ops@example.org", "nobody-here@example.org"), tls="starttls", ca_file=keys["ca_file"]
    ).notify(notice)

    assert isinstance(delivery, Delivered)
    assert delivery.detail.startswith("taken for 1 of 2 recipients; nobody-here@example.org: SMTP 550")
    box = folder / "ops"
    wait_for("the whole mail to be in its file", lambda: box.exists() and b"details: " in box.read_bytes())
    mail = email.message_from_bytes((folder / "ops").read_bytes().partition(b"\n")[2], policy=default)
    assert title(notice) == mail["Subject"]
    assert body_text(notice) == mail.get_content().rstrip("\n") + "\n"


def test_the_server_and_the_log_never_tell_the_password(
    smtp, keys: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="sockmem-agent")
    server = smtp(authenticator=lambda *_: AuthResult(success=False, handled=False), auth_require_tls=False)
    mails = channel(server, user="agent", password_file=keys["password_file"])

    delivery = mails.notify(make_sent_notice())

    assert PASSWORD not in repr(delivery) + repr(mails._settings) + caplog.text
