"""Apache Kafka for the tests: its jars from Maven, run alone or as a cluster (KRaft).

    with kafka_server() as broker:                  one broker, which is controller too
        ... broker.url("orders") ...
    with kafka_cluster() as cluster:                three of them
        cluster.leader("orders", 0).kill()

The jars stand in ``kafka.txt``, each with its version and sha256. They come from Maven
Central, or from where ``MAVEN_URL`` or a mirror in ``~/.m2/settings.xml`` says, and are
kept in ``.cache``. Java 17 or later runs them.

Each broker has three listeners on loopback: CLIENT as the options say, BROKER and
CONTROLLER in plain text for the brokers among themselves. Who comes by BROKER may do
anything: it is how tests create and break things (`Kafka.admin`).
"""

import atexit
import functools
import hashlib
import os
import re
import shutil
import subprocess
import urllib.request
import uuid
import xml.etree.ElementTree as ET
from base64 import urlsafe_b64encode
from collections.abc import Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from tests.certificates import Pair
from tests.lacking import lack
from tests.servers.installing import LackError, install_once
from tests.servers.process import Place, Server

__all__ = [
    "Kafka",
    "KafkaCluster",
    "KafkaOptions",
    "KafkaTls",
    "create_topic",
    "install",
    "kafka_cluster",
    "kafka_server",
    "shared_cluster",
    "shared_server",
]

T = TypeVar("T")

_JARS = Path(__file__).with_name("kafka.txt")
_MAVEN_CENTRAL = "https://repo.maven.apache.org/maven2"
_JAVA_MIN = 17
_DOWNLOAD_TIMEOUT_S = 120.0

_JAVA_OPTIONS = (
    "-Xmx320m",
    "-Xshare:auto",
    "-XX:TieredStopAtLevel=1",  # it starts sooner, and never runs for long
    "-XX:+UseSerialGC",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
)


@dataclass(frozen=True, kw_only=True)
class KafkaTls:
    """What a broker shows to clients, and whom it lets in."""

    server: Pair
    authority: Path
    """Signed the certificates of clients."""
    verify: bool = False
    """Whether clients must show one."""


@dataclass(frozen=True, kw_only=True)
class KafkaOptions:
    """How brokers are set up; by default anybody may do anything."""

    users: Mapping[str, str] = field(default_factory=dict[str, str])
    """Names and passwords, for PLAIN and both kinds of SCRAM; empty for no SASL."""
    tls: KafkaTls | None = None
    authorize: bool = False
    """Whether clients may do only what an ACL allows."""
    extra: Mapping[str, str] = field(default_factory=dict[str, str])
    """Further lines of ``server.properties``."""


_DEFAULT = KafkaOptions()


@functools.cache
def install() -> Path:
    """Get the jars, if need be, and return their folder.

    Raises:
        LackError: There is no Java, or no repository that has them.
    """
    _find_java()
    listed = _JARS.read_text()
    name = f"kafka-{hashlib.sha256(listed.encode()).hexdigest()[:16]}"

    def get(folder: Path) -> None:
        base = _repository()
        for line in listed.splitlines():
            if not line.startswith("#"):
                sha256, coordinates = line.split()
                _get_jar(base, coordinates, sha256, folder)

    return install_once(name, get)


@functools.cache
def _find_java() -> str:
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    if java is None:
        raise LackError(f"needs Java {_JAVA_MIN} or later on PATH, or in JAVA_HOME")
    try:
        done = subprocess.run(
            (java, "-version"), capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise LackError(f"can't run {java}: {error}") from error
    found = re.search(r'version "(\d+)', done.stderr)
    if found is None or int(found[1]) < _JAVA_MIN:
        said = done.stderr.strip().partition("\n")[0]
        raise LackError(f"needs Java {_JAVA_MIN} or later, {java} is {said}")
    return java


def _repository() -> str:
    """Return the URL of the Maven repository that this user is set up with."""
    if url := os.environ.get("MAVEN_URL"):
        return url.rstrip("/")
    settings = Path.home() / ".m2" / "settings.xml"
    if settings.is_file():
        for mirror in ET.parse(settings).getroot().iterfind("{*}mirrors/{*}mirror"):
            of = mirror.findtext("{*}mirrorOf", "")
            url = mirror.findtext("{*}url", "")
            if url and {"*", "central", "external:*"} & set(of.split(",")):
                return url.rstrip("/")
    return _MAVEN_CENTRAL


def _get_jar(base: str, coordinates: str, sha256: str, folder: Path) -> None:
    group, artifact, version = coordinates.split(":")
    name = f"{artifact}-{version}.jar"
    url = f"{base}/{group.replace('.', '/')}/{artifact}/{version}/{name}"
    try:
        with urllib.request.urlopen(url, timeout=_DOWNLOAD_TIMEOUT_S) as answer:
            data: bytes = answer.read()
    except (OSError, ValueError) as error:
        raise LackError(
            f"can't get Kafka's {coordinates} ({error}); it comes from Maven Central, "
            f"or from the repository that MAVEN_URL names"
        ) from error
    actual = hashlib.sha256(data).hexdigest()
    if actual != sha256:
        raise LackError(f"{coordinates} is not what {_JARS.name} says: sha256 {actual}")
    (folder / name).write_bytes(data)


def _java(*arguments: str) -> tuple[str, ...]:
    try:
        return (_find_java(), *_JAVA_OPTIONS, "-cp", f"{install()}/*", *arguments)
    except LackError as error:
        lack(str(error))


class Kafka:
    """One broker, and one voter among the controllers."""

    def __init__(
        self,
        place: Place,
        number: int,
        options: KafkaOptions,
        ports: Sequence[Sequence[int]],
        cluster_id: str,
    ) -> None:
        """Describe it; `start` starts it.

        Args:
            place: Where it runs.
            number: From 1, as its node id.
            options: How it is set up.
            ports: Of each node: for clients, other brokers, and controllers.
            cluster_id: The same for all nodes.
        """
        self.number = number
        self._options = options
        self._ports = ports[number - 1]
        self._size = len(ports)
        self._cluster_id = cluster_id
        self._path = place.folder / f"{number}.properties"
        self._data = place.folder / str(number) / "data"
        lines = _configuration(number, options, ports, self._data)
        self._path.write_text("".join(f"{key}={value}\n" for key, value in lines))
        command = _java("kafka.Kafka", str(self._path))
        self.process: Server = place.server(str(number), command)

    @property
    def address(self) -> str:
        """Host and port for clients."""
        return f"127.0.0.1:{self._ports[0]}"

    @property
    def internal(self) -> str:
        """Host and port of the listener by which one may do anything."""
        return f"127.0.0.1:{self._ports[1]}"

    def url(self, topic: str, query: str = "") -> str:
        """As a journal's URL, without a user."""
        return f"kafka://{self.address}/{topic}{query and '?'}{query}"

    def admin(self) -> AdminClient:
        """Return a client that may do anything."""
        return AdminClient({"bootstrap.servers": self.internal, "log_level": 0})

    def format(self) -> None:
        """Prepare its folder, once, before it is first started."""
        users = (
            f"{mechanism}=[name={user},password={password}]"
            for user, password in self._options.users.items()
            for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512")
        )
        added = [argument for user in users for argument in ("--add-scram", user)]
        tool = ("kafka.tools.StorageTool", "format", f"-t={self._cluster_id}")
        done = subprocess.run(
            _java(*tool, "-c", str(self._path), *added),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise self.process.error(f"can't be formatted: {done.stdout}{done.stderr}")

    def start(self) -> None:
        """Start it; it may not be ready on return, see `wait`."""
        if not self._data.exists():
            self.format()
        self.process.start()

    def wait(self) -> None:
        """Wait until it knows all brokers of the cluster, itself among them."""
        self.process.until(self._is_ready, "knew all brokers")

    def restart(self) -> None:
        """Start it once more after its end, and wait until it is ready."""
        self.start()
        self.wait()

    def kill(self) -> None:
        """End it as a crash does."""
        self.process.kill()

    def pause(self) -> None:
        """See `Server.pause`."""
        self.process.pause()

    def resume(self) -> None:
        """See `Server.resume`."""
        self.process.resume()

    def _is_ready(self) -> bool:
        try:
            found = self.admin().list_topics(timeout=2.0)
        except KafkaException:
            return False
        return len(found.brokers) == self._size


class KafkaCluster:
    """Brokers that hold each topic together."""

    def __init__(self, brokers: Sequence[Kafka]) -> None:
        self.brokers = list(brokers)

    def url(self, topic: str, query: str = "") -> str:
        """As a journal's URL that names all brokers."""
        hosts = ",".join(broker.address for broker in self.brokers)
        return f"kafka://{hosts}/{topic}{query and '?'}{query}"

    def admin(self) -> AdminClient:
        """Return a client that may do anything."""
        hosts = ",".join(broker.internal for broker in self.brokers)
        return AdminClient({"bootstrap.servers": hosts, "log_level": 0})

    def leader(self, topic: str, partition: int) -> Kafka:
        """Return the broker that leads *partition*, once there is one that runs."""
        running = [one for one in self.brokers if one.process.running]
        found: list[Kafka] = []

        def ask() -> bool:
            for asked in running:
                try:
                    topics = asked.admin().list_topics(topic, timeout=2.0).topics
                except KafkaException:
                    continue
                partitions = topics[topic].partitions
                leader = partitions[partition].leader if partition in partitions else -1
                found.extend(one for one in running if one.number == leader)
            return bool(found)

        running[0].process.until(ask, f"named a leader of {topic} {partition}")
        return found[0]

    def start(self) -> None:
        """Start those that do not run, and wait until all know one another."""
        for broker in self.brokers:
            if not broker.process.running:
                broker.process.kill()  # waits for one that ended by itself
                broker.start()
        for broker in self.brokers:
            broker.wait()


def create_topic(
    admin: AdminClient,
    topic: str,
    *,
    partitions: int = 1,
    copies: int = 1,
    config: Mapping[str, str] | None = None,
) -> None:
    """Create *topic*, as somebody does who knows nothing of journals."""
    new = NewTopic(topic, partitions, copies, config=dict(config or {}))
    untyped: Any = admin  # its futures say not of what
    untyped.create_topics([new])[topic].result(60)


@contextmanager
def kafka_server(options: KafkaOptions = _DEFAULT) -> Generator[Kafka]:
    """Run one broker until the block is left; skips, or fails in CI, without it."""
    with _brokers(1, options) as cluster:
        yield cluster.brokers[0]


@contextmanager
def kafka_cluster(options: KafkaOptions = _DEFAULT) -> Generator[KafkaCluster]:
    """Run three brokers until the block is left; skips, or fails in CI, without it."""
    with _brokers(3, options) as cluster:
        yield cluster


@contextmanager
def _brokers(count: int, options: KafkaOptions) -> Generator[KafkaCluster]:
    with Place("kafka") as place:
        taken = place.ports(3 * count)
        ports = [taken[index::count] for index in range(count)]
        cluster_id = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        cluster = KafkaCluster(
            [
                Kafka(place, number, options, ports, cluster_id)
                for number in range(1, count + 1)
            ]
        )
        cluster.start()
        yield cluster


@functools.cache
def shared_server() -> Kafka:
    """Return a broker that runs as long as the process, for tests that share one."""
    return _shared(kafka_server())


@functools.cache
def shared_cluster() -> KafkaCluster:
    """Return a cluster that runs as long as the process."""
    return _shared(kafka_cluster())


def _shared(made: AbstractContextManager[T]) -> T:
    running = made.__enter__()
    atexit.register(made.__exit__, None, None, None)
    return running


def _configuration(
    number: int,
    options: KafkaOptions,
    ports: Sequence[Sequence[int]],
    data: Path,
) -> list[tuple[str, object]]:
    client, broker, controller = ports[number - 1]
    copies = len(ports)
    kind = ("SASL_" if options.users else "") + ("SSL" if options.tls else "PLAINTEXT")
    listeners = (
        f"CLIENT://127.0.0.1:{client},BROKER://127.0.0.1:{broker},"
        f"CONTROLLER://127.0.0.1:{controller}"
    )
    voters = (f"{node}@127.0.0.1:{of[2]}" for node, of in enumerate(ports, 1))
    return [
        ("process.roles", "broker,controller"),
        ("node.id", number),
        ("controller.quorum.voters", ",".join(voters)),
        ("listeners", listeners),
        ("advertised.listeners", listeners.rpartition(",")[0]),
        ("inter.broker.listener.name", "BROKER"),
        ("controller.listener.names", "CONTROLLER"),
        (
            "listener.security.protocol.map",
            f"CLIENT:{kind},BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT",
        ),
        ("log.dirs", data),
        ("offsets.topic.replication.factor", copies),
        ("offsets.topic.num.partitions", 1),
        ("transaction.state.log.replication.factor", copies),
        ("transaction.state.log.min.isr", max(1, copies - 1)),
        ("transaction.state.log.num.partitions", 1),
        ("group.initial.rebalance.delay.ms", 0),
        # One that is down is noticed in seconds, as befits loopback.
        ("broker.session.timeout.ms", 3000),
        ("broker.heartbeat.interval.ms", 500),
        # Small: nothing of this is what the tests are about.
        ("num.network.threads", 2),
        ("num.io.threads", 4),
        ("log.cleaner.dedupe.buffer.size", 2 * 1024 * 1024),
        *(_sasl(options.users) if options.users else ()),
        *(_tls(options.tls) if options.tls is not None else ()),
        *(_authorizer() if options.authorize else ()),
        *options.extra.items(),
    ]


def _sasl(users: Mapping[str, str]) -> list[tuple[str, object]]:
    modules = "org.apache.kafka.common.security"
    known = " ".join(f'user_{user}="{password}"' for user, password in users.items())
    scram = f"{modules}.scram.ScramLoginModule required;"
    listener = "listener.name.client"
    return [
        (f"{listener}.sasl.enabled.mechanisms", "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512"),
        (
            f"{listener}.plain.sasl.jaas.config",
            f"{modules}.plain.PlainLoginModule required {known};",
        ),
        (f"{listener}.scram-sha-256.sasl.jaas.config", scram),
        (f"{listener}.scram-sha-512.sasl.jaas.config", scram),
    ]


def _tls(tls: KafkaTls) -> list[tuple[str, object]]:
    def inline(path: Path) -> str:
        return path.read_text().strip().replace("\n", "\\n")

    listener = "listener.name.client"
    return [
        (f"{listener}.ssl.keystore.type", "PEM"),
        (f"{listener}.ssl.keystore.certificate.chain", inline(tls.server.certificate)),
        (f"{listener}.ssl.keystore.key", inline(tls.server.key)),
        (f"{listener}.ssl.truststore.type", "PEM"),
        (f"{listener}.ssl.truststore.certificates", inline(tls.authority)),
        (f"{listener}.ssl.client.auth", "required" if tls.verify else "none"),
    ]


def _authorizer() -> list[tuple[str, object]]:
    authorizer = "org.apache.kafka.metadata.authorizer.StandardAuthorizer"
    # Who comes without a name comes by BROKER or CONTROLLER.
    return [
        ("authorizer.class.name", authorizer),
        ("super.users", "User:ANONYMOUS"),
    ]
