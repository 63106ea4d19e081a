"""`make bench`: every benchmark of this folder in its short form, printed as ratios measured in one run."""

from benchmarks.overhead import __main__ as overhead
from benchmarks.store import __main__ as store

if __name__ == "__main__":
    overhead.main(["--quick"])
    store.main(["--quick"])
