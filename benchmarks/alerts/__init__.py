"""Whether alerts get lost or doubled: `make bench-alerts`."""
