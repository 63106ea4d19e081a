"""Answers that many clients get, compressed once."""

import random
import zlib

import pytest
from flask import Flask

from trainvitals.app.web.compression import SMALLEST, Rest

GZIP = {"Accept-Encoding": "gzip, deflate, br"}
START = b'{"pill":"running"'


def answered(start, rest, headers):
    with Flask(__name__).test_request_context(headers=headers):
        return rest.behind(start, "application/json")


@pytest.mark.parametrize("size", [SMALLEST, 5_000, 300_000])
def test_an_answer_is_one_gzip_file_of_its_start_and_of_what_many_end_with(size):
    noise = random.Random(size)
    plain = b',"values":[' + bytes(noise.choices(b"0123456789,", k=size)) + b"]}"
    rest = Rest.of(plain)
    for start in (START, START * 3_000, b""):
        answer = answered(start, rest, GZIP)
        assert answer.headers["Content-Encoding"] == "gzip"
        assert answer.headers["Vary"] == "Accept-Encoding"
        assert answer.content_length == len(answer.data) < len(plain) + len(start)
        file = zlib.decompressobj(
            wbits=16 + zlib.MAX_WBITS
        )  # checks the size and the checksum, too
        assert file.decompress(answer.data) == start + plain
        assert file.eof and not file.unused_data


def test_small_answers_and_clients_that_take_no_gzip_get_it_plain():
    short, long = b',"a":1}', b',"a":"' + b"a" * SMALLEST + b'"}'
    for plain, headers in ((short, GZIP), (long, {}), (long, {"Accept-Encoding": "br"})):
        answer = answered(START, Rest.of(plain), headers)
        assert answer.data == START + plain
        assert "Content-Encoding" not in answer.headers


def test_a_page_that_follows_a_run_is_told_the_same_with_gzip_and_without(
    make_app, tmp_path, fill, made_run
):
    fill(tmp_path / "trainvitals.db", made_run("sick", steps=40, sick=True).end("failed"))
    site = make_app().test_client()
    address = "/api/v1/runs/sick/live?charts=run&map="
    plain, packed = (site.get(address, headers=headers) for headers in ({}, GZIP))
    assert packed.headers["Content-Encoding"] == "gzip" and "Content-Encoding" not in plain.headers
    told = zlib.decompress(packed.data, 16 + zlib.MAX_WBITS)
    end = plain.data.index(
        b'"version"'
    )  # when to ask again, before that, is another at each moment
    assert told[told.index(b'"version"') :] == plain.data[end:]
