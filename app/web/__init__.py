"""The web server: pages for people, JSON for programs, the address that training processes send to."""

import importlib
import importlib.util

from flask import Flask

from trainvitals.app.settings import Settings
from trainvitals.app.web import api, db, errors, ingest, login, security


def create_app(settings: Settings | None = None) -> Flask:
    """The WSGI application. Without `settings` it reads the environment (`Settings.from_env`).

    No database is opened yet, so that gunicorn may fork after this.
    """
    settings = Settings.from_env() if settings is None else settings
    app = Flask(
        "trainvitals.app.web", template_folder="../../templates", static_folder="../../static"
    )
    app.config["SETTINGS"] = settings
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    db.register(app, settings)
    security.register(app, settings)
    errors.register(app)
    for module in (ingest, api, login):
        app.register_blueprint(module.bp)
    for name in ("pages", "figures_api"):
        if importlib.util.find_spec(f"trainvitals.app.web.{name}"):
            app.register_blueprint(importlib.import_module(f"trainvitals.app.web.{name}").bp)
    return app
