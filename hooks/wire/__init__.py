"""What travels between a training process and the server: records, their encoding, their limits.

Both sides import this package, so it loads neither torch nor Flask.
"""
