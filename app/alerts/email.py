"""E-mail by SMTP: plain text, one thread of messages for each root cause.

A message has the same Message-ID at every try, so that a mailbox can tell a repetition. Later ones refer to their
opening.
"""

import hashlib
import smtplib
import ssl
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr
from typing import Self
from urllib.parse import unquote, urlsplit

from trainvitals.app.alerts.base import Channel, ChannelError
from trainvitals.app.alerts.message import Alert
from trainvitals.app.alerts.plan import open_id
from trainvitals.app.alerts.text import body, headline
from trainvitals.app.settings import LOOPBACK, Settings

TIMEOUT_S = 15.0
MAX_SUBJECT = 200


class Email(Channel):
    """Mailboxes, reached by an SMTP server.

    smtps:// speaks TLS from the start; smtp:// asks for TLS (STARTTLS), and sends no password and, but to this machine,
    no message without it.
    """

    key = "email"
    title = "E-mail"

    def __init__(self, url: str, recipients: tuple[str, ...], sender: str = "") -> None:
        parts = urlsplit(url)
        self._secure = parts.scheme == "smtps"
        self._host = parts.hostname or ""
        self._port = parts.port or (465 if self._secure else 587)
        self._user = unquote(parts.username or "")
        self._password = unquote(parts.password or "")
        self._recipients = recipients
        self._sender = sender or (self._user if "@" in self._user else f"trainvitals@{self._host}")

    @classmethod
    def from_settings(cls, settings: Settings) -> Self | None:
        """The channel, when `smtp_url` and `email_to` are set."""
        if not (settings.smtp_url and settings.email_to):
            return None
        return cls(settings.smtp_url, settings.email_to, settings.email_from)

    @property
    def address(self) -> str:
        """The recipients and the server, without the password."""
        return f"{', '.join(self._recipients)} by {self._host}:{self._port}"

    def payload(self, alert: Alert) -> dict[str, object]:
        """Headers and body of the message."""
        message = self.message(alert)
        return {**dict(message.items()), "body": message.get_content()}

    def message(self, alert: Alert) -> EmailMessage:
        """The message for `alert`. Pure."""
        message = EmailMessage()
        message["Subject"] = headline(alert, MAX_SUBJECT)
        message["From"] = self._sender
        message["To"] = ", ".join(self._recipients)
        message["Date"] = format_datetime(datetime.fromtimestamp(alert.time, UTC))
        message["Message-ID"] = self._message_id(alert.id)
        if alert.kind != "open":
            opening = self._message_id(open_id(alert.id))
            message["In-Reply-To"] = opening
            message["References"] = opening
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(body(alert))
        return message

    def send(self, alert: Alert) -> None:
        """Hand the message to the server, to all recipients or to none. Raises ChannelError."""
        try:
            with self._connect() as server:
                self._enter(server)
                refused = server.send_message(
                    self.message(alert), parseaddr(self._sender)[1], list(self._recipients)
                )
        except smtplib.SMTPAuthenticationError as error:
            raise ChannelError("The mail server refuses the user or the password.") from error
        except smtplib.SMTPRecipientsRefused as error:
            final = all(code >= 500 for code, _ in error.recipients.values())
            raise ChannelError(
                "The mail server refuses every recipient.", permanent=final
            ) from error
        except smtplib.SMTPSenderRefused as error:
            raise ChannelError(
                f"The mail server refuses the sender ({error.smtp_code}); set TRAINVITALS_EMAIL_FROM.",
                permanent=error.smtp_code >= 500,
            ) from error
        except smtplib.SMTPResponseException as error:
            raise ChannelError(
                f"The mail server refused the message ({error.smtp_code}).",
                permanent=error.smtp_code >= 500,
            ) from error
        except ssl.SSLError as error:
            raise ChannelError("The mail server's certificate can't be verified.") from error
        except TimeoutError as error:
            raise ChannelError("The mail server did not answer in time.") from error
        except (smtplib.SMTPException, OSError) as error:
            raise ChannelError("There is no connection to the mail server.") from error
        if refused:
            # Those who were accepted have it: another try would tell them twice.
            raise ChannelError(
                f"The mail server refuses {len(refused)} of {len(self._recipients)} recipients; the others got it.",
                permanent=True,
            )

    def _connect(self) -> smtplib.SMTP:
        if self._secure:
            return smtplib.SMTP_SSL(
                self._host, self._port, timeout=TIMEOUT_S, context=ssl.create_default_context()
            )
        return smtplib.SMTP(self._host, self._port, timeout=TIMEOUT_S)

    def _enter(self, server: smtplib.SMTP) -> None:
        server.ehlo()
        if not self._secure:
            if server.has_extn("starttls"):
                server.starttls(context=ssl.create_default_context())
                server.ehlo()
            elif self._password or self._host not in LOOPBACK:
                raise ChannelError("The mail server offers no TLS; nothing was sent to it.")
        if self._user and self._password:
            server.login(self._user, self._password)

    def _message_id(self, alert_id: str) -> str:
        digest = hashlib.sha256(alert_id.encode()).hexdigest()[:32]
        return f"<{digest}@trainvitals>"
