"""The login page: a token becomes a cookie, so that a browser can read a protected server."""

from flask import Blueprint, Response, make_response, redirect, render_template, request

from trainvitals.app.web.errors import LoginNeeded, answer, wants_json
from trainvitals.app.web.security import COOKIE, COOKIE_AGE_S, get_guard

bp = Blueprint("login", __name__)


@bp.get("/login")
def form() -> Response:
    """The form that asks for a token."""
    return login_page()


@bp.post("/login")
def enter() -> Response:
    """Set the cookie for a right token and go on to `next`; show the form again for a wrong one."""
    guard = get_guard()
    role = guard.role_of_token(request.form.get("token", "").strip())
    if role is None:
        return login_page("That is not a token of this server.", status=401)
    response = make_response(redirect(_local(request.form.get("next", "")), code=303))
    response.set_cookie(
        COOKIE,
        guard.sign(role),
        max_age=COOKIE_AGE_S,
        httponly=True,
        samesite="Strict",
        secure=request.is_secure,
    )
    return response


@bp.app_errorhandler(LoginNeeded)
def ask(error: LoginNeeded) -> Response:
    """Answer a request without its token: programs get the error, people the form."""
    if wants_json():
        return answer(error)
    return login_page(status=401, goal=request.full_path.rstrip("?"))


def login_page(problem: str = "", *, status: int = 200, goal: str | None = None) -> Response:
    """The form as a page; `goal` is where to go after it (default: the parameter `next`)."""
    goal = _local(request.values.get("next", "") if goal is None else goal)
    response = make_response(render_template("login.html", problem=problem, next=goal), status)
    response.headers["Cache-Control"] = "no-store"
    return response


def _local(goal: str) -> str:
    """`goal` when it is a path of this server, else the list of runs: a link can't lead elsewhere."""
    if not goal.startswith("/") or goal.startswith("//") or not goal.isprintable() or "\\" in goal:
        return "/"
    return goal
