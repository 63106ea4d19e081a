"""E-mail, against a real SMTP server on loopback."""

import socket
from email import message_from_bytes, policy

import pytest
from aiosmtpd.controller import Controller

from trainvitals.app.alerts.base import ChannelError
from trainvitals.app.alerts.email import Email
from trainvitals.app.settings import Settings, SettingsError


class Mailbox:
    """Keeps the messages of a server that answers as `refuse` says."""

    def __init__(self):
        self.got = []
        self.refuse = {}

    async def handle_RCPT(self, server, session, envelope, address, options):  # noqa: N802
        if address in self.refuse:
            return self.refuse[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):  # noqa: N802
        if "data" in self.refuse:
            return self.refuse["data"]
        self.got.append(
            (envelope.rcpt_tos, message_from_bytes(envelope.content, policy=policy.default))
        )
        return "250 OK"


@pytest.fixture
def mailbox():
    box = Mailbox()
    server = Controller(box, hostname="127.0.0.1", port=free_port())
    server.start()
    box.url = f"smtp://127.0.0.1:{server.port}"
    yield box
    server.stop()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def channel(mailbox, *recipients):
    return Email(mailbox.url, recipients or ("ann@example.org",), "tv@example.org")


def test_a_message_arrives_with_what_was_seen_and_what_to_do(mailbox, alert):
    channel(mailbox, "ann@example.org", "bo@example.org").send(alert(diff="-lr=1\n+lr=0.1"))
    ((recipients, message),) = mailbox.got
    assert recipients == ["ann@example.org", "bo@example.org"]
    assert message["Subject"] == "CRITICAL: digits: 90 % of the units of fc1 are dead"
    assert message["To"] == "ann@example.org, bo@example.org"
    text = message.get_content()
    for part in (
        "Seen: 0.9",
        "Expected: at most 0.5",
        "Do this: Lower",
        "    +lr=0.1",
        "/runs/run-1",
    ):
        assert part in text


def test_a_message_has_one_id_at_every_try_and_later_ones_join_its_thread(mailbox, alert):
    mails = channel(mailbox)
    opening = alert()
    mails.send(opening)
    mails.send(opening)
    mails.send(alert(id=opening.id.replace("/open", "/resolved"), kind="resolved"))
    first, again, resolved = (message for _, message in mailbox.got)
    assert first["Message-ID"] == again["Message-ID"] == resolved["In-Reply-To"]
    assert resolved["Message-ID"] != first["Message-ID"]
    assert resolved["Subject"].startswith("Resolved: ")


def test_hostile_names_break_neither_the_headers_nor_the_text(mailbox, alert):
    name = "x\r\nBcc: evil@example.org\r\n\r\n<script>\u202e🚀" + "y" * 10_000
    channel(mailbox).send(alert(run_name=name, title=name, layers=name, consequences=[name]))
    ((recipients, message),) = mailbox.got
    assert recipients == ["ann@example.org"]
    assert message["Bcc"] is None
    assert "\n" not in message["Subject"] and "🚀" in message.get_content()
    assert "\u202e" not in message["Subject"] + message.get_content()
    assert len(message["Subject"]) <= 200


@pytest.mark.parametrize(
    ("refuse", "permanent"),
    [
        ({"data": "451 later"}, False),
        ({"data": "554 never"}, True),
        ({"ann@example.org": "550 unknown"}, True),
        ({"ann@example.org": "450 busy"}, False),
    ],
)
def test_a_refusal_is_final_when_the_server_says_so(mailbox, alert, refuse, permanent):
    mailbox.refuse = refuse
    with pytest.raises(ChannelError) as caught:
        channel(mailbox).send(alert())
    assert caught.value.permanent is permanent
    assert mailbox.got == []


def test_those_who_got_a_message_do_not_get_it_again(mailbox, alert):
    mailbox.refuse = {"bo@example.org": "450 busy"}
    with pytest.raises(ChannelError, match="1 of 2") as caught:
        channel(mailbox, "ann@example.org", "bo@example.org").send(alert())
    assert caught.value.permanent
    assert len(mailbox.got) == 1


def test_a_password_never_goes_to_a_server_without_tls(alert):
    box = Mailbox()
    server = Controller(box, hostname="127.0.0.1", port=free_port())
    server.start()
    try:
        mails = Email(f"smtp://ann:s3cret@127.0.0.1:{server.port}", ("ann@example.org",))
        with pytest.raises(ChannelError, match="no TLS") as caught:
            mails.send(alert())
    finally:
        server.stop()
    assert box.got == []
    assert "s3cret" not in str(caught.value) + mails.address + repr(mails.payload(alert()))


def test_a_server_that_is_away_is_no_final_error(alert):
    with pytest.raises(ChannelError, match="no connection") as caught:
        Email(f"smtp://127.0.0.1:{free_port()}", ("ann@example.org",)).send(alert())
    assert not caught.value.permanent


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"smtp_url": "http://x", "email_to": ("a@b",)}, "smtp://"),
        ({"smtp_url": "smtp://u:hunter2@x"}, "belong together"),
        ({"smtp_url": "smtp://u:hunter2@x", "email_to": ("nobody",)}, "no mailbox"),
    ],
)
def test_settings_that_cannot_work_say_so_without_the_password(given, said):
    with pytest.raises(SettingsError, match=said) as caught:
        Settings(**given)
    assert "hunter2" not in str(caught.value)
