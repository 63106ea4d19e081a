"""A run in a notebook."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from trainvitals.hooks.show import Shown

PAGE = '<!doctype html><title>"quoted" & <b>bold</b></title>'


@pytest.fixture
def server():
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.path, self.headers.get("Authorization")))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(PAGE.encode())

        def log_message(self, *_):
            pass

    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=made.serve_forever, args=(0.05,), daemon=True).start()
    made.asked = asked
    yield made
    made.shutdown()
    made.server_close()


def test_the_report_is_kept_in_a_frame_without_rights(server):
    address = f"http://127.0.0.1:{server.server_address[1]}/runs/r1"
    shown = Shown(address, "t0ken", 400)._repr_html_()
    assert server.asked == [("/runs/r1/report", "Bearer t0ken")]
    assert "&lt;!doctype html&gt;&lt;title&gt;&quot;quoted&quot; &amp; &lt;b&gt;" in shown
    assert ' sandbox title="' in shown
    assert 'height="400"' in shown
    assert "t0ken" not in shown


def test_a_server_that_is_away_is_told_with_the_address():
    shown = Shown("http://127.0.0.1:9/runs/r1", "", 400)._repr_html_()
    assert "does not answer" in shown
    assert "http://127.0.0.1:9/runs/r1" in shown


def test_a_run_without_a_server_says_so():
    assert "offline" in Shown("", "", 400)._repr_html_()
    assert "not online" in repr(Shown("", "", 400))
