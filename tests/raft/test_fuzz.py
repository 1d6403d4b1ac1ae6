"""The long fuzz (tests/raft/fuzz.py) in short, and that it would find something."""

import pytest

from tests.raft import fuzz, fuzz_joining


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


def test_nothing_but_refusals_comes_out_of_what_strangers_ask_and_people_paste():
    figures = fuzz_joining.run(20_000, seed=7)
    assert figures["questions accepted"] > 100
    assert figures["tokens accepted"] > 10


def test_a_planted_exception_in_a_reader_is_found(monkeypatch):
    def broken(data):
        if fuzz_joining.invitation.decode(data).secret != "s":
            raise KeyError("secret")

    monkeypatch.setitem(fuzz_joining.READERS, "tokens", (fuzz_joining.token, broken, fuzz_joining.InvitationError))
    with pytest.raises(fuzz.FindingError, match="KeyError: 'secret'"):
        fuzz_joining.run(20_000, seed=7)
