"""A run inside a notebook: its report as it is now, kept in the notebook's file like any other output."""

import html
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

TIMEOUT_S = 10.0


class Shown:
    """What `run.show()` returns: notebooks (Jupyter, VS Code, Colab) draw it, others print its address."""

    def __init__(self, address: str, token: str, height: int) -> None:
        self._address = address
        self._token = token
        self._height = height

    def __repr__(self) -> str:
        return f"trainvitals: {self._address or 'this run is not online'}"

    def _repr_html_(self) -> str:
        if not self._address:
            return "<p>This run is recorded offline: there is no server that could show it.</p>"
        link = html.escape(self._address)
        try:
            page = self._fetch()
        except HTTPError as error:
            return f'<p>The server answered {error.code} for <a href="{link}">{link}</a>.</p>'
        except (URLError, OSError):
            return f'<p>The server at <a href="{link}">{link}</a> does not answer.</p>'
        # In a frame without any rights: names and messages in it are of the training, not of the notebook.
        return (
            f'<iframe srcdoc="{html.escape(page)}" sandbox title="trainvitals: {link}" '
            f'width="100%" height="{self._height}" frameborder="0"></iframe>'
            f'<p><a href="{link}" target="_blank">live page</a></p>'
        )

    def _fetch(self) -> str:
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        with urlopen(
            Request(f"{self._address}/report", headers=headers), timeout=TIMEOUT_S
        ) as reply:
            return str(reply.read().decode())
