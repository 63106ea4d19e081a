"""An alert as plain text, for the channels that take nothing else."""

from trainvitals.app.alerts.message import Alert

_WORDS = {"critical": "CRITICAL", "warning": "Warning", "info": "Note"}


def headline(alert: Alert, limit: int) -> str:
    """One line of at most `limit` characters, without control characters."""
    state = _WORDS[alert.severity]
    if alert.resolved:
        state = "Resolved"
    elif alert.kind in ("escalated", "reminder"):
        state = f"{state}, {'worse' if alert.kind == 'escalated' else 'still'}"
    return one_line(f"{state}: {alert.run_name}: {alert.title}", limit)


def body(alert: Alert) -> str:
    """What was seen, since when, what to do, where to look."""
    lines = [printable(alert.title), ""]
    if alert.resolved or alert.over:
        lines.append(f"From step {alert.first_step:,} to {alert.last_step:,}; it is over.")
    else:
        lines.append(f"Since step {alert.first_step:,}.")
    told = [("Seen", alert.seen), ("Expected", alert.expected), ("Layers", alert.layers)]
    lines += [f"{name}: {printable(value)}" for name, value in told if value]
    if alert.consequences:
        lines += ["", "What followed:", *(f"- {printable(item)}" for item in alert.consequences)]
        if alert.more_consequences:
            lines.append(f"- and {alert.more_consequences} more")
    if alert.remedy and not alert.resolved:
        lines += ["", f"Do this: {printable(alert.remedy)}"]
        lines += [f"    {printable(line)}" for line in alert.diff.splitlines()]
    lines += ["", f"Open: {alert.link}"]
    if alert.handle_link and not alert.resolved:
        lines.append(f"Acknowledge or mute: {alert.handle_link}")
    origin = f"{alert.project} / {alert.run_name} ({alert.run}), rule {alert.rule}"
    lines += ["", printable(origin)]
    if alert.repeated:
        lines.append("This may have come before: the server was stopped while it sent it.")
    return "\n".join(lines) + "\n"


def one_line(text: str, limit: int) -> str:
    """`text` as one printable line of at most `limit` characters."""
    line = " ".join(printable(text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def printable(text: str) -> str:
    """`text` with a space for what a terminal, a mail header or the direction of writing would obey."""
    return "".join(character if character.isprintable() else " " for character in text)
