"""What a page that is open takes from the network and has then, where buckets become twice as wide."""

import gzip
import json

import msgspec
import numpy as np
import pytest

from benchmarks.ui.data import Shape, Stream
from trainvitals.app.figures.base import unpacked
from trainvitals.app.web import frames
from trainvitals.hooks.wire.codec import encode_batch, pack_floats
from trainvitals.hooks.wire.columns import ACTIVATION, PARAMETER

MOST = 20_000
"""Bytes of a refresh at 200 layers."""
WIDEST = 4
"""Steps of a bucket at the end."""
LIVE = "/api/v1/runs/run-1/live?charts=run"


class Page:
    """What a page has: figures by key, the map, the tokens of all."""

    def __init__(self, client):
        self._client = client
        self.charts, self.map, self.texts, self.version = {}, None, {}, ""

    def ask(self):
        """Bytes of the next answer, and whether there is more."""
        held = {key: chart["token"] for key, chart in self.charts.items()} | self.texts
        known = "".join(f"&known={key}~{token}" for key, token in held.items())
        token = self.map["token"] if self.map else ""
        address = f"{LIVE}&version={self.version}&map={token}{known}"
        answer = self._client.get(address, headers={"Accept-Encoding": "gzip"})
        packed = answer.headers.get("Content-Encoding") == "gzip"
        news = json.loads(gzip.decompress(answer.data) if packed else answer.data)
        if not news["changed"]:
            return len(answer.data), False
        for key, chart in news["charts"].items():
            self.charts[key] = patched(self.charts.get(key), chart)
        self.map = grown(self.map, news["map"]) if news["map"] else self.map
        self.texts, self.version = news["texts"], "" if news["more"] else news["version"]
        return len(answer.data), news["more"]


def patched(held, news):
    if "data" in news:
        return {**news, "data": [opened(trace) for trace in news["data"]]}
    data = []
    for trace, new in zip(held["data"], news["traces"], strict=False):
        if new is None:
            data.append(trace)
        elif "at" in new:
            points = {key: [*trace[key][: new["at"]], *numbers(new[key])] for key in "xy"}
            data.append({**trace, **points})
        else:
            data.append(opened(new))
    data += [opened(new) for new in news["traces"][len(data) :]]
    return {**held, **news, "data": data}


def opened(trace):
    return {**trace, **{key: numbers(trace[key]) for key in "xy"}}


def numbers(value):
    return unpacked(value).astype(float).tolist()


def grown(held, news):
    codes = unpacked(news["codes"]).astype(int).tolist()
    first = news["first"]
    if first:
        codes = [[*row[:first], *more] for row, more in zip(held["codes"], codes, strict=True)]
        news = {**held, **news, "edges": [*held["edges"][:first], *news["edges"]]}
    return {**news, "codes": codes, "first": 0}


class Sick(Stream):
    """All layers are sick, each at each step in another way: the largest map there is."""

    def _samples(self, step):
        made = []
        for sample, columns in zip(super()._samples(step), (ACTIVATION, PARAMETER), strict=True):
            values = np.frombuffer(sample.values, np.float32).reshape(-1, len(columns)).copy()
            for place, column in enumerate(columns):
                if column.key == "update_ratio":
                    values[:, place] = self._random.lognormal(1.0, 1.0, len(values))
            made.append(msgspec.structs.replace(sample, values=pack_floats(values)))
        return made


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Stream, Sick])
def test_a_refresh_stays_small_where_buckets_become_wider_and_the_page_is_then_as_a_new_one(
    client, clock, kind
):
    stream = kind(Shape(200, 100_000), run="run-1")

    def send(batch):
        body = encode_batch(batch)
        kind = "application/vnd.trainvitals.batch"
        answer = client.post("/api/v1/runs/run-1/batches", data=body, content_type=kind)
        assert answer.status_code == 200
        clock.now += frames.FRAME_S

    send(stream.begin())
    for first in range(0, 780, 130):
        send(stream.steps(first, first + 130))
    page = Page(client)
    first_visit, more = page.ask()
    assert first_visit > MOST
    assert not more
    sizes, rounds = [], []
    for first in range(780, 840, 10):
        send(stream.steps(first, first + 10))
        for count in range(10):
            size, more = page.ask()
            sizes.append(size)
            newest = [chart["data"][0]["x"][-1] for chart in page.charts.values()]
            assert min(newest) >= first + 10 - WIDEST, "a point waited"
            if not more:
                rounds.append(count)
                break
    assert len(rounds) == 6
    assert max(rounds) > 0, "buckets did become wider"
    assert max(sizes) <= MOST
    fresh = Page(client)
    fresh.ask()
    for key, chart in fresh.charts.items():
        held = page.charts[key]
        assert held["layout"] == chart["layout"]
        assert repr(held["data"]) == repr(chart["data"])
    assert page.charts.keys() == fresh.charts.keys()
    assert page.map["edges"] == fresh.map["edges"]
    apart = np.abs(np.array(page.map["codes"]) - np.array(fresh.map["codes"]))
    assert apart.max() <= 10, "levels settle: see livemap"
    assert page.map["token"] == fresh.map["token"]
