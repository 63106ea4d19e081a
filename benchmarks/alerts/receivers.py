"""Real receivers on loopback: an HTTP server for Slack and the webhook, an SMTP server for mails."""

import json
import threading
import time
from collections import defaultdict
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.controller import Controller


class Receivers:
    """What arrived on each channel: (time, the message's own id, the run's name). Use as a context manager."""

    def __init__(self) -> None:
        self.got: dict[str, list[tuple[float, str, str]]] = defaultdict(list)
        self.away = False
        """Whether to answer 503, or 451 by mail."""
        self._lock = threading.Lock()
        receivers = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if not receivers.away:
                    receivers.note(self.path.strip("/"), self.headers, json.loads(body))
                self.send_response(503 if receivers.away else 200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self._mail = Controller(self, hostname="127.0.0.1", port=_free_port())

    def __enter__(self) -> "Receivers":
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        self._mail.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._mail.stop()

    @property
    def environment(self) -> dict[str, str]:
        """The settings of a server whose alerts come here."""
        return {
            "TRAINVITALS_SLACK_WEBHOOK": f"http://127.0.0.1:{self.port}/slack",
            "TRAINVITALS_WEBHOOK_URL": f"http://127.0.0.1:{self.port}/webhook",
            "TRAINVITALS_SMTP_URL": f"smtp://127.0.0.1:{self._mail.port}",
            "TRAINVITALS_EMAIL_TO": "someone@example.org",
        }

    def note(self, channel: str, headers: Any, body: Any) -> None:
        """Keep an HTTP message. Slack's has no id: its run and its first words are one here."""
        if channel == "slack":
            run = body["text"].split(": ")[0].split(" ")[-1]
            self._keep("slack", body["text"], run)
        else:
            run = body["commonLabels"]["run_name"]
            self._keep("webhook", headers["Idempotency-Key"], run)

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802
        """Keep a mail."""
        if self.away:
            return "451 later"
        mail = message_from_bytes(envelope.content, policy=policy.default)
        self._keep("email", mail["Message-ID"], mail["Subject"].split(": ")[1])
        return "250 OK"

    def _keep(self, channel: str, key: str, run: str) -> None:
        with self._lock:
            self.got[channel].append((time.monotonic(), key, run))


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
