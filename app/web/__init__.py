"""The web server: pages for people, JSON for programs, the address that trainings send to."""

from pathlib import Path

from flask import Flask

from trainvitals.app.settings import Settings
from trainvitals.app.web import (
    admission,
    alertpages,
    api,
    assets,
    channels_api,
    compare,
    compression,
    db,
    errors,
    export_api,
    figures_api,
    findings_api,
    health,
    ingest,
    live,
    login,
    metrics,
    openapi,
    overview,
    pages,
    policy_api,
    ready,
    report,
    runpages,
    security,
    sharing,
)

_ROOT = Path(__file__).parents[2]
"""Folder of the package `trainvitals`: the checkout, or where it is installed."""


def create_app(settings: Settings | None = None) -> Flask:
    """The WSGI application. Without `settings` it reads the environment (`Settings.from_env`).

    No database is opened yet, so that gunicorn may fork after this.
    """
    settings = Settings.from_env() if settings is None else settings
    digest = assets.digest(_ROOT / "static")
    app = Flask(
        "trainvitals.app.web",
        template_folder=_ROOT / "templates",
        static_folder=_ROOT / "static",
        static_url_path=f"/static-{digest}",
        # Unused; given because Flask can't work it out for a namespace package.
        instance_path=str(settings.database.absolute().parent),
        root_path=str(Path(__file__).parent),
    )
    app.config["SETTINGS"] = settings
    app.config["DIGEST"] = digest
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    app.config["SEND_FILE_MAX_AGE_DEFAULT"] = assets.YEAR_S  # their address changes with them
    compression.register(app)
    db.register(app, settings)
    metrics.register(app)
    security.register(app, settings)
    admission.register(app, settings)
    errors.register(app)
    for module in (
        *(ingest, api, findings_api, overview, channels_api, figures_api, live, policy_api),
        export_api,
        *(health, openapi),
        *(login, pages, alertpages, runpages, compare, report),
    ):
        app.register_blueprint(module.bp)
    sharing.register(app)
    ready.prepare(app)
    return app
