"""The app without its pauses: frames and shared answers last no time, so that an hour of refreshes takes minutes."""

from flask import Flask

from trainvitals.app.web import create_app, frames, sharing


def app() -> Flask:
    """What gunicorn serves for `live.hour`."""
    frames.FRAME_S = 0.0
    sharing.LONGEST_S = 0.0
    return create_app()
