"""The proofs of `make bench-alerts`, in small."""

import pytest

from benchmarks.alerts import kills, outage

FINE = {"lost": 0, "doubled": 0, "repeated under the same id": 0}


def of(result):
    return {key: result[key] for key in FINE}


@pytest.mark.slow
def test_an_outage_of_all_receivers_loses_and_doubles_nothing():
    found = outage.measure(4, outage_s=600)
    assert {channel: of(found[channel]) for channel in ("slack", "webhook", "email")} == {
        channel: FINE for channel in ("slack", "webhook", "email")
    }
    assert found["slack"]["last one after, s"] <= 300


@pytest.mark.slow
def test_killed_servers_lose_and_double_nothing():
    found = kills.measure(2, runs_a_kill=1)
    for channel in ("slack", "webhook", "email"):
        assert (found[channel]["arrived"], found[channel]["lost"]) == (2, 0)
        assert found[channel]["doubled"] == 0
