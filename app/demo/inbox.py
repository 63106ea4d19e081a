"""A small Slack-like receiver on loopback: shows how alerts look when there is no Slack to send them to."""

import html
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MAX_BODY = 1 << 20
_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 720px; margin: 24px auto; padding: 0 12px; }
article { border: 1px solid #8886; border-left: 4px solid #c4420c; border-radius: 8px; }
article { padding: 8px 16px; margin: 12px 0; }
h2 { font-size: 17px; margin: 4px 0; } p { margin: 6px 0; white-space: pre-wrap; overflow-wrap: anywhere; }
small { opacity: .75; white-space: pre-wrap; }
"""


class Inbox:
    """Takes Block Kit messages at `POST /slack`, shows them at `/`. Use as a context manager."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        inbox = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                if length > MAX_BODY:
                    self._answer(413, "text/plain", "too large")
                    return
                inbox.messages.append(json.loads(self.rfile.read(length)))
                self._answer(200, "text/plain", "ok")

            def do_GET(self) -> None:
                self._answer(200, "text/html; charset=utf-8", page(inbox.messages))

            def _answer(self, status: int, kind: str, text: str) -> None:
                body = text.encode()
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.send_header(
                    "Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'"
                )
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_args: object) -> None:
                """Stay quiet: the terminal belongs to the progress bar."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "Inbox":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def page(messages: list[dict[str, Any]]) -> str:
    """The inbox as one HTML page, newest message first."""
    shown = "".join(_article(message) for message in reversed(messages))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Demo inbox</title>'
        f'<meta http-equiv="refresh" content="3"><style>{_STYLE}</style></head><body>'
        "<h1>Demo inbox</h1><p>What a Slack channel would have received.</p>"
        f"{shown or '<p>No alert yet.</p>'}</body></html>"
    )


def _article(message: dict[str, Any]) -> str:
    parts = [_block(block) for block in message.get("blocks", [])]
    return f"<article>{''.join(parts)}</article>"


def _block(block: dict[str, Any]) -> str:
    match block:
        case {"type": "header", "text": {"text": text}}:
            return f"<h2>{_text(text)}</h2>"
        case {"type": "section", **rest}:
            texts = [rest["text"]] if "text" in rest else []
            texts += rest.get("fields", [])
            return "".join(f"<p>{_text(text['text'])}</p>" for text in texts)
        case {"type": "context", "elements": elements}:
            return "".join(
                f"<small>{_text(element.get('text', ''))} </small>" for element in elements
            )
        case {"type": "actions", "elements": elements}:
            return "".join(
                f'<p><a href="{html.escape(element["url"])}">{_text(element["text"]["text"])}</a></p>'
                for element in elements
                if str(element.get("url", "")).startswith("http")
            )
        case _:
            return ""


def _text(text: str) -> str:
    # Slack's own escapes come first; what they stand for must then be safe in HTML.
    plain = text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    return html.escape(plain)
