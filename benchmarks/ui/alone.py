"""The server as `trainvitals serve` runs it, but for the evaluator: it would judge large made-up runs for minutes."""

import argparse
from pathlib import Path

from trainvitals.app.serve import Server, bind
from trainvitals.app.settings import Settings
from trainvitals.app.web import frames, sharing


def main() -> None:
    """Serve a database at a free port until SIGTERM; print the address once requests are taken."""
    parser = argparse.ArgumentParser(prog="benchmarks.ui.alone", description=__doc__)
    parser.add_argument("database", type=Path)
    parser.add_argument(
        "--hurried",
        action="store_true",
        help="frames and shared answers last no time: an hour of refreshes takes minutes",
    )
    options = parser.parse_args()
    if options.hurried:
        frames.FRAME_S = sharing.LONGEST_S = 0.0
    listener = bind("127.0.0.1", 0)
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    settings = Settings(database=options.database, port=listener.getsockname()[1])
    Server(settings, listener, when_ready=lambda _: print(address, flush=True)).run()


if __name__ == "__main__":
    main()
