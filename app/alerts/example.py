"""The message that tries a channel."""

from trainvitals.app.alerts.message import Alert


def example(link_base: str, now: float) -> Alert:
    """A message that says that it is a test, with an id of its own for each second."""
    return Alert(
        id=f"test/{int(now)}/open",
        run="test",
        run_name="test message",
        project="trainvitals",
        group="test",
        rule="test",
        kind="open",
        severity="warning",
        over=False,
        title="This is a test: alerts of trainvitals arrive here",
        layers="fc1 … fc48, 48 layers",
        first_step=0,
        last_step=0,
        seen="a test",
        expected="a test",
        remedy="nothing; the channel works.",
        diff="",
        consequences=[],
        more_consequences=0,
        link=f"{link_base}/alerts",
        time=now,
        opened=now,
    )
