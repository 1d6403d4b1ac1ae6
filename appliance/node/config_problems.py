"""What is wrong with a node's configuration file, in lines a person can act on: key, value, what would do."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import cast, get_args

from pydantic import BaseModel, ValidationError

_NAMES = frozenset({"name", "cluster", "members"})


class ConfigProblem(ValueError):  # noqa: N818  # a finding about a file, shown as it is
    """Everything found wrong at once. Each problem is one line that begins with its key."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


def problems_of(error: ValidationError, model: type[BaseModel]) -> tuple[str, ...]:
    """Turn what pydantic found into our words. Unknown keys name the nearest known one."""
    return tuple(line for found in error.errors() for line in _lines(cast("Mapping[str, object]", found), model))


def _lines(found: Mapping[str, object], model: type[BaseModel]) -> Iterator[str]:
    location = [str(part) for part in cast("tuple[object, ...]", found["loc"]) if part != "[key]"]
    key, value = ".".join(location), found["input"]
    context = cast("Mapping[str, object]", found.get("ctx", {}))
    cause = context.get("error")
    match found["type"]:
        case "value_error" if isinstance(cause, ConfigProblem):
            yield from cause.problems
        case "value_error":
            text = str(cause)
            yield text if text.startswith(key) else f"{key}: {text}"
        case "extra_forbidden":
            yield f"{key}: unknown setting; {_nearest(location, model)}"
        case "missing":
            yield f"{key}: missing; write {_wanted(location, model)}"
        case "string_type" if isinstance(value, bool | int | float) and location[0] in _NAMES:
            yield f"{key}: YAML reads {value!r} as no text; put it in quotes"
        case _:
            yield f"{key}: {_shown(value)} will not do; write {_wanted(location, model)}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def known_keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every key of the file, dotted."""
    for name, field in model.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        yield key
        for section in _models_in(field.annotation):
            yield from known_keys(section, f"{key}.")


def _models_in(annotation: object) -> Iterator[type[BaseModel]]:
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            yield candidate


def _nearest(location: Sequence[str], model: type[BaseModel]) -> str:
    """Right name in the wrong section first, then a misspelt one, then everything there is."""
    keys, name = list(known_keys(model)), location[-1]
    section = ".".join(location[:-1])
    here = {_leaf(key): key for key in keys if key.rpartition(".")[0] == section}
    anywhere = {_leaf(key): key for key in reversed(keys)}
    own = "custom" in here
    for names in (here,) if own else ({name: anywhere[name]} if name in anywhere else {}, here, anywhere):
        near = difflib.get_close_matches(name, names, n=1)
        if near:
            return f"did you mean {names[near[0]]}?"
    known = f"known here: {', '.join(here.values())}"
    return f"{known}; a name of your own stands below {here['custom']}" if own else known


def _leaf(key: str) -> str:
    return key.rpartition(".")[2]


def _wanted(location: Sequence[str], model: type[BaseModel]) -> str:
    """What the model says of a key, as the end of "write ..."."""
    current: type[BaseModel] = model
    wanted = "another value"
    for part in location:
        field = next((f for name, f in current.model_fields.items() if part in {name, f.alias}), None)
        if field is None:
            break
        wanted = field.description or wanted
        current = next(_models_in(field.annotation), current)
    return wanted
