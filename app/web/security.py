"""Who may ask for what: host check, tokens, cross-site requests, and the headers every answer carries."""

import hashlib
import hmac
import ipaddress
import re
from functools import cached_property
from typing import Literal
from urllib.parse import urlsplit

from flask import Flask, Response, current_app, request
from itsdangerous import BadData, URLSafeTimedSerializer

from trainvitals.app.settings import LOOPBACK, Settings
from trainvitals.app.web.errors import ApiError, LoginNeeded

Role = Literal["read", "write"]

COOKIE = "trainvitals"
COOKIE_AGE_S = 30 * 24 * 3600
MAX_BODY_BYTES = 64 << 10
CSRF_HEADER = "X-Trainvitals"
BATCH_TYPE = "application/vnd.trainvitals.batch"
"""Content type of a batch. A page of another site can't send it unasked, so it needs no CSRF header."""

_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:(?P<port>[0-9]{1,5}))?")
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_OPEN_ENDPOINTS = frozenset(
    {"static", "pages.bundle.style", "pages.bundle.script"}
    | {"api.healthz", "api.version", "health.readyz", "login.form", "login.enter"}
)

# Neither scripts nor styles are ever inline; what scripts set through the CSSOM needs no leave.
CONTENT_POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "font-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    ]
)

HEADERS = {
    "Content-Security-Policy": CONTENT_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Guard:
    """The checks of one server. Everything is compared in constant time."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._hosts = {name.lower() for name in (*LOOPBACK, *settings.allowed_hosts)}
        self._any_address = settings.host in {"0.0.0.0", "::", ""}
        if not self._any_address:
            self._hosts.add(settings.host.lower())
        if public := urlsplit(settings.base_url).hostname:
            self._hosts.add(public.lower())

    def knows_host(self, header: str) -> bool:
        """Whether a Host header names this server.

        A page that lets its own name point to this address (DNS rebinding) is known by that name. An
        address as such can't be rebound, so a server bound to every address answers to them all.
        """
        name = _host_name(header)
        if name is None:
            return False
        return name in self._hosts or (self._any_address and _is_address(name))

    def role_of_token(self, token: str) -> Role | None:
        """What `token` allows."""
        given = token.encode()
        writes = hmac.compare_digest(given, self._settings.token.encode())
        reads = hmac.compare_digest(given, self._settings.read_token.encode())
        if self._settings.token and writes:
            return "write"
        if self._settings.read_token and reads:
            return "read"
        return None

    def allows(self, needed: Role, held: Role | None) -> bool:
        """Whether someone who holds `held` may do what needs `needed`."""
        if needed == "write":
            return held == "write" or not self._settings.token
        return held is not None or not self._settings.read_token

    def sign(self, role: Role) -> str:
        """A cookie value that proves `role` until it is too old or the tokens change."""
        return self._signer.dumps(role)

    def role_of_cookie(self, value: str) -> Role | None:
        """What a cookie allows; None when it isn't ours, is too old or older than the tokens."""
        try:
            role = self._signer.loads(value, max_age=COOKIE_AGE_S)
        except BadData:
            return None
        return role if role in ("read", "write") else None

    @cached_property
    def _signer(self) -> URLSafeTimedSerializer:
        # The same in every worker and after a restart, gone with the tokens; slow to make, so that
        # whoever holds a reader's cookie can't guess the other token from its signature.
        tokens = f"{self._settings.token}\0{self._settings.read_token}".encode()
        key = hashlib.scrypt(tokens, salt=b"trainvitals cookie", n=2**14, r=8, p=1)
        return URLSafeTimedSerializer(key, salt="role")


def register(app: Flask, settings: Settings) -> None:
    """Check every request to `app` before anything else, and add the headers to every answer."""
    app.extensions["trainvitals_guard"] = Guard(settings)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES  # ingest raises it for batches
    app.before_request(check)
    app.after_request(add_headers)


def get_guard() -> Guard:
    """The guard of the current app."""
    guard: Guard = current_app.extensions["trainvitals_guard"]
    return guard


def check() -> None:
    """Raise ApiError unless the current request may go on."""
    guard = get_guard()
    header = request.environ.get("HTTP_HOST", "")
    if not guard.knows_host(header):
        raise ApiError(
            400,
            "unknown_host",
            f"This server does not answer to the host name {header[:80]!r}. "
            "Start it with --allow-host NAME to let it.",
        )
    writes = request.method not in _SAFE_METHODS
    if writes:
        _check_origin()
    if request.endpoint in _OPEN_ENDPOINTS:
        return
    if not guard.allows("write" if writes else "read", held_role()):
        _refuse(writes)


def held_role() -> Role | None:
    """What the current request's token or cookie allows."""
    guard = get_guard()
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme:
        return guard.role_of_token(token.strip()) if scheme.lower() == "bearer" else None
    cookie = request.cookies.get(COOKIE)
    return guard.role_of_cookie(cookie) if cookie else None


def add_headers(response: Response) -> Response:
    """Add the security headers; pages and data are asked for anew each time."""
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    if request.endpoint != "static":
        response.headers.setdefault("Cache-Control", "no-cache, private")
    return response


def _check_origin() -> None:
    site = request.headers.get("Sec-Fetch-Site", "same-origin")
    origin = request.headers.get("Origin")
    same = site in {"same-origin", "none"}
    if origin is not None:
        same = same and urlsplit(origin).netloc.lower() == request.environ["HTTP_HOST"].lower()
    if not same:
        raise ApiError(403, "cross_site", "A page of another site asked for this. It was not done.")
    exempt = request.mimetype == BATCH_TYPE or request.endpoint in _OPEN_ENDPOINTS
    if not exempt and request.endpoint != "ingest.append" and CSRF_HEADER not in request.headers:
        raise ApiError(
            403,
            "header_missing",
            f"A request that changes something needs the header `{CSRF_HEADER}: 1`.",
        )


def _refuse(writes: bool) -> None:
    held = "Authorization" in request.headers
    wrong = "The token is not the right one" if held else "A token is needed"
    which = "TRAINVITALS_TOKEN" if writes else "TRAINVITALS_READ_TOKEN (or TRAINVITALS_TOKEN)"
    raise LoginNeeded(
        401,
        "wrong_token" if held else "token_needed",
        f"{wrong}. Send `Authorization: Bearer <token>` with the server's {which}.",
        headers={"WWW-Authenticate": 'Bearer realm="trainvitals"'},
    )


def _host_name(header: str) -> str | None:
    """Name or address in a Host header, in lower case; None when there is none."""
    match = _HOST.fullmatch(header.lower())
    if match is None or int(match["port"] or 0) > 65535:
        return None
    return match["name"].strip("[]").removesuffix(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
