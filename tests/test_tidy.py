"""What no linter checks: sizes, docstrings that say what is raised, a test per module.

Each rule is a function from a module to its problems, and is itself asked, below, about
a module that breaks it.
"""

import ast
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"
MODULES = [str(path.relative_to(SOURCE)) for path in sorted(SOURCE.rglob("*.py"))]

MODULE_LINES_MAX = 500
FUNCTION_LINES_MAX = 60
"""Without the docstring."""

LONGER: dict[str, tuple[int, str]] = {}
"""Modules that may have more lines: how many, and why."""

TESTS_ELSEWHERE: dict[str, str] = {
    "cmdstream/calling.py": "cmdstream/test_client.py",
    "cmdstream/__main__.py": "cmdstream/test_command_line.py",
    "cmdstream/errors.py": "cmdstream/test_protocol.py",
    "cmdstream/messages.py": "cmdstream/test_protocol.py",
    "coordinator/api/admin_messages.py": "api/test_admin.py",
    "coordinator/api/admin_socket.py": "api/test_admin.py",
    "coordinator/api/bodies.py": "api/test_intake.py",
    "coordinator/api/cmdstream.py": "api/test_intake.py",
    "coordinator/app.py": "engine/test_exec.py",
    "coordinator/__main__.py": "cli/test_cli.py",
    "coordinator/cli/app.py": "cli/test_cli.py",
    "coordinator/cli/checks.py": "cli/test_doctor.py",
    "coordinator/cli/exits.py": "cli/test_cli.py",
    "coordinator/cli/locks.py": "cli/test_doctor.py",
    "coordinator/cli/measuring.py": "cli/test_doctor.py",
    "coordinator/cli/offline.py": "cli/test_workflows.py",
    "coordinator/cli/mending.py": "cli/test_repair.py",
    "coordinator/cli/plain.py": "cli/test_output.py",
    "coordinator/cli/repairing.py": "cli/test_journals.py",
    "coordinator/cli/replaying.py": "cli/test_replay.py",
    "coordinator/cli/remote.py": "cli/test_workflows.py",
    "coordinator/cli/serving.py": "cli/test_serve.py",
    "coordinator/cli/tls.py": "cli/test_serve.py",
    "coordinator/commands.py": "engine/test_exec.py",
    "coordinator/context.py": "gateways/test_context.py",
    "coordinator/engine.py": "engine/test_door.py",
    "coordinator/keeping.py": "engine/test_lost.py",
    "coordinator/orphans.py": "engine/test_lost.py",
    "coordinator/entrance.py": "engine/test_door.py",
    "coordinator/execution.py": "engine/test_exec.py",
    "coordinator/host.py": "engine/test_exec.py",
    "coordinator/journals/kafka/client.py": "journals/kafka/test_journal.py",
    "coordinator/journals/kafka/partition.py": "journals/kafka/test_journal.py",
    "coordinator/journals/kafka/topic.py": "journals/kafka/test_store.py",
    "coordinator/journals/nats/connection.py": "journals/nats/test_servers.py",
    "coordinator/journals/nats/journal.py": "journals/nats/test_fence.py",
    "coordinator/journals/nats/opening.py": "journals/nats/test_servers.py",
    "coordinator/journals/nats/partition.py": "journals/nats/test_fence.py",
    "coordinator/journals/nats/stream.py": "journals/nats/test_fence.py",
    "coordinator/journals/segments/files.py": "journals/test_store.py",
    "coordinator/journals/segments/reading.py": "journals/test_recovery.py",
    "coordinator/journals/segments/rebuild.py": "test_mending.py",
    "coordinator/journals/segments/renewal.py": "journals/test_crashes.py",
    "coordinator/logs.py": "engine/test_door.py",
    "coordinator/losses.py": "test_mending.py",
    "coordinator/operators.py": "engine/test_exec.py",
    "coordinator/options.py": "engine/test_door.py",
    "coordinator/ports.py": "conformance/test_journals.py",
    "coordinator/replay.py": "cli/test_replay.py",
    "coordinator/runs.py": "engine/test_exec.py",
    "coordinator/serve.py": "cli/test_serve.py",
    "coordinator/steps.py": "engine/test_concurrency.py",
    "coordinator/testing/checks.py": "testing/test_crashes.py",
    "coordinator/testing/errors.py": "testing/test_rehearsal.py",
    "coordinator/testing/faults.py": "testing/test_exploring.py",
    "coordinator/testing/journal.py": "testing/test_stage.py",
    "coordinator/testing/runs.py": "testing/test_crashes.py",
    "coordinator/testing/scene.py": "testing/test_rehearsal.py",
}
"""Modules without a test file of their own, and the one that asks about them."""

TAG = re.compile(r"\b(TO" r"DO|FIX" r"ME)\b")
MACHINE_PATH = re.compile(r"/wo" r"rk/|/ho" r"me/\w|/ro" r"ot/|/Us" r"ers/")
BARE_IGNORE = re.compile(r"# type: ignore(\[[\w, -]+\])?\s*$")

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions_of(
    body: list[ast.stmt], prefix: str = "", *, public_only: bool = False
) -> Iterator[tuple[str, Function]]:
    """Yield the functions in *body* and in its classes, with their full names."""
    for node in body:
        if public_only and getattr(node, "name", "").startswith("_"):
            continue
        if isinstance(node, ast.ClassDef):
            inner = functions_of(
                node.body, f"{prefix}{node.name}.", public_only=public_only
            )
            yield from inner
        elif isinstance(node, Function):
            yield f"{prefix}{node.name}", node


def raised_in(function: Function) -> Iterator[str]:
    """Yield the names of the exceptions that *function* itself makes and raises."""
    to_do: list[ast.AST] = list(function.body)
    while to_do:
        node = to_do.pop()
        if isinstance(node, Function | ast.ClassDef | ast.Lambda):
            continue
        to_do += ast.iter_child_nodes(node)
        match node:
            # What begins small is a function or a variable, not a class.
            case ast.Raise(exc=ast.Call(func=ast.Name(id=name))) if name[0].isupper():
                yield name
            case _:
                pass


def exported(tree: ast.Module) -> list[str] | None:
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id="__all__")], value=value):
                names: list[str] = ast.literal_eval(value)
                return names
            case _:
                pass
    return None


def defined(tree: ast.Module) -> set[str]:
    """Return the names that a module binds at its top."""
    found: set[str] = set()
    for node in tree.body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                found.add(node.name)
            case ast.Import() | ast.ImportFrom():
                found |= {alias.asname or alias.name for alias in node.names}
            case _:
                found |= {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
    return found


# The rules: from a module's name and text to what is wrong with it.


def too_long(name: str, text: str) -> Iterator[str]:
    lines_max, _ = LONGER.get(name, (MODULE_LINES_MAX, ""))
    lines = len(text.splitlines())
    if lines > lines_max:
        yield f"{lines} lines, at most {lines_max}"


def too_long_functions(_name: str, text: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, Function):
            continue
        first = node.body[0]
        lines = (node.end_lineno or 0) - node.lineno + 1
        if ast.get_docstring(node) is not None:
            lines -= (first.end_lineno or 0) - first.lineno + 1
        if lines > FUNCTION_LINES_MAX:
            yield f"{node.name}: {lines} lines, at most {FUNCTION_LINES_MAX}"


def unsaid_errors(_name: str, text: str) -> Iterator[str]:
    """Public functions that raise what their docstring does not name.

    One that points to another docstring ("See the port.") says it there.
    """
    tree = ast.parse(text)
    for name, function in functions_of(tree.body, public_only=True):
        docstring = ast.get_docstring(function) or ""
        if docstring.startswith("See "):
            continue
        _, _, raises = docstring.partition("Raises:")
        for error in sorted(set(raised_in(function)) - {"AssertionError"}):
            if error not in raises:
                yield f"{name} raises {error}, its docstring does not say so"


def unlisted_names(name: str, text: str) -> Iterator[str]:
    tree = ast.parse(text)
    if len(tree.body) == 1 or name.endswith("__main__.py"):
        return  # nothing but a docstring, or nothing to import
    names = exported(tree)
    if names is None:
        yield "no __all__"
        return
    if len(set(names)) != len(names):
        yield "__all__ names something twice"
    # A module with __getattr__ makes some of its names when they are asked for.
    if "__getattr__" not in defined(tree):
        for missing in sorted(set(names) - defined(tree)):
            yield f"__all__ names {missing}, which is not there"


def undocumented(_name: str, text: str) -> Iterator[str]:
    if ast.get_docstring(ast.parse(text)) is None:
        yield "no docstring"


def tagged(_name: str, text: str) -> Iterator[str]:
    for number, line in enumerate(text.splitlines(), 1):
        if TAG.search(line):
            yield f"line {number} puts something off: {line.strip()}"


def prints(name: str, text: str) -> Iterator[str]:
    if name.startswith(("coordinator/cli/", "cmdstream/command_line")):
        return
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Call(func=ast.Name(id="print")):
                yield f"line {node.lineno} prints"
            case _:
                pass


def unreasoned(_name: str, text: str) -> Iterator[str]:
    for number, line in enumerate(text.splitlines(), 1):
        if BARE_IGNORE.search(line):
            yield f"line {number} ignores a type error without a reason"


def untested(name: str, text: str) -> Iterator[str]:
    path = Path(name)
    if path.name == "__init__.py" or len(ast.parse(text).body) == 1:
        return
    package, *folders = path.parent.parts
    if package == "cmdstream":
        folders = ["cmdstream", *folders]
    if folders[-1:] == ["segments"]:
        folders.pop()
    own = Path(*folders, f"test_{path.name}")
    test = TESTS_ELSEWHERE.get(name, str(own))
    if not (ROOT / "tests" / test).is_file():
        yield f"there is no tests/{test}"


RULES = [
    too_long,
    too_long_functions,
    unsaid_errors,
    unlisted_names,
    undocumented,
    tagged,
    prints,
    unreasoned,
    untested,
]
Rule = Callable[[str, str], Iterator[str]]


def name_of(rule: Rule) -> str:
    return getattr(rule, "__name__", "")


@pytest.mark.parametrize("rule", RULES, ids=name_of)
def test_every_module_keeps_the_rule(rule: Rule) -> None:
    problems = [
        f"{name}: {problem}"
        for name in MODULES
        for problem in rule(name, (SOURCE / name).read_text())
    ]
    assert problems == []


def test_what_tests_are_made_of_is_as_short_as_what_they_test() -> None:
    # A `test_` module is a list, and as long as what there is to say.
    tests = ROOT / "tests"
    problems = [
        f"{path.relative_to(tests)}: {problem}"
        for path in sorted(tests.rglob("*.py"))
        if not path.name.startswith("test_")
        for rule in (too_long, too_long_functions)
        for problem in rule("", path.read_text())
    ]
    assert problems == []


def test_no_file_knows_the_machine_it_was_written_on() -> None:
    if shutil.which("git") is None:
        pytest.skip("needs git")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode != 0:
        pytest.skip(f"not a checkout of ours: {listed.stderr.strip()}")
    problems: list[str] = []
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        data = path.read_bytes() if path.is_file() else b""
        for number, line in enumerate(data.decode(errors="replace").splitlines(), 1):
            if MACHINE_PATH.search(line):
                problems.append(f"{name}:{number}: {line.strip()[:80]}")
    assert problems == []


def test_the_exceptions_are_about_modules_that_need_them() -> None:
    for name, (_, reason) in LONGER.items():
        assert name in MODULES
        assert reason
    for test in TESTS_ELSEWHERE.values():
        assert (ROOT / "tests" / test).is_file()


LONG_FUNCTION = "def f():\n" + "    pass\n" * FUNCTION_LINES_MAX
SAYS_WHY = '    """Do.\n\n    Raises:\n        KeyError: Why.\n    """\n'


@pytest.mark.parametrize(
    ("rule", "text", "problem"),
    [
        (too_long, "x = 1\n" * 501, "501 lines, at most 500"),
        (too_long, "x = 1\n" * 500, ""),
        (too_long_functions, LONG_FUNCTION, "f: 61 lines, at most 60"),
        (too_long_functions, "class A:\n  async " + LONG_FUNCTION, "f: 61 lines"),
        (too_long_functions, LONG_FUNCTION.replace("    pass", '    """A."""', 1), ""),
        (unsaid_errors, "def f():\n    raise KeyError()", "f raises KeyError"),
        (unsaid_errors, f"def f():\n{SAYS_WHY}    raise KeyError()", ""),
        (unsaid_errors, f"def f():\n{SAYS_WHY}    raise OSError()", "f raises OSError"),
        (unsaid_errors, 'def f():\n    """See g."""\n    raise KeyError()', ""),
        (unsaid_errors, "def _f():\n    raise KeyError()", ""),
        (unsaid_errors, "class _A:\n  def f(self):\n    raise KeyError()", ""),
        (unsaid_errors, "class A:\n  def f(self):\n    raise KeyError()", "A.f raises"),
        (unsaid_errors, "def f():\n  def g():\n    raise KeyError()", ""),
        (unsaid_errors, "def f():\n  for x in y:\n    raise KeyError(x)", "f raises"),
        (unsaid_errors, "def f(error):\n    raise error", ""),
        (unsaid_errors, "def f(kind):\n    raise kind()", ""),
        (unlisted_names, '"""Doc."""\nx = 1', "no __all__"),
        (unlisted_names, '"""Doc."""', ""),
        (unlisted_names, '__all__ = ["a"]\nb = 1', "__all__ names a, which is not"),
        (
            unlisted_names,
            '__all__ = ["a", "a"]\na = 1',
            "__all__ names something twice",
        ),
        (unlisted_names, '__all__ = ["a"]\nfrom b import c as a', ""),
        (unlisted_names, '__all__ = ["a"]\ndef __getattr__(name): ...', ""),
        (unlisted_names, '__all__ = ["A"]\nclass A: ...', ""),
        (undocumented, "x = 1", "no docstring"),
        (undocumented, '"""Doc."""', ""),
        (tagged, "# TODO: later", "line 1 puts something off"),
        (tagged, "todo = 1", ""),
        (prints, "\nprint(1)", "line 2 prints"),
        (unreasoned, "x  # type: ignore[arg-type]", "line 1 ignores"),
        (unreasoned, "x  # type: ignore[arg-type]  # as the port says", ""),
        (untested, '"""Doc."""\nx = 1', "there is no tests/some/test_module.py"),
    ],
    ids=lambda value: name_of(value) or str(value)[:20],
)
def test_each_rule_finds_what_breaks_it(rule: Rule, text: str, problem: str) -> None:
    found = list(rule("coordinator/some/module.py", text))
    assert len(found) == (1 if problem else 0)
    assert all(line.startswith(problem) for line in found)


def test_the_command_line_may_print() -> None:
    assert list(prints("coordinator/cli/module.py", "print(1)")) == []


def test_a_module_is_tested_where_its_package_is() -> None:
    text = "x = 1\ny = 2"
    assert list(untested("cmdstream/codecs/json.py", text)) == []
    assert list(untested("coordinator/journals/segments/store.py", text)) == []
    assert list(untested("coordinator/state.py", text)) == []
    assert list(untested("coordinator/some/__init__.py", text)) == []
    assert list(unlisted_names("coordinator/some/__main__.py", text)) == []
