"""What a ``kafka:`` URL says: where the topic is, and how to be let in.

    kafka://host:9092,other/orders?partitions=4&replication=3
    kafka://alice:secret@host:9093/orders?sasl=scram-sha-256&tls_ca=/etc/ca.pem

Options

    partitions   how many, if the journal is new; checked if it is not. Default: 1
    replication  copies of each, if it is new: 3 by default, and not more than brokers
    sasl         plain, scram-sha-256 or scram-sha-512, which is the default where
                 there is a user
    tls          1 for TLS with the system's authorities; implied by the next three
    tls_ca       file of the authority that signed the brokers' certificates
    tls_cert     file of our certificate, where brokers want to see one
    tls_key      file of its key

Passwords may come from the environment: `PASSWORD` has the user's, `USER` the user,
`TLS_KEY_PASSWORD` that of the key. What the URL says comes first. A password is kept in
`Address.client` alone, and no text that this package makes has it.
"""

import re
from collections.abc import Mapping
from urllib.parse import parse_qsl, unquote

import msgspec

__all__ = ["PASSWORD", "TLS_KEY_PASSWORD", "USER", "Address", "parse_url"]

USER = "COORDINATOR_KAFKA_USER"
PASSWORD = "COORDINATOR_KAFKA_PASSWORD"  # noqa: S105 -- the name of a variable
TLS_KEY_PASSWORD = "COORDINATOR_KAFKA_TLS_KEY_PASSWORD"  # noqa: S105 -- the same

PORT = 9092
PARTITIONS_MAX = 1024
REPLICATION = 3
REPLICATION_MAX = 32

_OPTIONS = {"partitions", "replication", "sasl", "tls", "tls_ca", "tls_cert", "tls_key"}
_MECHANISMS = ("plain", "scram-sha-256", "scram-sha-512")
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:/@,\s]+)(?::([0-9]{1,5}))?")


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """Where a topic is, and how to be let in."""

    hosts: str
    """``host:port``, separated by commas."""
    topic: str
    partitions: int | None
    """As the URL says; None if it does not."""
    replication: int | None
    """The same."""
    secure: bool
    """Whether connections are encrypted."""
    client: dict[str, str]
    """Settings of librdkafka by which one is let in; secrets are among them."""
    cautions: list[str] = []
    """What people should be told of it."""

    def __str__(self) -> str:
        return f"kafka://{self.hosts}/{self.topic}"

    def __repr__(self) -> str:
        return f"<{self}>"


def parse_url(url: str, environment: Mapping[str, str]) -> Address:
    """Parse a ``kafka:`` URL.

    Args:
        url: What the user wrote.
        environment: Of the process; see the module.

    Raises:
        ValueError: It is none, or an option is unknown or out of its bounds. The text
            has no password in it.
    """
    rest, question, query = url.partition("?")
    scheme, colon, place = rest.partition("://")
    if scheme != "kafka" or not colon or "#" in url:
        raise ValueError("a journal on Kafka is named like kafka://host:9092/topic")
    authority, _, topic = place.partition("/")
    credentials, at, hosts = authority.rpartition("@")
    shown = f"kafka://{hosts}/{topic}"
    if not _TOPIC.fullmatch(topic) or topic in {".", ".."}:
        raise ValueError(
            f"{shown} names no topic; a topic has letters, digits, '.', '_' and '-', "
            f"249 at most: kafka://host:9092/topic"
        )
    options = _options(shown, query) if question else {}
    user, _, password = credentials.partition(":")
    user = unquote(user) if at else environment.get(USER, "")
    password = unquote(password) or environment.get(PASSWORD, "")
    secure = _secure(shown, options)
    client: dict[str, str] = {}
    cautions: list[str] = []
    if user:
        mechanism = options.get("sasl", "scram-sha-512").lower()
        client |= _sasl(shown, user, password, mechanism)
        if mechanism == "plain" and not secure:
            cautions.append(
                f"the password for {shown} is sent in plain text: use tls, or scram"
            )
    elif "sasl" in options:
        raise ValueError(
            f"{shown} asks for sasl and names no user; write kafka://user:password@… "
            f"or set {USER} and {PASSWORD}"
        )
    if secure:
        client |= _tls(options, environment)
    protocol = ("SASL_" if user else "") + ("SSL" if secure else "PLAINTEXT")
    return Address(
        hosts=_hosts(shown, hosts),
        topic=topic,
        partitions=_count(shown, options, "partitions", PARTITIONS_MAX),
        replication=_count(shown, options, "replication", REPLICATION_MAX),
        secure=secure,
        client={"security.protocol": protocol, **client},
        cautions=cautions,
    )


def _options(shown: str, query: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True)
    except ValueError as error:
        raise ValueError(f"the options of {shown} are not name=value&…") from error
    options = dict(pairs)
    if len(options) != len(pairs):
        raise ValueError(f"{shown} has an option twice")
    if unknown := sorted(options.keys() - _OPTIONS):
        raise ValueError(
            f"unknown option {unknown[0]!r} of {shown}; known: "
            f"{', '.join(sorted(_OPTIONS))}"
        )
    return options


def _hosts(shown: str, hosts: str) -> str:
    found: list[str] = []
    for host in hosts.split(","):
        match = _HOST.fullmatch(host)
        if match is None or not 0 < int(match[2] or PORT) < 2**16:
            raise ValueError(
                f"{host!r} in {shown} is no host; write kafka://host:9092,other/topic"
            )
        found.append(f"{match[1]}:{match[2] or PORT}")
    return ",".join(found)


def _count(shown: str, options: dict[str, str], name: str, most: int) -> int | None:
    text = options.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= most):
        raise ValueError(
            f"{name} of {shown} must be a number from 1 to {most}, not {text!r}"
        )
    return int(text)


def _sasl(shown: str, user: str, password: str, mechanism: str) -> dict[str, str]:
    if mechanism not in _MECHANISMS:
        raise ValueError(
            f"sasl of {shown} must be one of {', '.join(_MECHANISMS)}, not "
            f"{mechanism!r}"
        )
    if not password:
        raise ValueError(
            f"{shown} names user {user!r} and no password; write it behind the user's "
            f"name, or set {PASSWORD}"
        )
    return {
        "sasl.mechanism": mechanism.upper(),
        "sasl.username": user,
        "sasl.password": password,
    }


def _secure(shown: str, options: dict[str, str]) -> bool:
    asked = options.get("tls")
    files = options.keys() & {"tls_ca", "tls_cert", "tls_key"}
    if asked not in {None, "0", "1"}:
        raise ValueError(f"tls of {shown} must be 0 or 1, not {asked!r}")
    if asked == "0" and files:
        raise ValueError(f"{shown} says tls=0 and {min(files)}; drop one of them")
    if len(files & {"tls_cert", "tls_key"}) == 1:
        raise ValueError(f"{shown} needs both tls_cert and tls_key, or none of them")
    return asked == "1" or bool(files)


def _tls(options: dict[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    settings = {
        "ssl.ca.location": options.get("tls_ca", ""),
        "ssl.certificate.location": options.get("tls_cert", ""),
        "ssl.key.location": options.get("tls_key", ""),
        "ssl.key.password": environment.get(TLS_KEY_PASSWORD, ""),
    }
    return {name: value for name, value in settings.items() if value}
