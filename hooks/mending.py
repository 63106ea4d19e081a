"""Goes on behind damage in a spool: finds the next sound record, and stands in for those that are lost.

A server takes the records of a stream by their numbers, without gaps. So each record that can't be read is replaced by
an event that says so, and what was recorded after it keeps its number. Loads no torch.
"""

import msgspec

from trainvitals.hooks.wire import codec
from trainvitals.hooks.wire.records import Event, Histograms, Layout, Record, Sample, Start, Step

_MARK = b"\xa4type"
"""How every record begins, after the byte that counts its fields."""
_BEFORE_MARK = codec.FRAME_BYTES + 1
_LAYOUT = _MARK + b"\xa6layout"


def next_sound(data: bytes, start: int) -> tuple[int, Record] | None:
    """Where in `data` the first sound frame from `start` on begins, and its record; None where there is none."""
    at = data.find(_MARK, start + _BEFORE_MARK)
    while at >= 0:
        begin = at - _BEFORE_MARK
        payload = codec.payload_at(data, begin)
        if payload is not None:
            try:
                return begin, codec.decode_record(payload)
            except codec.WireError:
                pass  # by chance these bytes look like a frame
        at = data.find(_MARK, at + 1)
    return None


def stand_in(seq: int, last: Record | None, after: Record, run: str, where: str) -> bytes:
    """What is sent in place of record `seq`, between `last` and `after`. where: the file and the place in it."""
    message = f"Record {seq:,} was lost: {where} is damaged."
    if seq == 0:
        environment = {"lost": message}
        start = Start(
            seq=0, time=after.time, project="recovered", name=run, environment=environment
        )
        return codec.encode_record(start)
    time = after.time if last is None else last.time
    step = getattr(last, "step", 0)
    return codec.encode_record(
        Event(seq=seq, time=time, step=step, kind="monitor", message=message, data={"lost": True})
    )


class Fitting:
    """Leaves out of the records behind the damage what no server could read: samples whose layout was lost."""

    def __init__(self, *, whole: bool) -> None:
        """whole: whether all layouts from the stream's first one on are told; else unknown groups are let through."""
        self._whole = whole
        self._layouts: dict[int, Layout] = {}
        self.dropped = 0
        """Samples and histograms that were left out."""

    def learn(self, payload: bytes) -> None:
        """Take note of a layout."""
        if payload[1 : 1 + len(_LAYOUT)] == _LAYOUT:
            layout = codec.decode_record(payload)
            assert isinstance(layout, Layout)
            self._layouts[layout.group] = layout

    def fit(self, payload: bytes) -> bytes:
        """The record with what fits its layouts."""
        self.learn(payload)
        record = codec.decode_record(payload)
        if not isinstance(record, Step):
            return payload
        samples = [item for item in record.samples if self._fits(item)]
        histograms = [item for item in record.histograms if self._fits(item)]
        lost = len(record.samples) + len(record.histograms) - len(samples) - len(histograms)
        if not lost:
            return payload
        self.dropped += lost
        return codec.encode_record(
            msgspec.structs.replace(record, samples=samples, histograms=histograms)
        )

    def _fits(self, item: Sample | Histograms) -> bool:
        layout = self._layouts.get(item.group)
        if layout is None:
            return not self._whole
        if isinstance(item, Sample):
            return len(item.values) == 4 * len(layout.rows) * len(layout.columns)
        try:
            codec.unpack_counts(item.counts, len(layout.rows))
        except codec.WireError:
            return False
        return True
