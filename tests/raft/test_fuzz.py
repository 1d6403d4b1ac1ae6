"""The long fuzz (tests/raft/fuzz.py) in short, and that it would find something."""

import pytest

from tests.raft import fuzz


def test_nothing_but_codec_errors_comes_out_of_the_decoder():
    figures = fuzz.run(20_000, seed=7)
    assert figures["accepted"] > 100
    assert figures["arcs"] > 120


def test_a_planted_exception_is_found(monkeypatch):
    def broken(body, allowed):
        message = fuzz.codec.decode(body, allowed)
        return message if message["type"] != "answer" or message["ok"] else message["nothing"]

    monkeypatch.setattr(fuzz, "decode", broken)
    with pytest.raises(fuzz.FindingError, match="KeyError: 'nothing'"):
        fuzz.run(20_000, seed=7)


def test_a_planted_waste_of_memory_is_found(monkeypatch):
    def wasteful(body, allowed):
        kept = [bytes(1000)] * 100_000
        message = fuzz.codec.decode(body, allowed)
        assert kept
        return message

    monkeypatch.setattr(fuzz, "decode", wasteful)
    with pytest.raises(fuzz.FindingError, match="MemoryError"):
        fuzz.run(20_000, seed=7)
