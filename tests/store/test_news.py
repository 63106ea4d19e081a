"""What changed since a cursor, put together with what was known, is what a whole answer says."""

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from trainvitals.app.store import Store

FIELDS = ("min", "max", "mean", "last", "nonfinite")


class Follower:
    """Keeps a chart up to date as a live page does."""

    def __init__(self):
        self.cursor, self.known, self.answers = "", {}, []

    def take(self, news):
        if news.whole:
            self.known = {}
        for name, series in news.data.items():
            own = self.known.setdefault(name, {})
            if len(series.steps):
                for step in [step for step in own if step >= series.steps[0]]:
                    del own[step]
            for index, step in enumerate(series.steps.tolist()):
                own[step] = [float(getattr(series, field)[index]) for field in FIELDS]
        self.cursor = news.cursor
        self.answers.append((news.whole, sum(len(s.steps) for s in news.data.values())))

    def agrees(self, whole):
        return all(
            list(self.known.get(name, {})) == series.steps.tolist()
            and np.allclose(
                list(self.known.get(name, {}).values()) or np.empty((0, 5)),
                np.stack([getattr(series, field) for field in FIELDS], axis=1),
                rtol=1e-6,
                equal_nan=True,
            )
            for name, series in whole.items()
        )


@st.composite
def arrivals(draw):
    """Batches of records: how many in each; whether a later attempt begins with it; how many records a step has."""
    sizes = st.sampled_from([1, 2, 3, 40, 255, 256, 300, 900])
    return draw(st.lists(st.tuples(sizes, st.sampled_from([False] * 6 + [True])), max_size=12))


@pytest.mark.slow
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    arrived=arrivals(),
    points=st.sampled_from([1, 10, 300, 5000]),
    per_step=st.sampled_from([1, 2, 3]),
    seed=st.integers(0, 2**20),
)
@example(  # means that nearly cancel out, so that adding them up in float32 would show
    arrived=[(size, False) for size in (1, 1, 1, 1, 2, 40, 255, 300, 255)],
    points=300,
    per_step=1,
    seed=29186,
)
def test_news_add_up_to_the_whole_answer(
    tmp_path_factory, sender_to, arrived, points, per_step, seed
):
    random = np.random.default_rng(seed)
    with Store.open(tmp_path_factory.mktemp("db") / "t.db") as store:
        stream, attempt, record = sender_to(store, attempt="a0").start().layout(), 0, 0
        scalars, row = Follower(), Follower()
        for size, anew in arrived:
            if anew:
                attempt += 1
                record = max(0, record - int(random.integers(0, 500)))
                stream = sender_to(store, attempt=f"a{attempt}").start().layout()
            for _ in range(size):
                value = math.nan if random.random() < 0.01 else random.normal()
                stream.sample(record // per_step, [[value, 1.0]] * 2, scalars={"loss": value})
                record += 1
            stream.send()
            scalars.take(store.series_news("run-1", ["loss"], scalars.cursor, points=points))
            row.take(store.row_news("run-1", "activation", "fc2", row.cursor, points=points))
            assert scalars.agrees(store.series("run-1", ["loss"], points=points))
            assert row.agrees(store.row("run-1", "activation", "fc2", points=points))


def test_a_live_page_gets_the_last_buckets_alone(store, sender):
    stream, scalars = sender().start().layout(), Follower()
    columns = []
    cursor = ""
    for step in range(3000):
        stream.sample(step, [[step, 1.0], [2.0, 3.0]], scalars={"loss": step})
        if step % 10 == 9:
            stream.send()
            scalars.take(store.series_news("run-1", ["loss"], scalars.cursor, points=400))
            news = store.matrices_news("run-1", "activation", ["std", "rms"], cursor, buckets=400)
            cursor = news.cursor
            columns.append((news.whole, len(news.data["std"].steps)))
    for answers in (scalars.answers, columns):
        assert (
            sum(whole for whole, _ in answers) == 4
        )  # the first, and at 400, 800 and 1600 records
        assert max(count for whole, count in answers if not whole) <= 11


@pytest.mark.parametrize("cursor", ["", "x", "1_2_3", "9" * 400, "1_0_1_0_5"])
def test_what_is_no_cursor_of_the_question_gets_the_whole_answer(store, sender, cursor):
    sender().start().scalars(0, loss=1.0).send()
    news = store.series_news("run-1", ["loss"], cursor)
    assert news.whole
    assert news.data["loss"].steps.tolist() == [0]


def test_there_is_no_news_of_a_run_that_is_not_there(store):
    assert store.series_news("nope", ["loss"], "").data == {}
    assert store.row_news("nope", "activation", "fc1", "").data == {}
    assert store.matrices_news("nope", "activation", ["std"], "").data["std"].rows == []
