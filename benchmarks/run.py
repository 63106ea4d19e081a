"""`make bench`: every benchmark of this folder in its short form, printed as ratios measured in one run."""

from benchmarks import store
from benchmarks.overhead import __main__ as overhead

if __name__ == "__main__":
    overhead.main(["--quick"])
    store.main()
