"""`make bench`: every benchmark of this folder, printed as ratios measured in one run."""

from benchmarks import overhead, store

if __name__ == "__main__":
    overhead.main()
    store.main()
