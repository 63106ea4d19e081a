"""What the first visit would otherwise wait for, done before a server takes any: workers are forked after this.

On a small machine the templates alone take a tenth of a second, in each worker again.
"""

import numpy.ma  # noqa: F401  # NumPy loads it at the first quantile, in 20 ms
from flask import Flask
from jinja2 import BytecodeCache
from jinja2.bccache import Bucket


class _Compiled(BytecodeCache):
    """Templates compiled once for all apps of a process."""

    def __init__(self) -> None:
        self._kept: dict[str, bytes] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        """Fill `bucket` if its template was compiled and is the same."""
        if code := self._kept.get(bucket.key):
            bucket.bytecode_from_string(code)

    def dump_bytecode(self, bucket: Bucket) -> None:
        """Keep what was compiled."""
        self._kept[bucket.key] = bucket.bytecode_to_string()


_compiled = _Compiled()


def prepare(app: Flask) -> None:
    """Compile the templates of `app`. Call it when everything that they use is registered."""
    app.jinja_env.bytecode_cache = _compiled
    for name in app.jinja_env.list_templates():
        app.jinja_env.get_template(name)
