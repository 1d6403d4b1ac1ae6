"""The configuration document: what it says, and a change of it."""

import secrets
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from appliance.cli.change import Change, Manner, request
from appliance.cli.client import connect
from appliance.cli.exits import Code, CommandError
from appliance.cli.output import Format, Table, emit, say
from appliance.cluster.config import flat, merged

_PATH = "/api/v1/config"


def show(output: Format) -> int:
    emit(body := _get(), _table(body["document"]), output)
    return Code.DONE


def change(settings: Sequence[str], manner: Manner) -> int:
    """7 when somebody else has changed it meanwhile, 4 when it will not do."""
    client, held, patch = connect(), _get(), _patch(settings)
    lines = _differences(held["document"], merged(held["document"], patch))
    if not lines:
        emit(held, _table(held["document"]), manner.output, text=[f"nothing to change in version {held['version']}"])
        return Code.DONE
    say(sys.stderr, *(f"  {line}" for line in lines))
    question = f"Change the configuration of the cluster, version {held['version']}?"
    based_on = f'"{held["version"]}"'
    answer = request(client, Change("config set", _PATH, patch, question, based_on), secrets.token_hex(8), manner)
    if answer is not None:
        version = held["version"] + 1
        emit(answer.body, _table(answer.body["document"]), manner.output, text=[f"✓ version {version} is in force"])
    return Code.DONE


def _get() -> Mapping[str, Any]:
    answer = connect().get(_PATH)
    if not answer.ok:
        raise CommandError(Code.FAILED, f"{answer.endpoint.shown}: HTTP {answer.status}: {answer.text('detail')}")
    return dict(answer.body)


def _table(document: Mapping[str, object]) -> Table:
    return Table(["SETTING", "VALUE"], [[key, _shown(value)] for key, value in sorted(flat(document).items())])


def _shown(value: object) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("\n").removesuffix("\n...")


def _patch(settings: Sequence[str]) -> dict[str, object]:
    """`failover.fencing=lease` as a merge patch. Raises CommandError 2."""
    patch: dict[str, object] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not key or not equals:
            raise CommandError(Code.USAGE, f"{setting!r} is no KEY=VALUE, like synchronous_mode=quorum")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise CommandError(Code.USAGE, f"{key}: {text!r} is no value as YAML writes it") from None
        *sections, name = key.split(".")
        inner = patch
        for section in sections:
            below = inner.setdefault(section, {})
            if not isinstance(below, dict):
                raise CommandError(Code.USAGE, f"{key}: {section} is given a value of its own, too")
            inner = below
        inner[name] = value
    return patch


def _differences(before: Mapping[str, object], after: Mapping[str, object]) -> list[str]:
    old, new = flat(before), flat(after)
    keys = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    return [f"{key}: {_side(old, key)} -> {_side(new, key)}" for key in keys]


def _side(settings: Mapping[str, object], key: str) -> str:
    return _shown(settings[key]) if key in settings else "(default)"
