"""What a ``nats:`` URL and the environment say: servers, journal, and who we are.

    nats://host/orders                              one server, port 4222
    nats://a:4222,b:4222,c:4222/orders?partitions=4&replicas=3
    nats://user:password@host/orders                or nats://token@host/orders

Options

    partitions   how many, if the journal is new; checked if it is not. Default: 1
    replicas     copies of each stream, if the journal is new; that there are as many is
                 checked if it is not. Default: 3 in a cluster, else 1
    tls          ``on`` for TLS, which the next three imply
    ca           a file with the certificates that the server's must be signed by
    cert, key    files with our own certificate and its key
    creds        a credentials file (a JWT and its seed)
    nkey         a file with the seed of an nkey

What a URL does not say is taken from the environment, by the names that the ``nats``
program has: NATS_USER, NATS_PASSWORD, NATS_TOKEN, NATS_CREDS, NATS_NKEY, NATS_CA,
NATS_CERT, NATS_KEY. What proves who we are is never shown: in no `repr`, no message.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote

from coordinator.journals.nats.layout import Names

__all__ = ["Address", "parse_address"]

PORT = 4222
_URL = re.compile(r"nats://(?:([^/?#]*)@)?([^/?#@]+)/([^/?#@]*)(?:\?([^#]*))?")
_HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?")
_OPTIONS = frozenset(
    {"partitions", "replicas", "tls", "ca", "cert", "key", "creds", "nkey"}
)
_FILES = ("ca", "cert", "key", "creds", "nkey")
REPLICAS_MAX = 5
"""What JetStream takes."""
PARTITIONS_MAX = 1024
"""Each is a stream, with a connection of its own."""


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where a journal is, and how to get there."""

    servers: tuple[str, ...]
    """Host and port of each."""
    names: Names
    partitions: int | None = None
    replicas: int | None = None
    tls: bool = False
    ca: str = ""
    cert: str = ""
    key: str = ""
    creds: str = ""
    nkey: str = ""
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)

    def __str__(self) -> str:
        """Return the URL without what is nobody's business."""
        return f"nats://{','.join(self.servers)}/{self.names.journal}"


def parse_address(url: str, environment: Mapping[str, str]) -> Address:
    """Return what *url* and *environment* say.

    Raises:
        ValueError: They say something that can't be; without saying any secret.
    """
    match = _URL.fullmatch(url)
    if match is None:
        raise ValueError(
            "this is no address of a journal in NATS; one looks like "
            "nats://host:4222/orders?partitions=4, and in a password / is %2F, ? is "
            "%3F, # is %23"
        )
    who, hosts, journal, query = match.groups()
    options = _options_of(query or "")
    files = {
        name: options.get(name, environment.get(f"NATS_{name.upper()}", ""))
        for name in _FILES
    }
    tls = options.get("tls", "")
    if tls not in {"", "on"}:
        raise ValueError(f"tls can be on, not {tls!r}")
    if bool(files["cert"]) != bool(files["key"]):
        raise ValueError("a certificate needs its key: give both, cert and key")
    return Address(
        servers=tuple(map(_server, hosts.split(","))),
        names=Names(unquote(journal)),
        partitions=_count(options, "partitions", PARTITIONS_MAX),
        replicas=_count(options, "replicas", REPLICAS_MAX),
        tls=bool(tls or files["ca"] or files["cert"]),
        **files,
        **_identity(who, environment),
    )


def _identity(who: str | None, environment: Mapping[str, str]) -> dict[str, str]:
    """Return user and password, or a token; nothing if there is neither."""
    if who:
        user, colon, password = who.partition(":")
        if colon:
            return {"user": unquote(user), "password": unquote(password)}
        return {"token": unquote(user)}
    names = ("user", "password", "token")
    return {name: environment.get(f"NATS_{name.upper()}", "") for name in names}


def _options_of(query: str) -> dict[str, str]:
    if not query:
        return {}
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True)
    except ValueError:
        # What it says may be the half of a password that has a question mark in it.
        raise ValueError("an option of the journal's URL is not name=value") from None
    options = dict(pairs)
    if len(options) != len(pairs):
        raise ValueError("an option stands twice in the URL of the journal")
    if unknown := sorted(options.keys() - _OPTIONS):
        which = f" {unknown[0]}" if unknown[0].isidentifier() else ""
        raise ValueError(
            f"unknown option{which} of a journal in NATS; known: "
            f"{', '.join(sorted(_OPTIONS))}"
        )
    return options


def _server(text: str) -> str:
    match = _HOST.fullmatch(text)
    port = int(match[2] or PORT) if match else 0
    if match is None or not 1 <= port <= 65535:
        raise ValueError(f"{text!r} is no server; one looks like host or host:4222")
    return f"{match[1]}:{port}"


def _count(options: dict[str, str], name: str, most: int) -> int | None:
    text = options.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= most):
        raise ValueError(f"{name} must be a number from 1 to {most}, not {text!r}")
    return int(text)
