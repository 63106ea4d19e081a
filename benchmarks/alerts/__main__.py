"""`python -m benchmarks.alerts [--quick]`: kills and an outage; prints what arrived."""

import argparse
import json
import logging

from benchmarks.alerts import kills, outage


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.alerts")
    parser.add_argument("--quick", action="store_true", help="5 kills instead of 50")
    logging.disable(logging.WARNING)  # every try of the outage would be told
    quick = parser.parse_args().quick
    print(json.dumps({"outage": outage.measure(20 if quick else 60)}, indent=2), flush=True)
    print(json.dumps({"kills": kills.measure(5 if quick else 50)}, indent=2), flush=True)


if __name__ == "__main__":
    main()
