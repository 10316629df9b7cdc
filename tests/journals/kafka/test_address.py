"""A URL says where and who; what is wrong with it is said without its password."""

import pytest

from coordinator.journals.kafka.address import (
    PASSWORD,
    TLS_KEY_PASSWORD,
    USER,
    Address,
    parse_url,
)


def parse(url: str, **environment: str) -> Address:
    return parse_url(url, environment)


def test_hosts_and_topic_are_all_it_takes() -> None:
    address = parse("kafka://a,b:9093,[::1]:9094/orders")
    assert address.hosts == "a:9092,b:9093,[::1]:9094"
    assert address.topic == "orders"
    assert (address.partitions, address.replication) == (None, None)
    assert address.client == {"security.protocol": "PLAINTEXT"}
    assert not address.secure
    assert str(address) == "kafka://a:9092,b:9093,[::1]:9094/orders"


def test_numbers_are_read() -> None:
    address = parse("kafka://a/orders?partitions=4&replication=3")
    assert (address.partitions, address.replication) == (4, 3)


def test_a_user_means_scram_unless_it_says_otherwise() -> None:
    address = parse("kafka://al%40ice:s%3Acret%2F@a/orders?tls=1")
    assert address.client == {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "al@ice",
        "sasl.password": "s:cret/",
    }
    assert address.secure
    assert address.cautions == []


def test_a_password_in_plain_text_is_warned_of() -> None:
    address = parse("kafka://alice:s3cret@a/orders?sasl=plain")
    assert address.client["security.protocol"] == "SASL_PLAINTEXT"
    [caution] = address.cautions
    assert "is sent in plain text" in caution
    assert "s3cret" not in caution


def test_user_and_password_may_come_from_the_environment() -> None:
    environment = {USER: "alice", PASSWORD: "s3cret"}
    for url in ("kafka://a/orders", "kafka://alice@a/orders"):
        address = parse(url, **environment)
        assert address.client["sasl.username"] == "alice"
        assert address.client["sasl.password"] == "s3cret"
    assert parse("kafka://b:x@a/o", **environment).client["sasl.password"] == "x"


def test_certificates_are_files_and_mean_tls() -> None:
    address = parse(
        "kafka://a/orders?tls_ca=/ca.pem&tls_cert=/c.pem&tls_key=/k.pem",
        **{TLS_KEY_PASSWORD: "s3cret"},
    )
    assert address.client == {
        "security.protocol": "SSL",
        "ssl.ca.location": "/ca.pem",
        "ssl.certificate.location": "/c.pem",
        "ssl.key.location": "/k.pem",
        "ssl.key.password": "s3cret",
    }


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("kafka:orders", "is named like kafka://host:9092/topic"),
        ("kafka://u:s3cret@a/orders#x", "is named like kafka://host:9092/topic"),
        ("kafka://u:s3cret@a", "kafka://a/ names no topic"),
        ("kafka://u:s3cret@a/or/ders", "names no topic"),
        ("kafka://u:s3cret@a/..", "names no topic"),
        ("kafka://u:s3cret@a/" + "x" * 250, "names no topic"),
        ("kafka://u:s3cret@/orders", "'' in kafka:///orders is no host"),
        ("kafka://u:s3cret@a:0/orders", "'a:0' in kafka://a:0/orders is no host"),
        ("kafka://u:s3cret@a:99999/orders", "is no host"),
        ("kafka://u:s3cret@a,,b/orders", "'' in kafka://a,,b/orders is no host"),
        ("kafka://u:s3cret@a/o?partitions=0", "partitions of kafka://a/o must be"),
        ("kafka://u:s3cret@a/o?partitions=²", "partitions of kafka://a/o must be"),
        ("kafka://u:s3cret@a/o?replication=99", "from 1 to 32, not '99'"),
        ("kafka://u:s3cret@a/o?partitons=1", "unknown option 'partitons' of kafka://"),
        ("kafka://u:s3cret@a/o?tls=1&tls=1", "has an option twice"),
        ("kafka://u:s3cret@a/o?tls", "the options of kafka://a/o are not name=value"),
        ("kafka://u:s3cret@a/o?sasl=gssapi", "must be one of plain, scram-sha-256"),
        ("kafka://a/o?sasl=plain", "asks for sasl and names no user"),
        ("kafka://u@a/o", "names user 'u' and no password"),
        ("kafka://u:s3cret@a/o?tls=yes", "tls of kafka://a/o must be 0 or 1"),
        ("kafka://u:s3cret@a/o?tls=0&tls_ca=x", "says tls=0 and tls_ca"),
        ("kafka://u:s3cret@a/o?tls_cert=x", "needs both tls_cert and tls_key"),
    ],
)
def test_what_is_wrong_is_said_and_the_password_is_not(url: str, problem: str) -> None:
    with pytest.raises(ValueError, match="kafka") as caught:
        parse(url)
    assert problem in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_no_text_of_an_address_has_its_password() -> None:
    address = parse("kafka://alice:s3cret@a/orders")
    for text in (str(address), repr(address), f"{address}", f"{[address]}"):
        assert "s3cret" not in text
