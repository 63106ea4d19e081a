"""A model that FSDP2 has sharded over two ranks: the values of one process, in one reduction, and never a wait."""

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from distributed import sharded
from distributed.launching import Streams, launch, streams_in

import trainvitals.hooks as tv
from trainvitals.hooks.spool import find_streams, read_stream
from trainvitals.hooks.wire import codec
from trainvitals.hooks.wire.columns import MISSING_BITS
from trainvitals.hooks.wire.records import Event, Layout, Record, Step

pytestmark = pytest.mark.slow
