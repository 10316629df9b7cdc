"""What a URL and the environment say, and what is never said again."""

import pytest

from coordinator.journals.nats.address import Address, parse_address


def parse(url: str, **environment: str) -> Address:
    return parse_address(url, environment)


def test_a_url_names_servers_and_a_journal() -> None:
    address = parse("nats://a,b:5222,[::1]:4333/orders?partitions=4&replicas=3")
    assert address.servers == ("a:4222", "b:5222", "[::1]:4333")
    assert address.names.journal == "orders"
    assert (address.partitions, address.replicas, address.tls) == (4, 3, False)
    assert str(address) == "nats://a:4222,b:5222,[::1]:4333/orders"
    plain = parse("nats://host/orders")
    assert (plain.partitions, plain.replicas, plain.user) == (None, None, "")


def test_who_we_are_stands_in_the_url_or_in_the_environment() -> None:
    address = parse("nats://u%40x:p%2Fw@host/j", NATS_USER="other", NATS_TOKEN="t")
    assert (address.user, address.password, address.token) == ("u@x", "p/w", "")
    assert parse("nats://s3cret@host/j").token == "s3cret"
    address = parse("nats://host/j", NATS_USER="u", NATS_PASSWORD="p")
    assert (address.user, address.password) == ("u", "p")
    assert parse("nats://host/j", NATS_TOKEN="t").token == "t"


def test_an_option_may_have_an_at_sign() -> None:
    address = parse("nats://host/j?creds=a@b")
    assert (address.creds, address.token) == ("a@b", "")


def test_files_stand_in_the_url_or_in_the_environment() -> None:
    address = parse("nats://host/j?creds=a.creds", NATS_CREDS="b", NATS_NKEY="n.nk")
    assert (address.creds, address.nkey, address.tls) == ("a.creds", "n.nk", False)
    address = parse("nats://host/j?cert=c&key=k", NATS_CA="ca.pem")
    assert (address.ca, address.cert, address.key, address.tls) == (
        "ca.pem",
        "c",
        "k",
        True,
    )
    assert parse("nats://host/j?tls=on").tls
    assert parse("nats://host/j?ca=x").tls


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nats://host", "one looks like nats://host:4222/orders"),
        ("nats:/host/j", "one looks like"),
        ("nats://host/a/b", "one looks like"),
        ("nats:///j", "one looks like"),
        ("nats://host/j#x", "one looks like"),
        ("nats://host/", "letters, digits and hyphens"),
        ("nats://host/a_b", "letters, digits and hyphens"),
        ("nats://a,,b/j", "'' is no server"),
        ("nats://a:0/j", "'a:0' is no server"),
        ("nats://a:70000/j", "'a:70000' is no server"),
        ("nats://a b/j", "'a b' is no server"),
        ("nats://a/j?partitions=0", "partitions must be a number from 1 to 1024"),
        ("nats://a/j?partitions=x", "partitions must be a number"),
        ("nats://a/j?replicas=6", "replicas must be a number from 1 to 5"),
        ("nats://a/j?tls=off", "tls can be on, not 'off'"),
        ("nats://a/j?cert=c", "a certificate needs its key"),
        ("nats://a/j?key=k", "a certificate needs its key"),
        ("nats://a/j?ttl=3", "unknown option ttl of"),
        ("nats://a/j?@=3", "unknown option of"),
        ("nats://a/j?ttl", "is not name=value"),
        ("nats://a/j?tls=on&tls=on", "an option stands twice"),
    ],
)
def test_what_can_not_be_is_refused(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=r"^") as caught:
        parse(url)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "nats://u:s3cret@host",
        "nats://u:s3cret@host/a_b",
        "nats://u:s3cret@ho st/j",
        "nats://s3cret@host/j?replicas=x",
        "nats://u:x/s3cret@host/j",
        "nats://u:x?s3cret@host/j",
        "nats://u:x?s3cret@=host/j",
        "nats://u:x#s3cret@host/j",
        "nats://u:s3cret@host/j?odd=1",
    ],
)
def test_no_error_says_a_secret(url: str) -> None:
    with pytest.raises(ValueError, match=r"^") as caught:
        parse(url)
    assert "s3cret" not in str(caught.value)


def test_nothing_shows_a_secret() -> None:
    for url in ("nats://u:s3cret@host/j", "nats://s3cret@host/j"):
        address = parse(url)
        assert "s3cret" not in f"{address} {address!r}"
    assert "s3cret" not in repr(parse("nats://host/j", NATS_PASSWORD="s3cret"))
