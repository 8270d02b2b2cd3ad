"""Mail by SMTP (RFC 5321): an incident is one thread, and a repeat is the same mail again.

    Message-ID: <20261122T150539Z-7f3a.001@example.org>       from the notice's id, the same over every retry
    In-Reply-To: <20261122T150539Z-7f3a@example.org>          the thread: of all mails of the incident
    Auto-Submitted: auto-generated                            RFC 3834: nobody's vacation program answers

Of a server's answers only the codes are repeated: it may say anything, even the password that it was given.
"""

import contextlib
import logging
import re
import smtplib
import socket
import ssl
from collections.abc import Mapping
from email.message import EmailMessage
from email.policy import SMTP
from typing import BinaryIO

from agent.core.delivery import Delivered, Delivery, Rejected, Retry
from agent.core.format import counted, printable
from agent.core.model import Notice
from agent.core.report import body_text, title
from agent.core.settings import EmailSettings, host_and_port, is_near
from agent.notifiers import read_secret
from agent.notifiers.network import Attempt, Attempts, load_certificates, network_words

DEADLINE_SECONDS = 30.0
POLICY = SMTP.clone(cte_type="7bit")  # Not every server takes 8BITMIME.
# Python folds before the first word what is longer than a line. Encoded words are cut to the usual length all the same.
UNFOLDED = POLICY.clone(max_line_length=250)
SUBJECT_CHARACTERS = 200
GREETING, START_MAIL_INPUT = 220, 354
ANSWER_BYTES = 64 * 1024  # of all answers of a server together
REMEMBERED = 1024  # mails that some recipients lack: more than the budget of a day, after which they are given up
NO_SMTP = "the answer is not SMTP"
HINTS = {
    530: "it requires a login, or encryption",
    534: "it requires another way to log in",
    535: "user or password is wrong",
    538: "it requires encryption for a login",
    550: "it does not relay from here, or knows no such mailbox",
    552: "the message is too large",
    553: "it does not take this address",
}

log = logging.getLogger("sockmem-agent")


class EmailNotifier:
    """Sends each notice to all recipients; those who have it are not sent it again when others are still owed."""

    def __init__(self, settings: EmailSettings, *, deadline_seconds: float = DEADLINE_SECONDS) -> None:
        self.name = settings.name
        self._settings = settings
        self._attempts: Attempts[Delivery] = Attempts(deadline_seconds)
        self._password = read_secret(self.name, "password_file", settings.password_file) if settings.user else ""
        self._tls = None if settings.tls == "none" else load_certificates(ssl.create_default_context(), settings)
        self._taken: dict[str, set[str]] = {}  # who has the mail of a notice, while others are owed it

    def notify(self, notice: Notice) -> Delivery:
        """Send the mail: 4xx is tried again; 5xx is refused, as is a server that does not offer to encrypt."""
        taken = self._taken.pop(notice.id, set())
        lacking = [(identifier, have) for identifier, have in self._taken.items() if have]
        self._taken = dict([*lacking, (notice.id, taken)][-REMEMBERED:])
        try:
            return self._attempts.make(lambda attempt: self._send(attempt, notice, taken))
        except smtplib.SMTPResponseException as error:
            # A text is smtplib's own.
            return _sort_reply(error.smtp_code, error.smtp_error, was_sent=self._attempts.was_sent)
        except smtplib.SMTPServerDisconnected:
            return Retry(why="connection closed", may_be_taken=self._attempts.was_sent)
        except smtplib.SMTPException:
            return Rejected(why="the server offers none of the logins CRAM-MD5, PLAIN and LOGIN")
        except UnicodeError:
            return Rejected(why="user, password or server name has characters that SMTP cannot carry")
        except (OSError, ValueError) as error:
            return Retry(why=network_words(error) or NO_SMTP, may_be_taken=self._attempts.was_sent)

    def _send(self, attempt: "Attempt[Delivery]", notice: Notice, taken: set[str]) -> Delivery:
        settings = self._settings
        host, port = host_and_port(settings.smtp)
        smtp = _Connection(attempt, self._tls if settings.tls == "tls" else None, host)
        attempt.on_end = smtp.close
        smtp.open(host, port)
        smtp.ehlo_or_helo_if_needed()
        if settings.tls == "starttls":
            if not smtp.has_extn("starttls"):
                return Rejected(why="the server offers no STARTTLS: wrong port, or something on the way removes it")
            smtp.starttls(context=self._tls)
        if settings.user:
            smtp.login(settings.user, self._password)
        owed = [address for address in settings.to if address not in taken]
        try:
            refused = smtp.sendmail(settings.from_, owed, compose(notice, settings).as_bytes())
        except smtplib.SMTPRecipientsRefused as error:
            return self._sort(error.recipients, taken)
        taken |= set(owed) - refused.keys()
        with contextlib.suppress(OSError):
            smtp.putcmd("QUIT")  # The mail is theirs by now: no answer is waited for.
        return self._sort(refused, taken)

    def _sort(self, refused: Mapping[str, tuple[int, bytes]], taken: set[str]) -> Delivery:
        """Sort the recipients by outcome."""
        replies = {address: _sort_reply(*reply) for address, reply in refused.items()}
        why = "; ".join(f"{printable(address)}: {reply.why}" for address, reply in replies.items())
        detail = f"taken for {len(taken)} of {counted(len(self._settings.to), 'recipient')}" if taken else ""
        if any(isinstance(reply, Retry) for reply in replies.values()):
            return Retry(why=why, taken=detail)
        if not taken:
            return Rejected(why=why)
        if why:
            log.warning("%s: the mail was taken, but not for %s", self.name, why)
        taken.clear()  # Sent once more, it is for all.
        return Delivered(detail=f"{detail}{why and f'; {why}'}")


class _Connection(smtplib.SMTP):
    """smtplib's, whose socket can be cut, and which reads no more than a bounded answer."""

    def __init__(self, attempt: "Attempt[Delivery]", tls: ssl.SSLContext | None, host: str) -> None:
        # Longer than the deadline, which then comes first and is not taken for a closed connection. To greet others
        # smtplib looks up our name, which hangs where no resolver answers.
        super().__init__(timeout=2 * DEADLINE_SECONDS, local_hostname="localhost" if is_near(host) else None)
        self._attempt, self._tls = attempt, tls

    def open(self, host: str, port: int) -> None:
        self._host = host  # for TLS: smtplib sets it where it connects at once
        code, said = self.connect(host, port)
        if code != GREETING:
            raise smtplib.SMTPConnectError(code, said)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        connected = self._attempt.adopt(socket.create_connection((host, port), timeout))
        return self._tls.wrap_socket(connected, server_hostname=host) if self._tls else connected

    def getreply(self) -> tuple[int, bytes]:
        if self.file is None:
            self.file = _Answers(self.sock.makefile("rb"))  # type: ignore[union-attr]
        code, said = super().getreply()
        self._attempt.was_sent = self._attempt.was_sent or code == START_MAIL_INPUT
        return code, said


class _Answers:
    """Reads lines, and ends where there are too many."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._left = ANSWER_BYTES
        self.close = file.close

    def readline(self, size: int) -> bytes:
        line = self._file.readline(min(size, self._left))
        self._left -= len(line)
        return line


def compose(notice: Notice, settings: EmailSettings) -> EmailMessage:
    """Make the mail; whatever foreign text holds, it cannot begin another header."""
    domain = settings.from_.partition("@")[2] or "localhost"
    # Python would decode an encoded word that foreign text holds, and its line break would begin another header.
    subject = title(notice)[:SUBJECT_CHARACTERS].replace("=?", "= ?")
    mail = EmailMessage(UNFOLDED if subject.isascii() else POLICY)
    mail["From"], mail["To"], mail["Subject"] = settings.from_, ", ".join(settings.to), subject
    mail["Date"] = notice.at
    mail["Message-ID"] = _message_id(notice.id, domain)
    if notice.data:
        mail["In-Reply-To"] = mail["References"] = _message_id(notice.data.id, domain)
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(body_text(notice, settings.runbook_url))
    return mail


def _message_id(identifier: str, domain: str) -> str:
    return f"<{re.sub('[^0-9A-Za-z._-]', '-', identifier)}@{domain}>"


def _sort_reply(code: int, said: bytes | str, *, was_sent: bool = False) -> Retry | Rejected:
    if isinstance(said, str) or not 400 <= code < 600:  # noqa: PLR2004 - the classes of RFC 5321, section 4.2.1
        return Retry(why=NO_SMTP, may_be_taken=was_sent)
    enhanced = re.match(rb"[45]\.[0-9]{1,3}\.[0-9]{1,3}(?![0-9.])", said)
    text = f"SMTP {code}" + (f" {enhanced[0].decode()}" if enhanced else "")
    if code < 500:  # noqa: PLR2004 - as above
        return Retry(why=text)
    return Rejected(why=f"{text}: {HINTS[code]}" if code in HINTS else text)
