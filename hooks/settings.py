"""What a run is started with: arguments first, then `TRAINVITALS_...` variables, then defaults."""

import getpass
import json
import os
import platform
import re
import socket
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, cast

import msgspec

from trainvitals.hooks import launch
from trainvitals.hooks.wire import limits
from trainvitals.hooks.wire.records import Value

Mode = Literal["online", "offline", "disabled"]
DEFAULT_URL = "http://127.0.0.1:7070"
DEFAULT_KEEP_MB = 1024
_MODES = ("online", "offline", "disabled")
_SECRET = re.compile(
    r"(^|[_\-.])(token|password|passwd|secret|api_?key|access_?key|private_?key|credentials?)s?$",
    re.IGNORECASE,
)


class RunSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about a run that is fixed at its start."""

    url: str
    token: str
    mode: Mode
    folder: Path
    """The `.trainvitals` folder."""
    project: str
    name: str
    run: str
    attempt: str
    """Id of this process life, the same on all ranks; a later one sorts after an earlier one."""
    rank: int
    world_size: int
    agreed: bool
    """Whether all ranks have the same run id."""
    config: dict[str, Value]
    tags: list[str]
    keep: int
    """Bytes of delivered records, of all runs together, that may stay in `folder`."""


def resolve(
    *,
    project: str | None = None,
    name: str | None = None,
    config: Mapping[str, Any] | None = None,
    mode: str | None = None,
    url: str | None = None,
    dir: str | os.PathLike[str] | None = None,
    token: str | None = None,
    tags: Iterable[str] | None = None,
    id: str | None = None,
) -> RunSettings:
    """The settings of a new run. Raises ValueError or TypeError naming the argument that is wrong."""
    chosen = (mode or _variable("MODE") or "online").lower()
    if chosen not in _MODES:
        raise ValueError(f"mode must be one of {', '.join(_MODES)}; got {chosen!r}.")
    shared = launch.ids()
    given = id or _variable("RUN_ID")
    run = given or shared.run
    if not limits.is_id(run):
        raise ValueError(
            f"id {run[:80]!r} is no run id. Use 1 to 64 letters, digits, '.', '_' or '-', "
            "starting with a letter or digit."
        )
    address = (url or _variable("URL") or DEFAULT_URL).rstrip("/")
    if not re.match(r"https?://[^/]+", address):
        raise ValueError(f"url must look like http://host:7070; got {address!r}.")
    if config is not None and not isinstance(config, Mapping):
        raise TypeError(f"config must be a mapping such as a dict; got {type(config).__name__}.")
    if isinstance(tags, str):
        raise TypeError('tags must be a list of texts, such as ["baseline"]; got one text.')
    labels = tags if tags is not None else _variable("TAGS").split(",")
    rank, world_size = launch.rank_and_world()
    attempt = _variable("ATTEMPT")
    return RunSettings(
        url=address,
        token=token or _variable("TOKEN"),
        mode=cast(Mode, chosen),
        folder=Path(dir or _variable("DIR") or ".") / ".trainvitals",
        project=clean_name(project or _variable("PROJECT") or "default"),
        name=clean_name(name or _variable("RUN_NAME") or run),
        run=run,
        attempt=attempt if limits.is_id(attempt) else shared.attempt,
        rank=rank,
        world_size=world_size,
        agreed=bool(given) or shared.agreed,
        config=clean_config(config or {}),
        tags=[clean_name(str(tag).strip()) for tag in labels if str(tag).strip()],
        keep=_kept_bytes(_variable("SPOOL_KEEP_MB")),
    )


def _kept_bytes(megabytes: str) -> int:
    if not megabytes:
        return DEFAULT_KEEP_MB << 20
    if not megabytes.isdecimal():
        raise ValueError(
            f"TRAINVITALS_SPOOL_KEEP_MB is the size, in MB, that delivered records may take on this disk; got "
            f"{megabytes[:40]!r}. Use a whole number such as 1024; 0 keeps nothing that was delivered."
        )
    return int(megabytes) << 20


def _variable(name: str) -> str:
    return os.environ.get(f"TRAINVITALS_{name}", "").strip()


def clean_name(text: str) -> str:
    """`text` as a name that may travel: valid Unicode, not empty, not too long."""
    valid = str(text).encode(errors="replace").decode()
    return valid[: limits.MAX_NAME] or "unnamed"


def clean_text(text: str) -> str:
    """`text` as a free text that may travel."""
    return text.encode(errors="replace").decode()[: limits.MAX_TEXT]


def clean_config(config: Mapping[str, Any]) -> dict[str, Value]:
    """`config` as plain JSON values: secrets hidden, anything else by its repr, all within the limits."""
    cleaned = {clean_name(key): _clean_value(value, str(key), 1) for key, value in config.items()}
    while cleaned and len(json.dumps(cleaned)) > limits.MAX_JSON_BYTES // 2:
        largest = max(cleaned, key=lambda key: len(json.dumps(cleaned[key])))
        cleaned[largest] = "(left out: too large)"
        if len(cleaned) > 2_000:
            cleaned = dict(list(cleaned.items())[:1_000])
    return cleaned


def _clean_value(value: Any, key: str, depth: int) -> Value:
    if _SECRET.search(key) and value not in (None, ""):
        return "(hidden)"
    match value:
        case None | bool() | str() | float():
            plain: Value = value if not isinstance(value, str) else clean_text(value)
        case int():
            plain = int(value) if abs(value) <= limits.MAX_STEP else str(value)
        case Mapping() if depth < 16:
            plain = {
                clean_name(name): _clean_value(item, str(name), depth + 1)
                for name, item in list(value.items())[:1_000]
            }
        case list() | tuple() | set() | frozenset() if depth < 16:
            plain = [_clean_value(item, "", depth + 1) for item in list(value)[:1_000]]
        case _ if hasattr(value, "__dict__") and type(value).__name__ == "Namespace":
            plain = _clean_value(vars(value), key, depth)
        case _:
            plain = clean_text(repr(value))[:1_000]
    return plain


def environment() -> dict[str, str]:
    """Where the training runs, for people to read."""
    torch = sys.modules.get("torch")
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = ""
    facts = {
        "host": socket.gethostname(),
        "user": user,
        "pid": str(os.getpid()),
        "command": _command(),
        "folder": os.getcwd(),
        "python": platform.python_version(),
        "torch": str(getattr(torch, "__version__", "")),
        "system": platform.platform(),
        "device": _device(torch),
    }
    return {key: clean_text(value)[:1_000] for key, value in facts.items() if value}


def _command() -> str:
    """The command line, with what looks like a secret hidden."""
    shown: list[str] = []
    hide_next = False
    for word in sys.argv:
        name, equals, _ = word.partition("=")
        secret = bool(_SECRET.search(name.lstrip("-")))
        shown.append("(hidden)" if hide_next else f"{name}=(hidden)" if secret and equals else word)
        hide_next = secret and not equals
    return " ".join(shown)


def _device(torch: Any) -> str:
    """The accelerator, only when the training has woken it already: asking would start a context."""
    if torch is not None and torch.cuda.is_initialized():
        return str(torch.cuda.get_device_name())
    return ""
