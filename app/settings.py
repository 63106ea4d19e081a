"""Every setting of the server: name, default, help and environment variable, declared once."""

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import platformdirs

from trainvitals.app.retention import Policy, RetentionError

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
"""Bind addresses that only this machine can reach."""


class SettingsError(ValueError):
    """A setting with a value that can't be used. The message names it, and never shows a secret."""


@dataclass(frozen=True)
class Setting:
    """One setting, as the documentation and the command line show it."""

    name: str
    env: str
    help: str
    default: object
    secret: bool


def _declare(default: Any, help: str, *, secret: bool = False) -> Any:
    metadata = {"help": help, "secret": secret}
    if callable(default):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata, repr=not secret)


def default_database() -> Path:
    """The database that is used when none is named: in the user's data folder."""
    return Path(platformdirs.user_data_dir("trainvitals", appauthor=False)) / "trainvitals.db"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a server runs with. Secrets stay out of `repr`."""

    database: Path = _declare(  # noqa: RUF009 - makes a dataclass field
        default_database, "SQLite database file; created when missing."
    )
    host: str = _declare("127.0.0.1", "Address to bind. Anything but loopback needs a token.")
    port: int = _declare(7070, "Port to bind; 0 takes a free one.")
    token: str = _declare("", "Token that writing (sending, deleting) requires.", secret=True)
    read_token: str = _declare("", "Token that reading requires.", secret=True)
    allowed_hosts: tuple[str, ...] = _declare(
        (), "Further host names that people reach the server by (comma-separated)."
    )
    base_url: str = _declare("", "Public address of the server, for the links in alerts.")
    slack_webhook: str = _declare("", "Slack incoming webhook that alerts go to.", secret=True)
    webhook_url: str = _declare("", "Address that alerts are posted to as JSON.", secret=True)
    webhook_secret: str = _declare("", "Key that signs what is posted there.", secret=True)
    rules: Path = _declare(  # noqa: RUF009 - makes a dataclass field
        Path("trainvitals.toml"),
        "Policy file: rules, thresholds, severities, acknowledgements. It need not exist.",
    )
    retention: str = _declare(
        "", 'How long runs are kept, such as "days=90 size=20GB"; see docs/database.md.'
    )
    smtp_url: str = _declare(
        "", "Mail server, smtp[s]://user:password@host:port, that alerts go out by.", secret=True
    )
    email_to: tuple[str, ...] = _declare((), "Mailboxes that alerts go to (comma-separated).")
    email_from: str = _declare("", "Sender of these mails; by default the user of the mail server.")
    apprise_url: str = _declare(
        "", "Apprise URL that alerts go to (needs trainvitals[apprise]).", secret=True
    )
    workers: int = _declare(2, "Server processes.")
    threads: int = _declare(16, "Threads of each server process.")

    def __post_init__(self) -> None:
        """Raise SettingsError for a value that can't work."""
        if not 0 <= self.port <= 65535:
            raise SettingsError(f"port is {self.port}; expected 0 to 65535.")
        for name, low, high in (("workers", 1, 64), ("threads", 1, 256)):
            if not low <= getattr(self, name) <= high:
                raise SettingsError(f"{name} is {getattr(self, name)}; expected {low} to {high}.")
        for name in ("base_url", "slack_webhook", "webhook_url"):
            value = getattr(self, name)
            if value and not _is_address(value, {"http", "https"}):
                raise SettingsError(f"{name} is no address; expected http://… or https://….")
        if self.smtp_url and not _is_address(self.smtp_url, {"smtp", "smtps"}):
            raise SettingsError("smtp_url is no address; expected smtp://… or smtps://….")
        if self.apprise_url and "://" not in self.apprise_url:
            raise SettingsError("apprise_url is no address; expected service://….")
        for mailbox in (*self.email_to, *([self.email_from] if self.email_from else [])):
            if "@" not in mailbox or not mailbox.isprintable():
                raise SettingsError(f"{mailbox[:80]!r} is no mailbox; expected name@host.")
        if bool(self.smtp_url) != bool(self.email_to):
            raise SettingsError("smtp_url and email_to belong together; one of them is missing.")
        for name in ("token", "read_token"):
            value = getattr(self, name)
            if value and not (value.isascii() and value.isprintable() and " " not in value):
                raise SettingsError(f"{name} holds spaces or characters that HTTP can't carry.")
        try:
            Policy.parse(self.retention)
        except RetentionError as error:
            raise SettingsError(f"retention: {error}") from error

    @classmethod
    def from_env(
        cls, *, environ: Mapping[str, str] = os.environ, **overrides: object
    ) -> "Settings":
        """Settings from `overrides`, then the environment, then the defaults.

        An override of None counts as not given. A secret may also be read from the file that
        `<variable>_FILE` names. Raises SettingsError.
        """
        values: dict[str, Any] = {}
        for setting in SETTINGS:
            text = _text(setting, environ)
            if text is not None:
                values[setting.name] = _parse(setting, text)
        values.update({name: value for name, value in overrides.items() if value is not None})
        return cls(**values)

    def to_env(self) -> dict[str, str]:
        """Environment from which `from_env` makes these settings again, for a child process."""
        env = {}
        for setting in SETTINGS:
            value = getattr(self, setting.name)
            env[setting.env] = ",".join(value) if isinstance(value, tuple) else str(value)
        return env

    @property
    def policy(self) -> Policy:
        """What `retention` says."""
        return Policy.parse(self.retention)

    @property
    def link_base(self) -> str:
        """Address that links in alerts start with, without a slash at the end."""
        return self.base_url.rstrip("/") or f"http://{bracketed(self.host)}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        return self.host in LOOPBACK or self.host.startswith("127.")


def bracketed(host: str) -> str:
    """`host` as it stands in an address: an IPv6 address gets its brackets."""
    return f"[{host}]" if ":" in host else host


SETTINGS = tuple(
    Setting(
        name=field.name,
        env=f"TRAINVITALS_{field.name.upper()}",
        help=field.metadata["help"],
        default=None if field.default is dataclasses.MISSING else field.default,
        secret=field.metadata["secret"],
    )
    for field in dataclasses.fields(Settings)
)
"""All settings, in the order in which they are declared."""


def _text(setting: Setting, environ: Mapping[str, str]) -> str | None:
    if (text := environ.get(setting.env)) is not None:
        return text.strip()
    file = environ.get(f"{setting.env}_FILE") if setting.secret else None
    if file is None:
        return None
    try:
        return Path(file).read_text().strip()
    except OSError as error:
        raise SettingsError(f"{setting.env}_FILE can't be read: {error.strerror}.") from error


def _parse(setting: Setting, text: str) -> object:
    match setting.default:
        case None:
            return Path(text).expanduser() if text else default_database()
        case Path():
            return Path(text).expanduser() if text else setting.default
        case int():
            try:
                return int(text)
            except ValueError:
                raise SettingsError(f"{setting.env} is {text!r}; expected a number.") from None
        case tuple():
            return tuple(part.strip() for part in text.split(",") if part.strip())
        case _:
            return text


def _is_address(text: str, schemes: set[str]) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
