"""The shapes of the API's answers, as `/api/v1/openapi.json` publishes them. Tests compare them with real answers."""

from typing import Any, TypedDict

from trainvitals.app.rules.describe import Described
from trainvitals.app.rules.policy import Acknowledgement
from trainvitals.app.rules.policytext import Problem as PolicyProblem

Times = str | None
"""RFC 3339 in UTC."""
Numbers = list[float | None]
"""null stands for a number that is not finite."""


class Problem(TypedDict):
    """What went wrong."""

    code: str
    message: str


class Trouble(TypedDict):
    """The answer to every request that fails; some have further keys."""

    error: Problem


class Summary(TypedDict):
    """A run in short."""

    id: str
    project: str
    name: str
    status: str
    tags: list[str]
    world_size: int
    attempts: list[str]
    created: str
    last_seen: str
    last_step: int
    version: int
    archived: Times
    deleted: Times


class ListedRun(Summary):
    """A run in the list."""

    open_findings: dict[str, int]


class Runs(TypedDict):
    """The list."""

    runs: list[ListedRun]


class Group(TypedDict):
    """Layers or parameters, and what is measured of them."""

    group: int
    kind: str
    columns: list[str]
    rows: list[dict[str, Any]]


class Stream(TypedDict):
    """One process of a run."""

    attempt: str
    rank: int
    status: str
    last_seen: Times
    last_step: int


class Run(Summary):
    """A run in full."""

    config: dict[str, Any]
    environment: dict[str, str]
    end_message: str
    judged: bool
    streams: list[Stream]
    scalars: list[str]
    groups: list[Group]


class Deleted(TypedDict):
    """A run was deleted."""

    deleted: str


class Restored(TypedDict):
    """A run was brought back."""

    restored: str


class Archived(TypedDict):
    """A run was put away."""

    archived: str


class Unarchived(TypedDict):
    """A run was brought back into sight."""

    unarchived: str


class Finding(TypedDict):
    """What a rule found."""

    id: str
    key: str
    rule: str
    severity: str
    state: str
    first_step: int
    last_step: int
    layers: list[str]
    root: bool
    cause: str
    evidence: dict[str, Any]
    title: str
    remedy: str
    diff: str
    acknowledged: Times
    """When someone said to have seen it."""
    acknowledged_until: str
    """Until when the policy wants no alert of it, "" for not at all."""
    muted_until: Times
    policy: str
    """Digest of the policy that it was found under, "" for the defaults."""


class Findings(TypedDict):
    """What the rules found."""

    findings: list[Finding]


class Mute(TypedDict):
    """Until when nothing is sent about a finding."""

    until: str | float
    """RFC 3339, or Unix seconds; at most a year from now."""


class RuleState(TypedDict):
    """Where a rule stands."""

    rule: str
    state: str
    reason: str


class States(TypedDict):
    """Where all rules stand."""

    states: list[RuleState]


class Event(TypedDict):
    """Something that happened at a step."""

    step: int
    time: str
    kind: str
    layer: str
    message: str
    data: dict[str, Any]


class Events(TypedDict):
    """What happened."""

    events: list[Event]


class Curve(TypedDict):
    """A number over the steps, in buckets."""

    steps: list[int]
    min: Numbers
    max: Numbers
    mean: Numbers
    last: Numbers
    nonfinite: list[int]


class Series(TypedDict):
    """Curves by name."""

    series: dict[str, Curve]


class Matrix(TypedDict):
    """One statistic of all layers or parameters: rows × buckets."""

    kind: str
    statistic: str
    rows: list[str]
    steps: list[int]
    min: list[Numbers]
    max: list[Numbers]
    mean: list[Numbers]
    nonfinite: list[list[int]]
    recorded: list[list[bool]]


class Delivery(TypedDict):
    """An alert on a channel."""

    id: str
    run: str
    group: str
    kind: str
    created: str
    channel: str
    state: str
    attempts: int
    error: str
    updated: str
    retry_at: Times


class Deliveries(TypedDict):
    """The delivery log."""

    deliveries: list[Delivery]


class Channel(TypedDict):
    """A kind of channel."""

    key: str
    title: str
    ready: bool
    """Whether it is set up."""
    address: str
    """Where it goes, as far as that is no secret; "" where it is not set up."""


class Channels(TypedDict):
    """Every kind of channel."""

    channels: list[Channel]


class Tried(TypedDict):
    """What became of a test message."""

    ok: bool
    message: str


class Preview(TypedDict):
    """What a channel would send."""

    payload: Any


class Spark(TypedDict):
    """A small curve as path data, and where it is broken by values that are not finite."""

    path: str
    broken: list[float]


class ListCard(TypedDict):
    """What the list of runs shows of one. Times are Unix seconds; numbers that are not finite are words."""

    id: str
    project: str
    name: str
    tags: list[str]
    created: float
    seen: float
    reported: str
    step: int
    attempts: int
    level: str
    state: str
    sentence: str
    findings: dict[str, int]
    rules: list[str]
    layers: list[str]
    spark: Spark | None
    loss: float | str | None
    rate: float | None
    metrics: dict[str, float | str | None]
    config: dict[str, bool | int | float | str | None]


class Overview(TypedDict):
    """The list of runs as its page shows it, or what changed of it."""

    now: int
    """The server's clock, ms: `since` of the next question."""
    heard: dict[str, float]
    """When runs were heard of last, Unix seconds."""
    total: int
    """Runs on this shelf."""
    complete: bool
    """False while some cards are still to be made."""
    runs: list[ListCard]


class Figure(TypedDict):
    """A Plotly figure."""

    data: list[dict[str, Any]]
    layout: dict[str, Any]


class DifferingLayer(TypedDict):
    """A layer in which two runs differ."""

    name: str
    link: str
    values: Numbers
    """The last value in each."""
    ratio: float | None
    broken: bool


class Comparison(Figure):
    """How the layers of two runs differ, as a figure and in words."""

    parting: str
    most: list[DifferingLayer]


class Receipt(TypedDict):
    """What became of a batch."""

    next: int
    stored: int


class Health(TypedDict):
    """The server answers."""

    status: str


class Check(TypedDict):
    """One thing that was looked at."""

    ok: bool
    message: str


class Ready(TypedDict):
    """Whether the server can do its work."""

    ready: bool
    checks: dict[str, Check]


class Version(TypedDict):
    """Releases."""

    version: str
    wire: int


class Policy(TypedDict):
    """The policy that the rules judge by."""

    path: str
    state: str
    """"right", "wrong" or "missing"."""
    text: str
    problems: list[PolicyProblem]
    in_force: str
    """Digest of the policy in force; that of the last good file while this one is wrong."""
    rules: list[Described]
    acknowledged: list[Acknowledgement]
