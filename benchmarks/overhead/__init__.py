"""What watching a training costs, beside what others do: `make bench-overhead` (docs/overhead.md)."""
