"""Answers as JSON: a task is asked for a document that fits a JSON Schema, and its answer is read.

The JSON of an answer is the whole of it, apart from white space around it. If that is no JSON, it
is what its last fenced code block holds, whatever the text around it says.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any

from ..errors import BadUsage, RebyteError
from ..system.files import read_text
from ..system.untrusted import is_deep
from .prompt import check_prompt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jsonschema.exceptions import ValidationError
    from jsonschema.protocols import Validator
    from referencing import Registry, Resource

DRAFT = "https://json-schema.org/draft/2020-12/schema"
LARGEST = 1 << 20  # bytes of a schema; a prompt has 100,000 characters at most
MOST_LEVELS = 100  # of arrays and objects in each other, so that any program can read the value
MOST_PROBLEMS = 10
LONGEST_PROBLEM = 300  # characters; one quotes the value that does not fit
ASK = (
    "\n\nYour final answer must be JSON that fits the JSON Schema below: one JSON document and"
    " nothing else, neither text before or after it nor a code fence around it.\n\n"
)
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})(.*)")


class Misfit(Exception):
    """An answer holds no JSON that fits; `problems` say why, a line each."""

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class AnswerSchema:
    """A JSON Schema that answers must fit; `text` is how it stands in a prompt.

    `$schema` names its draft, 2020-12 if it has none. What another document defines is not fetched,
    and `format` is not checked.
    """

    def __init__(self, schema: Any, text: str, name: str) -> None:
        """`name` is what errors call it. Raises BadUsage unless it is a schema that can be used.

        Raises RebyteError without the library, the extra `schema` of this package.
        """
        self.text = text
        self._name = name
        self._schema = schema
        try:
            self._check()
        except RecursionError:
            raise BadUsage(f"{name} refers to itself without end") from None

    @classmethod
    def read(cls, path: str) -> AnswerSchema:
        """The schema in a file. Raises NotFound, and what the constructor raises."""
        text = read_text(path, LARGEST).strip()
        try:
            return cls(_parsed(text), text, path)
        except Misfit as problem:
            raise BadUsage(f"{path} is {problem}") from None

    @classmethod
    def of(cls, schema: Mapping[str, Any], name: str) -> AnswerSchema:
        """The schema that a value is. Raises what the constructor raises."""
        return cls(schema, json.dumps(schema, ensure_ascii=False), name)

    def ask(self, prompt: str) -> str:
        """The prompt with the request for such an answer, in place of an earlier such request.

        Raises BadUsage for one that gets too long.
        """
        plain, asked, _ = prompt.rpartition(ASK)
        return check_prompt((plain if asked else prompt) + ASK + self.text)

    def value(self, answer: str) -> Any:
        """The value that an answer holds. Raises Misfit unless it fits.

        Raises BadUsage for a schema that turns out to be unusable only now.
        """
        value = _json_of(answer)
        from referencing.exceptions import Unresolvable

        try:
            errors = list(islice(self._validator.iter_errors(value), MOST_PROBLEMS))
        except RecursionError:
            raise Misfit("nested too deeply") from None
        except OverflowError:  # of an integer without a float, against `multipleOf`
            raise Misfit("a number is too large to be checked") from None
        except (Unresolvable, re.error) as error:
            raise BadUsage(f"{self._name} cannot be used: {error}") from None
        if errors:
            raise Misfit(*(_cut(f"{error.json_path}: {error.message}") for error in errors))
        return value

    @cached_property
    def _validator(self) -> Validator:
        try:
            from jsonschema import Draft202012Validator
            from jsonschema.validators import extend, validator_for
        except ImportError:
            from ..installation import Installation

            raise RebyteError(
                "answers as JSON require the library jsonschema, which is not installed",
                hint=Installation.find().add("schema"),
                code="missing_extra",
            ) from None
        draft = validator_for(self._schema, default=Draft202012Validator)
        kind: type[Validator] = extend(draft, {"uniqueItems": _repeated_items})  # type: ignore[no-untyped-call]
        return kind(self._schema, registry=_drafts())

    def _check(self) -> None:
        """Raise BadUsage for what is no schema, or refers to something that it does not have."""
        if not isinstance(self._schema, dict):
            raise BadUsage(f"{self._name} is not a JSON Schema: it must be an object")
        from jsonschema.exceptions import SchemaError
        from referencing.exceptions import Unresolvable
        from referencing.jsonschema import UnknownDialect, specification_with

        try:
            draft = specification_with(str(self._schema.get("$schema", DRAFT)))
            resource, validator = draft.create_resource(self._schema), self._validator
            validator.check_schema(self._schema)
            _check_references(resource, _drafts().resolver_with_root(resource))
            list(islice(validator.iter_errors(None), 1))
        except UnknownDialect:
            raise BadUsage(f"{self._name}: $schema names no draft that is known") from None
        except SchemaError as error:
            why = _cut(f"{error.json_path}: {error.message}")
            raise BadUsage(f"{self._name} is not a JSON Schema: {why}") from None
        except Unresolvable as error:
            ref = error.ref
            raise BadUsage(f"{self._name}: no such definition: {ref}") from None


def _drafts() -> Registry[Any]:
    """What the drafts themselves define. It fetches nothing from the network."""
    from jsonschema_specifications import REGISTRY  # type: ignore[import-untyped]

    found: Registry[Any] = REGISTRY
    return found


def _check_references(resource: Resource[Any], resolver: Any) -> None:
    """Raise Unresolvable for a reference to what neither the schema nor a draft defines."""
    contents = resource.contents
    if isinstance(contents, dict) and isinstance(contents.get("$ref"), str):
        resolver.lookup(contents["$ref"])
    for part in resource.subresources():
        _check_references(part, resolver.in_subresource(part))


def _json_of(answer: str) -> Any:
    """The JSON value of an answer; see the top of this file. Raises Misfit."""
    try:
        return _parsed(answer.strip().removeprefix("\ufeff"))
    except Misfit:
        block = _last_block(answer)
        if block is None:
            raise
    return _parsed(block)


def _parsed(text: str) -> Any:
    def refuse(word: str) -> Any:
        raise ValueError(f"{word} is no number")

    try:
        value = json.loads(text, parse_constant=refuse)
    except ValueError as error:
        raise Misfit(f"not JSON: {error}") from None
    except RecursionError:
        raise Misfit("nested too deeply") from None
    if is_deep(value, MOST_LEVELS):
        raise Misfit("nested too deeply")
    return value


def _last_block(text: str) -> str | None:
    """The content of the last fenced code block that is closed, as CommonMark has them."""
    fence, begin, found = "", 0, None
    lines = text.split("\n")
    for number, line in enumerate(lines):
        mark = _FENCE.fullmatch(line.rstrip("\r"))
        if mark is None:
            continue
        if not fence:
            if "`" not in mark[2]:
                fence, begin = mark[1], number + 1
        elif mark[1].startswith(fence) and not mark[2].strip():
            found, fence = "\n".join(lines[begin:number]), ""
    return found


def _repeated_items(
    validator: Any, is_asked: Any, instance: Any, _schema: Any
) -> Iterator[ValidationError]:
    """The errors of `uniqueItems`. The library compares each object with each other one."""
    if is_asked and validator.is_type(instance, "array"):
        from jsonschema.exceptions import ValidationError

        if len({_key_of(item) for item in instance}) < len(instance):
            yield ValidationError(f"{instance!r} has non-unique elements")


def _key_of(value: Any) -> Any:
    """What is equal for equal values of JSON: 1 and 1.0, but not 1 and true."""
    if isinstance(value, dict):
        return "object", frozenset((name, _key_of(inner)) for name, inner in value.items())
    if isinstance(value, list):
        return "array", tuple(map(_key_of, value))
    return isinstance(value, bool), value


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_PROBLEM else text[: LONGEST_PROBLEM - 1] + "…"
