"""Write to stdout and stderr: what they can print, and nothing that steers a terminal.

    text to stdout      in signs that its encoding has
    JSON to stdout      UTF-8, whatever the locale says
    nobody reads it     the command ends silently with 141, as by SIGPIPE
    it can't be written the command ends with a message and 1

Python ignores SIGPIPE, and we let it: the signal would also end a server whose client
went away. So a failed write is an exception, and not one that a command may take for
the journal's: `CliError`, which only the top catches.
"""

import os
import re
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress

from coordinator.cli.exits import CliError, ExitCode

__all__ = [
    "complain",
    "emit_json",
    "encodable",
    "flush",
    "replace_closed_streams",
    "visible",
    "writing",
]

# C0 with ESC, DEL and C1 move the cursor, colour, and set the title; U+2028 and 2029
# end lines; the others turn the reading direction, so that a line says what it does
# not. A surrogate alone can't be encoded.
_STEERING = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_STEERING_IN_LINES = re.compile(rf"(?![\n\t]){_STEERING.pattern}")

_ASCII = str.maketrans(
    {
        "✓": "+",
        "✗": "x",
        "│": "|",
        "─": "-",
        "┤": "|",
        "└": "`",
        "┘": "'",
        "▲": "^",
        "▼": "v",
        "◀": "<",
        "●": "*",
        "■": "#",
        "·": "-",
        "…": "~",
        "↶": "<",
    }
)


def replace_closed_streams() -> None:
    """Put ``/dev/null`` in the place of standard streams that were closed (``>&-``).

    Python has None for them, which nothing of ours or of a user's module expects. And
    the next file that is opened would get the number 1, and whatever is printed to it.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = open(os.devnull, mode, encoding="utf-8")  # noqa: PTH123, SIM115 -- for the process's life
            setattr(sys, name, stream)


@contextmanager
def writing() -> Generator[None]:
    """Write to stdout; if that fails, the command is over.

    Raises:
        CliError: It can't be written to, or nobody reads it.
    """
    try:
        yield
    except BrokenPipeError as error:
        _give_up()
        raise CliError("", ExitCode.CUT_OFF) from error
    except OSError as error:
        _give_up()
        raise CliError(
            f"can't write to stdout: {error.strerror or error}", ExitCode.FAILED
        ) from error


def _give_up() -> None:
    """Send the rest nowhere: the interpreter flushes once more on its way out."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def flush() -> None:
    """Write what is still held back.

    Raises:
        CliError: It can't be written, or nobody reads it.
    """
    with writing():
        sys.stdout.flush()


def emit_json(value: object, *, at_once: bool = False) -> None:
    """Print *value* as one line of JSON.

    Args:
        value: What msgspec encodes.
        at_once: Do not hold it back: somebody waits for the line.

    Raises:
        CliError: It can't be written, or nobody reads it.
    """
    import msgspec  # a quarter of what `--help` would take

    line = msgspec.json.encode(value) + b"\n"
    with writing():
        if at_once:
            sys.stdout.flush()  # a module of the user's may have printed, too
        sys.stdout.buffer.write(line)
        if at_once:
            sys.stdout.flush()


def complain(text: str) -> None:
    """Print *text* to stderr, if that can be done; it may have lines and tabs."""
    escaped = _STEERING_IN_LINES.sub(_escape, text)
    with suppress(OSError):
        print(escaped, file=sys.stderr)


def visible(text: str) -> str:
    """Return *text* on one line, with what steers a terminal as escapes."""
    return _STEERING.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


def encodable(text: str) -> str:
    """Return *text* in signs that stdout can print."""
    encoding = sys.stdout.encoding or "ascii"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        plain = text.translate(_ASCII)
        return plain.encode(encoding, "backslashreplace").decode(encoding)
    return text
