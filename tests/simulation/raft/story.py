"""A run's last events, for people to read."""

from dataclasses import fields

_LONG = 60


def lines(result):
    """One line an event: virtual time, who, what."""
    yield f"seed {result.seed}, profile {result.profile} ({result.drawn}), trace {result.digest:08x}"
    for when_s, who, what in result.story:
        yield f"{when_s:9.4f} {who:<13} {what if isinstance(what, str) else _message(*what)}"
    yield f"violation: {result.violation}" if result.violation is not None else "no violation"


def _message(way, peer, message):
    shown = (f"{field.name}={_value(getattr(message, field.name))}" for field in fields(message)[3:])
    return f"{way} {peer} {type(message).__name__} term={message.term} {' '.join(shown)}"


def _value(value):
    if isinstance(value, tuple):
        return "[" + ", ".join(f"{index}/{term} {_value(content)}" for content, index, term in value) + "]"
    text = repr(value)
    return text if len(text) <= _LONG else text[:_LONG] + "…"
