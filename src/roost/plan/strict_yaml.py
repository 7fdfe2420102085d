"""YAML as Roost keeps it: canonical text out; bounded, alias-free, validated reading in."""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from roost.plan.earlier import FROM_FILE
from roost.units import MiB

# A plan lists its model's files, each in some 170 bytes: room for over 20,000.
MAX_BYTES = 4 * MiB

_MAX_DEPTH = 100

_UNKNOWN_KEY = ("extra_forbidden", "unexpected_keyword_argument")  # in a record, in a dataclass

Document = TypeVar("Document", bound=BaseModel)


class NotValid(ValueError):
    """Text that isn't the document it should be; its message is the problem alone, on one line.

    ``unknown_keys`` says whether it has keys that the schema doesn't know.
    """

    def __init__(self, problem: str, *, unknown_keys: bool = False) -> None:
        super().__init__(problem)
        self.unknown_keys = unknown_keys


_SafeLoader: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's takes a tenth of the time


class _StrictLoader(_SafeLoader):  # type: ignore[misc]
    """The safe loader without duplicate keys, for text that ``_check_events`` has let through."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, object]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                raise yaml.YAMLError(f"line {key.start_mark.line + 1}: keys must be plain names")
            if key.value in seen:
                raise yaml.YAMLError(f"line {key.start_mark.line + 1}: duplicate key {key.value!r}")
            seen.add(key.value)
        return super().construct_mapping(node, deep)  # type: ignore[no-any-return]


def _check_events(text: str) -> None:
    """Refuses aliases, and nesting that libyaml's loader, whose recursion nothing bounds, could crash by."""
    depth = 0
    for event in yaml.parse(text, Loader=_SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not allowed")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _MAX_DEPTH:
                raise RecursionError
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        return True

    def represent_str(self, data: str) -> yaml.ScalarNode:
        # Other styles lose what YAML takes for a line break, such as U+0085.
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=None if data.isprintable() else '"')


_Dumper.add_representer(str, _Dumper.represent_str)


def to_yaml(document: object) -> str:
    """Canonical text of plain values: their order, block style, one line a value where it fits."""
    return yaml.dump(
        document,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=1000,
        default_flow_style=False,
    )


def yaml_mapping(raw: bytes, what: str) -> dict[object, object]:
    """The mapping in a file's bytes, of which the caller read at most one more than ``MAX_BYTES``.

    ``what`` is the document's name in NotValid, which is raised for anything that isn't a plain YAML mapping.
    """
    if len(raw) > MAX_BYTES:
        raise NotValid(f"it is larger than {MAX_BYTES // MiB} MiB")
    try:
        text = raw.decode("utf-8")
        _check_events(text)
        document = yaml.load(text, _StrictLoader)
    except UnicodeDecodeError:
        raise NotValid("it is not UTF-8 text") from None
    except RecursionError:
        raise NotValid("it nests too deeply") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise NotValid(f"it is not a {what}'s YAML ({_yaml_problem(error)})") from None
    if not isinstance(document, dict):
        raise NotValid("it is not a mapping")
    return document


def validated(mapping: dict[object, object], model: type[Document], what: str) -> Document:
    """A file's mapping as a document of class ``model``; NotValid names the first fields that are wrong."""
    try:
        return model.model_validate(mapping, context=FROM_FILE)
    except ValidationError as error:
        unknown_keys = any(each["type"] in _UNKNOWN_KEY for each in error.errors())
        raise NotValid(_first_problems(error, what), unknown_keys=unknown_keys) from None
    except RecursionError:
        raise NotValid("it nests too deeply") from None


def _yaml_problem(error: Exception) -> str:
    """Line and problem, without the text around it, which may be anything."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return _one_line(f"line {error.problem_mark.line + 1}: {error.problem}")
    return _one_line(str(error).split(";")[0])


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text)[:300]


def _first_problems(error: ValidationError, what: str) -> str:
    problems = [
        f"{'.'.join(str(part) for part in each['loc']) or what}:"
        f" {'Extra inputs are not permitted' if each['type'] in _UNKNOWN_KEY else each['msg']}"
        for each in error.errors()[:3]
    ]
    more = error.error_count() - len(problems)
    return _one_line("; ".join(problems)) + (f"; and {more} more" if more else "")
