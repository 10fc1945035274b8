"""Answers as JSON: a task is asked for a document that fits a JSON Schema, and its answer is read.

The JSON of an answer is the whole of it, apart from white space around it. If that is no JSON, it
is what its last fenced code block holds, whatever the text around it says.

A process compares an answer with its schema, within limits: what an agent writes can make an
ordinary `oneOf` take 3 to the power of its depth, and a regular expression stops all threads.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BadUsage, RebyteError
from ..system import python_process
from ..system.deadline import NO_LIMIT, Deadline
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
CPU_SECONDS = 10
BUSY = 3  # times as long may it take by the clock, on a busy machine or one that limits no CPU time
MEMORY = 1 << 30
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

    def __init__(self, schema: Any, text: str, name: str, *, within: int | None = None) -> None:
        """`name` is what errors call it. Raises BadUsage unless it is a schema that can be used.

        `within` is the seconds of CPU time that finding that out may take, for one that is not the
        user's. Raises RebyteError without the library, the extra `schema` of this package.
        """
        self.text = text
        self._name = name
        self._schema = schema
        _require_library()
        if within is None:
            _check(schema, name)
        elif problems := _found_apart(within, name, schema):
            raise BadUsage(f"{name} cannot be used: {problems[0]}")

    @classmethod
    def read(cls, path: str) -> AnswerSchema:
        """The schema in a file. Raises NotFound, and what the constructor raises."""
        text = read_text(path, LARGEST).strip()
        try:
            return cls(_parsed(text), text, path)
        except Misfit as problem:
            raise BadUsage(f"{path} is {problem}") from None

    @classmethod
    def of(cls, schema: Mapping[str, Any], name: str, *, within: int | None = None) -> AnswerSchema:
        """The schema that a value is. Takes and raises what the constructor does."""
        return cls(schema, json.dumps(schema, ensure_ascii=False), name, within=within)

    def ask(self, prompt: str) -> str:
        """The prompt with the request for such an answer, in place of an earlier such request.

        Raises BadUsage for one that gets too long.
        """
        plain, asked, _ = prompt.rpartition(ASK)
        return check_prompt((plain if asked else prompt) + ASK + self.text)

    def value(
        self,
        answer: str,
        *,
        task_id: str = "",
        deadline: Deadline = NO_LIMIT,
        cpu_seconds: int = CPU_SECONDS,
    ) -> Any:
        """The value that an answer holds. Raises Misfit unless it fits, as is found within limits.

        Raises WaitTimeout, which names the task, when the deadline comes first, BadUsage for a
        schema that turns out to be unusable only now, and RebyteError if no process can be started.
        """
        value = _json_of(answer)
        problems = _found_apart(cpu_seconds, self._name, self._schema, value, deadline=deadline)
        if problems is None:
            late = f"the answer of task {task_id} was not checked within"
            raise deadline.error(late, pending=[task_id])
        if problems:
            raise Misfit(*problems)
        return value


def _found_apart(
    cpu_seconds: int, name: str, schema: Any, *values: Any, deadline: Deadline = NO_LIMIT
) -> list[str] | None:
    """What a process finds wrong with a value, or that it takes too much; without one, `_check`.

    None when the deadline comes first. Raises BadUsage for a schema that cannot be used, and
    RebyteError if the process fails.
    """
    import subprocess
    import tempfile

    from ..system.process_group import ProcessGroup

    too_much = [f"checking it takes more than {cpu_seconds} s or {MEMORY >> 30} GiB of memory"]
    try:
        with tempfile.TemporaryDirectory(prefix="rebyte-", ignore_cleanup_errors=True) as folder:
            given = Path(folder) / "given.json"
            given.write_text(json.dumps([cpu_seconds, name, schema, *values]), encoding="ascii")
            with ProcessGroup(
                python_process.command(__name__, with_libraries=True),
                folder=None,
                variables=dict(os.environ),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                stdin=given,
            ) as group:
                longest = BUSY * cpu_seconds
                left = deadline.with_grace().cap(longest)
                try:
                    printed, _ = group.process.communicate(timeout=left)
                except subprocess.TimeoutExpired:
                    return too_much if left == longest else None
                status = group.process.returncode
    except OSError as error:
        raise RebyteError(f"cannot check what fits {name}: {error}") from None
    if status < 0:
        return too_much
    if status:
        raise RebyteError(f"cannot check what fits {name}: Python ended with status {status}")
    found: dict[str, list[str]] = json.loads(printed)
    if unusable := found.get("unusable"):
        raise BadUsage(*unusable)
    return found.get("problems", [])


def main() -> None:
    """Check a schema, or a value with it, within limits, which hold without the parent, too.

    stdin has a JSON array: seconds of CPU time, the schema's name, the schema, the value if any.
    """
    import faulthandler

    seconds, name, schema, *values = json.load(sys.stdin)
    # macOS has no other limit, and this one does not wait for a regular expression.
    faulthandler.dump_traceback_later((BUSY + 1) * seconds, exit=True)
    python_process.limit(seconds, MEMORY)
    found: dict[str, list[str]] = {}
    try:
        if values:
            found["problems"] = _problems(schema, name, values[0])
        else:
            _check(schema, name)
    except BadUsage as error:
        found["unusable"] = [str(error)]
    except MemoryError:
        os.abort()
    sys.stdout.write(json.dumps(found))


def _problems(schema: Any, name: str, value: Any) -> list[str]:
    """Why a value does not fit. Raises BadUsage for a schema that cannot be used."""
    from referencing.exceptions import Unresolvable

    try:
        errors = islice(_validator(schema).iter_errors(value), MOST_PROBLEMS)
        return [_cut(f"{error.json_path}: {error.message}") for error in errors]
    except RecursionError:
        return ["nested too deeply"]
    except OverflowError:  # of an integer without a float, against `multipleOf`
        return ["a number is too large to be checked"]
    except (Unresolvable, re.error) as error:
        raise BadUsage(f"{name} cannot be used: {error}") from None


def _require_library() -> None:
    try:
        import jsonschema  # noqa: F401
    except ImportError:
        from ..installation import Installation

        raise RebyteError(
            "answers as JSON require the library jsonschema, which is not installed",
            hint=Installation.find().add("schema"),
            code="missing_extra",
        ) from None


def _validator(schema: Any) -> Validator:
    from jsonschema import Draft202012Validator
    from jsonschema.validators import extend, validator_for

    draft = validator_for(schema, default=Draft202012Validator)
    kind: type[Validator] = extend(draft, {"uniqueItems": _repeated_items})  # type: ignore[no-untyped-call]
    return kind(schema, registry=_drafts())


def _check(schema: Any, name: str) -> None:
    """Raise BadUsage for what is no schema, or refers to something that it does not have."""
    if not isinstance(schema, dict):
        raise BadUsage(f"{name} is not a JSON Schema: it must be an object")
    from jsonschema.exceptions import SchemaError
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import UnknownDialect, specification_with

    try:
        draft = specification_with(str(schema.get("$schema", DRAFT)))
        resource, validator = draft.create_resource(schema), _validator(schema)
        validator.check_schema(schema)
        _check_references(resource, _drafts().resolver_with_root(resource))
        list(islice(validator.iter_errors(None), 1))
    except UnknownDialect:
        raise BadUsage(f"{name}: $schema names no draft that is known") from None
    except SchemaError as error:
        why = _cut(f"{error.json_path}: {error.message}")
        raise BadUsage(f"{name} is not a JSON Schema: {why}") from None
    except Unresolvable as error:
        raise BadUsage(f"{name}: no such definition: {error.ref}") from None
    except RecursionError:
        raise BadUsage(f"{name} refers to itself without end") from None


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
