"""`python -m trainvitals.app.cli`: the same as the command `trainvitals`."""

from trainvitals.app.cli import main

main(prog_name="trainvitals")
