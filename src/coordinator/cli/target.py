"""``module:object``: find the coordinator that a user wants served.

Whatever is wrong with it is the user's to mend, so each way to fail has a message that
says what was looked for and where; an exception of the user's code is shown with its
own frames only.
"""

import importlib
import inspect
import operator
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, TypeGuard

from coordinator.app import Coordinator
from coordinator.cli.exits import CliError, ExitCode
from coordinator.errors import CommandTypeError

__all__ = ["load_function", "load_target"]


def load_target(target: str) -> Coordinator[Any]:
    """Import the coordinator that *target* names; it is not started.

    The current folder is searched first, as by ``python -m``.

    Args:
        target: ``module:object``. The object is a `Coordinator`, or a function without
            parameters that returns one.

    Raises:
        CliError: There is no such thing, or making it raised.
    """
    found = _find(target)
    if callable(found) and not _is_coordinator(found):
        found = _call(found, target)
    if not _is_coordinator(found):
        raise _usage(
            f"{target} is a {type(found).__name__}, neither a Coordinator nor a "
            f"function that returns one"
        )
    return found


def load_function(target: str) -> Callable[..., Any]:
    """Import the function that *target* names, as ``module:function``.

    Raises:
        CliError: There is no such thing, or it can't be called.
    """
    found = _find(target)
    if not callable(found):
        raise _usage(f"{target} is a {type(found).__name__}, not a function")
    function: Callable[..., Any] = found
    return function


def _find(target: str) -> Any:
    name, colon, path = target.partition(":")
    if not (name and colon and path):
        raise _usage(
            f"{target!r} is not of the form module:object; "
            f"write e.g. shop.app:coordinator"
        )
    module = _import(name)
    try:
        return operator.attrgetter(path)(module)
    except AttributeError:
        raise _usage(
            f"module {name} ({_file_of(module)}) has no {path!r}{_hint(module)}"
        ) from None


def _is_coordinator(found: object) -> TypeGuard[Coordinator[Any]]:
    return isinstance(found, Coordinator)


def _import(name: str) -> ModuleType:
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # One that the module itself imports is another matter: see below.
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise _usage(
                f"{error.msg}; looked in {folder} and on Python's search path"
            ) from None
        raise _raised(f"importing {name}", error) from error
    except CommandTypeError as error:
        raise _usage(f"importing {name}: {error}") from error
    except (Exception, SystemExit) as error:
        raise _raised(f"importing {name}", error) from error


def _call(factory: Any, target: str) -> Any:
    if inspect.iscoroutinefunction(factory):
        raise _usage(
            f"{target} is an async function; write a plain one that returns the "
            f"coordinator, which `serve` starts"
        )
    try:
        return factory()
    except CommandTypeError as error:
        raise _usage(f"calling {target}: {error}") from error
    except (Exception, SystemExit) as error:
        raise _raised(f"calling {target}", error) from error


def _raised(doing: str, error: BaseException) -> CliError:
    """Show the user's traceback without the frames of ours and of the import system."""
    shown = traceback.TracebackException.from_exception(error)
    shown.stack = traceback.StackSummary.from_list(
        [
            frame
            for frame in shown.stack
            if frame.filename != __file__
            and not frame.filename.startswith("<frozen ")
            and Path(frame.filename).parent.name != "importlib"
        ]
    )
    text = "".join(shown.format()).rstrip()
    return _usage(f"{doing} raised {type(error).__name__}\n{text}")


def _file_of(module: ModuleType) -> str:
    return getattr(module, "__file__", None) or "a namespace package"


def _hint(module: ModuleType) -> str:
    found = [
        name for name, value in vars(module).items() if isinstance(value, Coordinator)
    ]
    return f"; it has {', '.join(found)}" if found else ""


def _usage(message: str) -> CliError:
    return CliError(message, ExitCode.USAGE)
