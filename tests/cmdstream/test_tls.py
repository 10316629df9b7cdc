"""Certificates and keys from files: which are taken, and what is said of the others."""

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest
from tests.certificates import Authority, Pair, needs_openssl

from cmdstream import ServerTls, TlsConfigError, client_tls
from cmdstream.tls import handshake_failure

pytestmark = needs_openssl


@pytest.fixture(name="authority", scope="module")
def make_authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(name="pair", scope="module")
def make_pair(authority: Authority) -> Pair:
    return authority.issue("somebody")


def test_a_servers_context_is_tls_1_2_or_later_and_asks_for_no_certificate(
    pair: Pair,
) -> None:
    tls = ServerTls(*pair)
    assert tls.context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert tls.context.verify_mode == ssl.CERT_NONE
    assert tls.context.options & ssl.OP_NO_RENEGOTIATION
    assert tls.valid_until == "Dec 31 23:59:59 2049 GMT"
    assert "valid until Dec 31 23:59:59 2049 GMT" in repr(tls)


def test_with_authorities_a_server_requires_a_certificate_of_theirs(
    authority: Authority, pair: Pair
) -> None:
    tls = ServerTls(*pair, client_ca=authority.certificate)
    assert tls.context.verify_mode == ssl.CERT_REQUIRED
    assert [ca["subject"] for ca in tls.context.get_ca_certs()] == [
        ((("commonName", "authority"),),)
    ]


def test_a_clients_context_checks_certificate_and_name(
    authority: Authority, pair: Pair
) -> None:
    for context in (
        client_tls(),
        client_tls(server_ca=authority.certificate),
        client_tls(certificate=pair.certificate, key=pair.key),
    ):
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2
        assert context.verify_mode == ssl.CERT_REQUIRED
        assert context.check_hostname


def test_a_file_that_is_missing_is_named(tmp_path: Path, pair: Pair) -> None:
    missing = tmp_path / "none.pem"
    with pytest.raises(
        TlsConfigError, match=r"certificate .*none.pem can't be read: No"
    ):
        ServerTls(missing, pair.key)
    with pytest.raises(TlsConfigError, match=r"key .*none.pem can't be read: No such"):
        ServerTls(pair.certificate, missing)
    with pytest.raises(TlsConfigError, match=r"authorities .*none.pem can't be read"):
        ServerTls(*pair, client_ca=missing)
    with pytest.raises(TlsConfigError, match=r"authorities .*none.pem can't be read"):
        client_tls(server_ca=missing)


def test_a_file_of_another_kind_is_named(tmp_path: Path, pair: Pair) -> None:
    odd = tmp_path / "odd.pem"
    odd.write_bytes(b"\x30\x82")
    with pytest.raises(TlsConfigError, match=r"certificate .*odd.pem has no .*PEM"):
        ServerTls(odd, pair.key)
    with pytest.raises(TlsConfigError, match=r"key .*odd.pem has no .*PEM"):
        ServerTls(pair.certificate, odd)
    with pytest.raises(TlsConfigError, match=r"certificate .*\.key has no .*PEM"):
        ServerTls(pair.key, pair.certificate)  # the wrong way round


def test_a_file_that_is_cut_short_is_named(tmp_path: Path, pair: Pair) -> None:
    cut = tmp_path / "cut.pem"
    cut.write_bytes(pair.certificate.read_bytes()[:200])
    with pytest.raises(
        TlsConfigError, match=r"certificate .*cut.pem with key .* can't"
    ):
        ServerTls(cut, pair.key)
    with pytest.raises(TlsConfigError, match=r"authorities .*cut.pem can't be used"):
        client_tls(server_ca=cut)


def test_a_key_of_another_certificate_is_refused(
    authority: Authority, pair: Pair
) -> None:
    other = authority.issue("other")
    with pytest.raises(TlsConfigError, match=r"key .*other.key does not belong to"):
        ServerTls(pair.certificate, other.key)


def test_a_key_with_a_password_is_refused_and_nobody_is_asked_for_it(
    tmp_path: Path, pair: Pair
) -> None:
    locked = tmp_path / "locked.key"
    command = f"openssl pkey -in {pair.key} -aes256 -passout pass:x -out {locked}"
    subprocess.run(command.split(), check=True)
    with pytest.raises(TlsConfigError, match=r"locked.key is protected by a password"):
        ServerTls(pair.certificate, locked)


def test_a_certificate_that_has_expired_is_refused(authority: Authority) -> None:
    expired = authority.issue("expired", until="20200201000000Z")
    refused = r"expired.pem would be refused: certificate has expired"
    with pytest.raises(TlsConfigError, match=refused):
        ServerTls(*expired)
    with pytest.raises(TlsConfigError, match=refused):
        client_tls(certificate=expired.certificate, key=expired.key)


def test_a_certificate_for_the_other_side_is_refused(authority: Authority) -> None:
    for_clients = authority.issue("for-clients", usage="clientAuth")
    for_servers = authority.issue("for-servers", usage="serverAuth")
    refused = r"would be refused: uns\w+ certificate purpose"
    ServerTls(*for_servers)
    with pytest.raises(TlsConfigError, match=refused):
        ServerTls(*for_clients)
    client_tls(certificate=for_clients.certificate, key=for_clients.key)
    with pytest.raises(TlsConfigError, match=refused):
        client_tls(certificate=for_servers.certificate, key=for_servers.key)


def test_a_clients_certificate_and_key_go_together(pair: Pair) -> None:
    with pytest.raises(TlsConfigError, match="no key"):
        client_tls(certificate=pair.certificate)
    with pytest.raises(TlsConfigError, match="no certificate"):
        client_tls(key=pair.key)


def test_a_reload_takes_what_the_files_hold_now(
    tmp_path: Path, authority: Authority, pair: Pair
) -> None:
    files = _copied(pair, tmp_path)
    tls = ServerTls(*files)
    before = tls.context
    _copied(authority.issue("next", until="20400101000000Z"), tmp_path)
    tls.reload()
    assert tls.context is not before
    assert tls.valid_until == "Jan  1 00:00:00 2040 GMT"


def test_a_reload_that_fails_leaves_everything_as_it_was(
    tmp_path: Path, authority: Authority, pair: Pair
) -> None:
    files = _copied(pair, tmp_path)
    tls = ServerTls(*files)
    before = (tls.context, tls.valid_until)
    # As it is in the middle of a renewal: one file is new, the other is not yet.
    shutil.copy(authority.issue("half").certificate, files.certificate)
    with pytest.raises(TlsConfigError, match="does not belong"):
        tls.reload()
    assert (tls.context, tls.valid_until) == before


def _copied(pair: Pair, folder: Path) -> Pair:
    copy = Pair(folder / "a.pem", folder / "a.key")
    for old, new in zip(pair, copy, strict=True):
        shutil.copy(old, new)
    return copy


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("HTTP_REQUEST", "the peer does not speak TLS"),
        ("WRONG_VERSION_NUMBER", "the peer does not speak TLS"),
        ("UNSUPPORTED_PROTOCOL", "the peer speaks nothing newer than TLS 1.1"),
        ("PEER_DID_NOT_RETURN_A_CERTIFICATE", "the peer has no certificate"),
        ("TLSV1_ALERT_UNKNOWN_CA", "the peer refuses: unknown ca"),
        ("NO_SHARED_CIPHER", "no shared cipher"),
    ],
)
def test_a_failed_handshake_is_told_in_words(reason: str, words: str) -> None:
    error = ssl.SSLError(1, f"[SSL: {reason}]")
    error.reason = reason
    assert handshake_failure(error) == words


def test_a_failure_without_a_reason_is_told_as_far_as_it_is_known() -> None:
    assert handshake_failure(ConnectionResetError()) == "the peer hung up"
    assert handshake_failure(ConnectionAbortedError("too long")) == "too long"
