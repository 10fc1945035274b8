"""The layout of the checkout; imports point down, without cycles; a name means one thing."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "rebyte_cli"

# The top level of the checkout, as git knows it. Users and packagers look for these names.
TOP_LEVEL = {
    ".ci",
    ".github",
    ".gitignore",
    ".pre-commit-config.yaml",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "SECURITY.md",
    "action.yml",
    "completions",
    "docs",
    "hatch_build.py",
    "man",
    "pyproject.toml",
    "rebyte_cli",
    "tests",
}

# Each package and those that it may import from, lazily or not. `""` is `rebyte_cli` itself,
# for its version.
ALLOWED = {
    "__main__": {"", "cli", "completion"},
    "cli": {"", "app", "commands", "errors", "local", "presenter", "system"},
    "commands": {
        "",
        "api",
        "app",
        "batch",
        "completion",
        "config",
        "doctor",
        "errors",
        "history",
        "installation",
        "land",
        "local",
        "manual",
        "mcp",
        "output",
        "system",
        "tasks",
    },
    "mcp": {"", "api", "app", "errors", "history", "output", "system", "tasks"},
    "doctor": {"", "api", "app", "config", "errors", "local", "system", "tasks"},
    "other_profiles": {"app", "errors", "history"},
    "presenter": {"app", "errors", "other_profiles", "output"},
    "app": {"api", "config", "errors", "history", "local", "once", "output", "system", "tasks"},
    "completion": {"app", "config", "errors", "local", "output", "system"},
    "manual": {"", "cli", "completion", "config", "local", "system"},
    "batch": {"api", "errors", "history", "once", "output", "system", "tasks"},
    "land": {"batch", "errors", "output", "system", "tasks"},
    "tasks": {"api", "errors", "history", "installation", "local", "once", "output", "system"},
    "once": {"api", "errors", "history", "system"},
    "history": {"api", "errors", "system"},
    "config": {"", "api", "errors", "system"},
    "output": {"errors", "system"},
    "api": {"", "errors", "system"},
    "local": {"system"},
    "system": {"errors"},
    "errors": set(),
    "installation": set(),
    "": {"api", "errors"},
}
# Package pairs between which only one module may import or be imported, except for types.
ONLY = {
    ("manual", "cli"): "manual.__main__",  # writes the pages; nothing imports it
    ("cli", "local"): "local.revival",  # what each command does for runs that wait
    ("doctor", "api"): "api.connection",  # the proxy and the certificates that it would use
    ("doctor", "local"): "local.agents",
    ("doctor", "tasks"): "tasks.editor",  # the one that `create` opens
    ("completion", "local"): "local.agents.sources.skills",  # the names that `-s` can take
    ("manual", "local"): "local.steering",  # the words that the page explains
    ("config", "api"): "api.urls",  # what a base URL and a key may look like
    ("tasks", "local"): "local.agents.workspaces.tryout",  # a jail for what an agent wrote
    ("tasks", "output"): "output.console",  # text made safe; what moves is drawn by output alone
    ("commands", "api"): "api.urls",  # the same; the client comes from the App
}


class Import(NamedTuple):
    """An import: `module` is one of ours or of a library."""

    importer: str
    module: str
    typing_only: bool


def name_of(path: Path) -> str:
    """`commands/create.py` is `commands.create`; a package is its folder's name."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


@cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


@cache
def imports() -> list[Import]:
    """Every import in every module, those inside functions included."""
    return list(_imports())


def _imports() -> Iterator[Import]:
    for name, path in MODULES.items():
        tree = tree_of(name)
        typing_only = {
            id(inner)
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
            for inner in ast.walk(node)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                targets = list(resolve(name, path, node))
            else:
                continue
            for target in targets:
                yield Import(name, target, id(node) in typing_only)


def resolve(name: str, path: Path, node: ast.ImportFrom) -> Iterator[str]:
    if node.level == 0:
        yield node.module or ""
        return
    package = ["rebyte_cli", *name.split(".")] if name else ["rebyte_cli"]
    if path.name != "__init__.py":
        package.pop()
    base = package[: len(package) - node.level + 1] + (node.module or "").split(".")
    found = ".".join(part for part in base if part)
    for alias in node.names:
        inner = f"{found}.{alias.name}".removeprefix("rebyte_cli.")
        yield f"{found}.{alias.name}" if inner in MODULES else found


def inside() -> list[Import]:
    """Those that import one of our modules, by its name below `rebyte_cli`."""
    return [
        Import(
            one.importer, one.module.removeprefix("rebyte_cli").removeprefix("."), one.typing_only
        )
        for one in imports()
        if one.module.split(".")[0] == "rebyte_cli"
    ]


def package_of(module: str) -> str:
    return module.split(".")[0]


def test_the_top_level_holds_these_and_nothing_else() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("the sdist is no checkout")
    git = ["git", "-c", "safe.directory=*", "ls-files", "-z"]  # another user's, in a container
    listed = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {name.partition("/")[0] for name in listed.split("\0") if name} == TOP_LEVEL


def test_every_module_has_a_package_of() -> None:
    assert {package_of(name) for name in MODULES} == set(ALLOWED)


def test_imports_point_down() -> None:
    """Each import, of types too, is one that the table allows."""
    for importer, module, typing_only in inside():
        here, there = package_of(importer), package_of(module)
        if here == there:
            continue
        assert there in ALLOWED[here], f"{importer} imports {module}"
        only = ONLY.get((here, there))
        if only is not None and not typing_only:
            assert only in (importer, module), f"{importer} imports {module}"


def test_the_table_allows_nothing_unused() -> None:
    used = {(package_of(importer), package_of(module)) for importer, module, _ in inside()}
    for here, below in ALLOWED.items():
        assert below <= {there for start, there in used if start == here}, here


def test_there_are_no_cycles() -> None:
    """Between modules, imports inside functions and those for types alone counted."""
    graph: dict[str, set[str]] = {name: set() for name in MODULES}
    for importer, module, _ in inside():
        # `rebyte_cli` itself imports its public names lazily.
        if importer and module and importer != module:
            graph[importer].add(module)
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module not in done:
            for below in graph[module]:
                visit(below, (*path, module))
            done.add(module)

    for name in graph:
        visit(name, ())


def test_commands_know_no_inside_of_the_agents() -> None:
    """What they may use has a name in the package itself."""
    for importer, module, _ in inside():
        is_inside = module.startswith("local.agents.")
        assert not (is_inside and package_of(importer) in ("commands", "doctor")), importer


def test_the_folders_of_the_agents_have_an_order() -> None:
    """Each imports only those before it, and of the modules beside them those before it too."""
    order = [
        "agent_files exposed",
        "sources adapters",
        "sandbox",
        "limits cluster",
        "config",
        "workspaces",
        "supervision",
        "facade agent_permission agent_list workspace_access",
    ]
    place = {name: level for level, names in enumerate(order) for name in names.split()}
    inner = "local.agents."
    for importer, module, _ in inside():
        if importer.startswith(inner) and module.startswith(inner):
            here, there = (name.removeprefix(inner).split(".")[0] for name in (importer, module))
            assert here == there or place[there] < place[here], f"{importer} imports {module}"


def test_commands_do_not_import_each_other() -> None:
    """They share only the modules with a leading underscore."""
    for importer, module, _ in inside():
        if package_of(importer) == package_of(module) == "commands" and importer != module:
            shared = module.removeprefix("commands").removeprefix(".")
            assert shared.startswith("_"), f"{importer} imports {module}"


def test_only_commands_import_batch() -> None:
    """And landings, which have a journal too."""
    for importer, module, _ in inside():
        if package_of(module) == "batch":
            allowed = ("batch", "commands", "land")
            assert package_of(importer) in allowed, f"{importer} imports {module}"


@pytest.mark.parametrize("name", ["requests", "rich", "keyring", "urllib3", "werkzeug", "sqlite3"])
def test_commands_import_no_heavy_library(name: str) -> None:
    found = [one.importer for one in imports() if one.module.split(".")[0] == name]
    assert not [
        importer for importer in found if package_of(importer) in ("commands", "app", "cli")
    ]


def test_each_heavy_library_is_used_by_few_packages() -> None:
    allowed = {
        "requests": {"api"},
        "urllib3": {"api"},
        "keyring": {"config"},
        "rich": {"output"},
        "werkzeug": {"local"},
        "h11": {"local"},
        "tomli_w": {"config", "mcp"},
        "mcp": {"mcp"},
        "pydantic": {"mcp"},
        "click": {"cli", "commands", "manual", "output"},
    }
    for library, packages in allowed.items():
        used = {
            package_of(one.importer) for one in imports() if one.module.split(".")[0] == library
        }
        assert used <= packages, library


def test_the_local_service_shares_nothing_of_the_wire_with_the_client() -> None:
    """Otherwise one mistake could hide on both sides of it."""
    for importer, module, _ in inside():
        if package_of(importer) == "local":
            assert package_of(module) in ("local", "system"), f"{importer} imports {module}"


def test_no_module_is_named_utils() -> None:
    vague = re.compile(r"(^|[._])(utils?|helpers?|common|misc)($|[._])")
    assert not [name for name in MODULES if vague.search(name)]


# Where a command line of git is made for a sandbox; `git_inside` and `git_of` start none outside.
GIT_IN_JAIL = {"local.agents.workspace_access", "local.agents.workspaces.changes"}


def test_git_is_started_in_one_place() -> None:
    """Its limits, and what a repository may not name, are there."""
    found = set()
    for module in MODULES:
        for node in ast.walk(tree_of(module)):
            is_line = isinstance(node, ast.List | ast.Tuple) and node.elts
            if is_line and getattr(node.elts[0], "value", None) == "git":
                found.add(module)
    assert found == {"system.git", *GIT_IN_JAIL}


def test_functions_fit_on_a_screen() -> None:
    """60 lines of statements: signatures and help texts may be longer."""
    long = []
    for module in MODULES:
        for node in ast.walk(tree_of(module)):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            first = node.body[1 if ast.get_docstring(node) and len(node.body) > 1 else 0]
            if (node.end_lineno or 0) - first.lineno >= 60:
                long.append(f"{module}.{node.name}")
    assert long == []


def test_each_class_name_means_one_thing() -> None:
    """A name for a type (`X = Mapping[…]`) counts; an underscore does not make another name."""
    types: dict[str, set[str]] = {}
    others: dict[str, set[str]] = {}
    for module in MODULES:
        for node in ast.walk(tree_of(module)):
            if isinstance(node, ast.ClassDef):
                types.setdefault(node.name.lstrip("_"), set()).add(f"{module}.{node.name}")
        for name in _aliases(tree_of(module)):
            others.setdefault(name.lstrip("_"), set()).add(f"{module}.{name}")
    assert {name: where for name, where in types.items() if len(where) > 1} == {}
    assert {name: others[name] | types[name] for name in types.keys() & others.keys()} == {}


def test_each_module_name_means_one_thing() -> None:
    """Only a command, what helps it and the step that it calls may share one.

    The service has nouns of the wire, such as `questions`, as the client has.
    """
    for is_service in (False, True):
        places: dict[str, set[str]] = {}
        for module, path in MODULES.items():
            package, _, name = module.rpartition(".")
            on_this_side = package == "system" or (package.startswith("local")) == is_service
            if on_this_side and path.name not in ("__init__.py", "__main__.py"):
                places.setdefault(name.removeprefix("_"), set()).add(module)
        shared = {
            name: where
            for name, where in places.items()
            if len(where) > 1
            and not where <= {f"commands.{name}", f"commands._{name}", f"tasks.{name}"}
        }
        assert shared == {}


# Words of the glossary in CONTRIBUTING.md, and where a name in the code may have them.
WORDS = {
    "answer": "api.client",  # in `api`; others have the answers of runs and of users
    "report": "batch.report batch.results commands land",
    "settle": "batch history once tasks.create",
}


def test_a_word_of_the_glossary_means_one_thing() -> None:
    """A server gives a response; a report is a document; an intent is settled."""
    strange = []
    for module in MODULES:
        for word, homes in WORDS.items():
            here = module.startswith("api.") if word == "answer" else True
            at_home = any(f"{module}.".startswith(f"{home}.") for home in homes.split())
            if here and not at_home:
                form = re.compile(rf"_*(is_)?(un)?{word}(d|ed|s)?")
                strange += [f"{module}: {n}" for n in _names(module) if form.fullmatch(n)]
    assert strange == []


def _names(module: str) -> set[str]:
    """Those of variables, attributes, arguments, functions and classes of a module."""
    keys = ("id", "attr", "arg", "name")
    found = (getattr(node, key, None) for node in ast.walk(tree_of(module)) for key in keys)
    return {name for name in found if isinstance(name, str)}


def _aliases(tree: ast.Module) -> Iterator[str]:
    """The names in CapWords that a module assigns."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name) and re.match("_?[A-Z]+[a-z]", target.id):
                    yield target.id


def test_no_code_reads_a_message() -> None:
    """What a program must know of an error is its class, its code or another attribute.

    A message may be tested for being there, and shown; not compared, searched or taken apart. The
    supervisor alone reads an agent's reason, which may repeat what the gateway told the agent.
    """
    readers = set(MODULES) - {"local.agents.supervision.supervisor"}
    assert [place for module in readers for place in _reads_of_messages(module)] == []


READERS = (
    "startswith endswith find index count partition rpartition split splitlines replace"
    " removeprefix removesuffix lower casefold"
)


def _reads_of_messages(module: str) -> Iterator[str]:
    for function in ast.walk(tree_of(module)):
        if not isinstance(function, ast.FunctionDef):
            continue
        names = {
            target.id
            for node in ast.walk(function)
            if isinstance(node, ast.Assign) and _is_message(node.value, set())
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(function):
            if isinstance(node, ast.Compare):
                eq = any(isinstance(op, ast.Eq | ast.NotEq) for op in node.ops)
                searched = node.comparators + ([node.left] if eq else [])
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                searched = [node.func.value] if node.func.attr in READERS.split() else []
                if ast.unparse(node.func.value) == "re":
                    searched += node.args
            else:
                continue
            if any(_is_message(each, names) for each in searched):
                yield f"{module}:{node.lineno}"


def _is_message(node: ast.AST, names: set[str]) -> bool:
    """Whether this is the text of an error of ours, or a variable that holds one."""
    if isinstance(node, ast.Attribute):
        return node.attr in ("message", "hint", "sentence", "why", "reason", "summary")
    return isinstance(node, ast.Name) and node.id in names


def test_commands_in_messages_are_data() -> None:
    """`Next("wait", task_id)`: each who shows it adds the profile, or names a tool instead."""
    of_the_client = [name for name in MODULES if package_of(name) not in ("local", "manual")]
    found = []
    for module in of_the_client:
        tree = tree_of(module)
        ignored = {
            id(inner)
            for node in ast.walk(tree)
            for kept in (
                [node] if isinstance(node, ast.Expr) else
                [word.value for word in node.keywords if word.arg == "help"]
                if isinstance(node, ast.Call) else []
            )
            if not isinstance(kept, ast.Expr) or isinstance(kept.value, ast.Constant)
            for inner in ast.walk(kept)
        }  # fmt: skip
        for node in ast.walk(tree):
            if id(node) not in ignored and isinstance(node, ast.Constant):
                text = str(node.value)
                if re.search("`rebyte (?!--help|completion)", text):
                    found.append(f"{module}:{node.lineno}: {text[:60]}")
    assert found == []


# What only `system/` does, and who else does it: why.
RENAMES = {
    "batch.session": "to a name that no journal has, while the input is held",
    "api.transfer": "in a folder that it holds open, by descriptor; from a nameless file",
    "local.agents.limits.account_limit": "imported by run_queue.py, where pathlib is too much",
    "local.agents.agent_files": "in a folder that an agent writes to, by descriptor",
    "local.agents.workspaces.changes": "takes over what git wrote in the sandbox",
    "local.agents.workspaces.disarm": "sets a file of an agent's aside, by descriptor",
    "local.agents.sources.lenders": "folders",
    "local.agents.workspaces.setup_cache": "folders",
    "local.agents.sources.skills": "folders",
    "local.agents.workspaces.workspace_folder": "folders",
    "local.service_log": "a log that is full, where its writers keep it open",
    "local.agents.workspaces.restore": "the folder of the code",
    "tasks.check_tree": "moves what was unpacked into its place",
}


def test_files_are_replaced_and_locked_in_one_place() -> None:
    """`system/files.py` and `system/locks.py`: a crash leaves a file whole, a lock excludes."""
    calls = [
        (module, ast.unparse(node.func), node)
        for module in MODULES
        if package_of(module) != "system"
        for node in ast.walk(tree_of(module))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    ]
    assert [module for module, name, _ in calls if name in ("fcntl.flock", "fcntl.lockf")] == []
    renaming = {
        module
        for module, name, node in calls
        if name in ("os.replace", "os.rename", "os.link")
        or name.endswith(".rename")
        # `Path.replace`; that of a text takes two arguments, that of a mask masks a text.
        or (name.endswith(".replace") and len(node.args) == 1 and name.split(".")[-2] != "_mask")
    }
    assert renaming - {"local.gateway.secret_mask"} == RENAMES.keys()


def test_the_boot_is_known_in_one_place() -> None:
    """`system/clock.py`: its id, and the clock that counts from it."""
    found = {
        module
        for module, path in MODULES.items()
        if re.search("/random/boot_id|CLOCK_BOOTTIME", path.read_text(encoding="utf-8"))
    }
    assert found == {"system.clock"}


# Moments to come that are no limit of anything that is waited for.
MOMENTS = {
    "local.agents.adapters.adapter": "until when an agent pauses, for a clock that is handed in",
    "local.agents.sandbox.relay": "when to look again at what makes no noise",
    "local.agents.supervision.outbox": "when to try again",
}


def test_only_a_deadline_computes_when_time_is_up() -> None:
    """`time.monotonic() + seconds` anywhere else is a limit that is made by hand."""
    found = {
        module
        for module in MODULES
        for node in ast.walk(tree_of(module))
        if isinstance(node, ast.BinOp)
        and isinstance(node.op, ast.Add)
        and "monotonic()" in (ast.unparse(node.left)[-11:], ast.unparse(node.right)[-11:])
    }
    assert found == MOMENTS.keys()


def test_git_in_a_sandbox_has_one_environment() -> None:
    """`git.IN_JAIL`: what one place forgets, a hostile repository finds."""
    found = {
        module
        for module, path in MODULES.items()
        if re.search("GIT_CONFIG_(GLOBAL|(NO)?SYSTEM)", path.read_text(encoding="utf-8"))
    }
    assert found == {"system.git"}


# Modules of the local service that parse JSON or TOML themselves, and whose it is.
PARSED = {
    "local.agents.adapters.claude": "the user's login, and settings that were just written",
    "local.agents.adapters.codex": "the user's login",
    "local.agents.adapters.opencode": "the user's login",
    "local.agents.cluster.launcher": "a file of the run's folder",
    "local.agents.cluster.node": "what the supervisor sends",
    "local.agents.config": "config.toml",
    "local.agents.facade": "the database",
    "local.agents.sandbox.jail": "a file of the state folder",
    "local.agents.supervision.outbox": "a file of the run's folder",
    "local.agents.supervision.recorded_run": "the database",
    "local.agents.supervision.run_budget": "the database",
    "local.agents.supervision.runs": "the database",
    "local.agents.supervision.supervisor": "the database",
    "local.computers": "the database",
    "local.deliveries": "the database",
    "local.gateway.gateway_settings": "what the supervisor sends, and the user's login",
    "local.gateway.model_budget": "what the supervisor sends",
    "local.gateway.request_record": "a file of the run's folder",
    "local.http": "a request, of which all is kept: it refuses what the database would not take",
    "local.simulation": "the database",
    "local.task_store": "the database",
    "local.webhooks": "the database",
}


def test_what_others_wrote_is_parsed_in_one_place() -> None:
    """`system/untrusted.py`: a text of a few kilobytes can hold a parser up, or end its process."""
    parsers = {"json.loads", "json.load", "json.JSONDecoder", "tomllib.loads", "tomllib.load"}
    found = {module for module, name in calls_in_the_service() if name in parsers}
    assert found == PARSED.keys()


# Those that open files or list folders where agents write, or did, each without following a link.
OPENED = {
    "agent_files": "all that is in such a folder, by its descriptor",
    "workspaces.disarm": "the folders of a walk",
    "workspaces.workspace_folder": "sizes; the skills, patch and uploads are in folders of ours",
    "workspaces.setup_cache": "sizes; the entries are in a folder of ours",
}
# Those that open only what no agent can write, among the modules that work in its folders.
OURS = {
    "adapters.codex": "the user's settings",
    "adapters.lines": "the copy of its stderr",
    "adapters.opencode": "the user's login",
    "adapters.programs": "the user's programs",
    "adapters.user_config": "the user's settings",
    "sources.lenders": "repositories that no agent writes to",
    "sources.skills": "the user's skills, and those of a clone before an agent begins",
    "supervision.disk_space": "the folder of what is to be deleted",
    "supervision.outbox": "a file of the run's folder",
    "supervision.run_lock": "locks in the run's folder",
    "supervision.run_queue": "locks of the state folder",
    "supervision.runs": "the patch in the run's folder",
    "supervision.screen_run": "no file: a method of its is called so",
    "supervision.supervisor": "the copies of what the agent prints",
    "workspaces.agent_home": "the user's memory files",
    "workspaces.sharing": "locks in the folder of the workspace",
    "workspaces.sync": "base.git",
    "workspaces.tryout": "its logs and lock",
}


def test_files_of_agents_are_opened_in_few_places() -> None:
    """By `agent_files` and `untrusted.read_file`: a name can have become a link or a pipe."""
    names = {"open", "os.open", "os.scandir", "os.listdir", "os.walk", "os.fwalk", "os.readlink"}
    ends = {"open", "read_text", "read_bytes", "iterdir", "glob", "rglob"}
    above = ("agent_files", "adapters", "sources", "supervision", "workspaces")
    found = {
        module.removeprefix("local.agents.")
        for module, name in calls_in_the_service()
        if (name in names or ("." in name and name.rpartition(".")[2] in ends))
        and module.startswith(tuple(f"local.agents.{each}" for each in above))
    }
    assert found == OPENED.keys() | OURS.keys()


def calls_in_the_service() -> Iterator[tuple[str, str]]:
    """Each call in a module of the local service: the module, and what is called."""
    for module in MODULES:
        if module.startswith("local."):
            for node in ast.walk(tree_of(module)):
                if isinstance(node, ast.Call):
                    yield module, ast.unparse(node.func)
