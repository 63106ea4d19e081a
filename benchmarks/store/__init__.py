"""What the store costs: filling it, its size, and the time of every chart's query, beside others on the same data."""
