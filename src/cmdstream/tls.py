"""TLS from files: contexts with sane settings, and certificates that can be renewed.

    tls = ServerTls("server.pem", "server.key")                           TLS
    tls = ServerTls("server.pem", "server.key", client_ca="clients.pem")  mTLS
    await server.listen("0.0.0.0", 9443, tls=tls)
    tls.reload()                                # once the files have been replaced

    client_tls(server_ca="ca.pem")                                        TLS
    client_tls(server_ca="ca.pem", certificate="me.pem", key="me.key")    mTLS

TLS 1.2 and later, without renegotiation; the ciphers are OpenSSL's and Python's choice,
which ages better than ours would. Files are PEM.

A certificate is tried before it is used: two ends shake hands in memory, one with it,
the other trusting nothing but it. So what would fail at the first client fails here, in
words: a key that belongs to another certificate, one that has expired or is meant for
the other side, a key type that nobody can use.
"""

import os
import ssl
from pathlib import Path

from cmdstream.errors import TlsConfigError

__all__ = ["ServerTls", "client_tls", "handshake_failure"]

_CERTIFICATE_MARK = b"-----BEGIN CERTIFICATE-----"
_KEY_MARK = b"PRIVATE KEY-----"  # of its own kind before it: RSA, EC, ENCRYPTED
_ROUNDS_MAX = 4  # of a handshake in memory; TLS 1.3 takes two, TLS 1.2 three

_NOT_TLS = {"HTTP_REQUEST", "HTTPS_PROXY_REQUEST", "WRONG_VERSION_NUMBER"}
_TOO_OLD = {"UNSUPPORTED_PROTOCOL", "VERSION_TOO_LOW"}

StrPath = str | os.PathLike[str]


class ServerTls:
    """A server's certificate, in files that may be replaced while it serves.

    Attributes:
        context: What the next handshake uses. `reload` puts another one in its place;
            connections that exist go on with the one they began with.
        valid_until: The last moment of the certificate, as text.
    """

    def __init__(
        self,
        certificate: StrPath,
        key: StrPath,
        *,
        client_ca: StrPath | None = None,
    ) -> None:
        """Load the files.

        Args:
            certificate: The server's own, and behind it those between it and the root.
            key: Its private key, without a password.
            client_ca: The authorities whose clients are let in, all others being turned
                away (mTLS); None to let in clients without a certificate.

        Raises:
            TlsConfigError: A file cannot be read or used; it says which, and why.
        """
        self._certificate = certificate
        self._key = key
        self._client_ca = client_ca
        self.context, self.valid_until = self._load()

    def __repr__(self) -> str:
        return f"<ServerTls {self._certificate} valid until {self.valid_until}>"

    def reload(self) -> None:
        """Read the files again, for the connections to come.

        Reads a few files and computes for milliseconds, so it may be called on the
        loop.

        Raises:
            TlsConfigError: They cannot be used. What was loaded before stays in use.
        """
        # A new context, never the old one changed: loading a certificate into that, and
        # then failing at its key, would leave it with halves that do not fit.
        self.context, self.valid_until = self._load()

    def _load(self) -> tuple[ssl.SSLContext, str]:
        context = _context(ssl.PROTOCOL_TLS_SERVER)
        _load_chain(context, self._certificate, self._key)
        valid_until = _try_out(self._certificate, self._key, as_server=True)
        if self._client_ca is not None:
            _load_authorities(context, self._client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context, valid_until


def client_tls(
    *,
    server_ca: StrPath | None = None,
    certificate: StrPath | None = None,
    key: StrPath | None = None,
) -> ssl.SSLContext:
    """Make a client's context, which checks the server's certificate and its name.

    Args:
        server_ca: The authorities to trust; None for those of this machine.
        certificate: The client's own, for a server that asks for one (mTLS).
        key: The private key of *certificate*, without a password.

    Raises:
        TlsConfigError: A file cannot be read or used, or one of *certificate* and *key*
            is missing.
    """
    context = _context(ssl.PROTOCOL_TLS_CLIENT)
    if server_ca is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    else:
        _load_authorities(context, server_ca)
    if certificate is not None and key is not None:
        _load_chain(context, certificate, key)
        _try_out(certificate, key, as_server=False)
    elif certificate is not None or key is not None:
        missing = "certificate" if certificate is None else "key"
        raise TlsConfigError(f"a certificate and its key go together: no {missing}")
    return context


def handshake_failure(error: OSError) -> str:
    """Say in words, for a line of a log, why a handshake failed."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the peer's certificate is refused: {error.verify_message}"
    reason = error.reason if isinstance(error, ssl.SSLError) else None
    if reason is None:
        return str(error) or "the peer hung up"
    if reason in _NOT_TLS:
        return "the peer does not speak TLS"
    if reason in _TOO_OLD:
        return "the peer speaks nothing newer than TLS 1.1"
    if reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return "the peer has no certificate"
    _, alert, told = reason.partition("_ALERT_")
    if alert:
        return f"the peer refuses: {_words(told)}"
    return _words(reason)


def _words(reason: str) -> str:
    return reason.replace("_", " ").lower()


def _context(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    return context


def _load_chain(context: ssl.SSLContext, certificate: StrPath, key: StrPath) -> None:
    """Load a certificate and its key.

    Raises:
        TlsConfigError: They cannot be used.
    """
    _require("certificate", certificate, _CERTIFICATE_MARK)
    _require("key", key, _KEY_MARK)

    def refuse_password() -> str:
        # Without this OpenSSL asks at the terminal, and waits for an answer.
        raise TlsConfigError(
            f"key {key} is protected by a password: write it without one "
            "(openssl pkey -in … -out …), readable by its owner only"
        )

    try:
        context.load_cert_chain(certificate, key, password=refuse_password)
    except ssl.SSLError as error:
        if error.reason in {"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH"}:
            problem = f"key {key} does not belong to certificate {certificate}"
        else:
            why = _words(error.reason) if error.reason else str(error)
            problem = f"certificate {certificate} with key {key} can't be used: {why}"
        raise TlsConfigError(problem) from error


def _load_authorities(context: ssl.SSLContext, path: StrPath) -> None:
    """Trust the certificates in *path*.

    Raises:
        TlsConfigError: There are none.
    """
    _require("authorities", path, _CERTIFICATE_MARK)
    try:
        context.load_verify_locations(cafile=path)
    except ssl.SSLError as error:
        why = _words(error.reason) if error.reason else str(error)
        raise TlsConfigError(f"authorities {path} can't be used: {why}") from error


def _require(what: str, path: StrPath, mark: bytes) -> None:
    """Check that *path* can be read and is PEM; OpenSSL would not name it.

    Raises:
        TlsConfigError: It is not.
    """
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        why = error.strerror or str(error)
        raise TlsConfigError(f"{what} {path} can't be read: {why}") from error
    if mark not in text:
        raise TlsConfigError(f"{what} {path} has no {mark.decode()!r}: it must be PEM")


def _try_out(certificate: StrPath, key: StrPath, *, as_server: bool) -> str:
    """Shake hands with one who trusts this certificate and no other.

    Returns:
        The certificate's last moment, as text.

    Raises:
        TlsConfigError: The other one refuses: it has expired, or is for other purposes.
    """
    server, client = (
        _context(ssl.PROTOCOL_TLS_SERVER),
        _context(ssl.PROTOCOL_TLS_CLIENT),
    )
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    for context in (server, client):
        _load_chain(context, certificate, key)
    judge = client if as_server else server
    judge.verify_mode = ssl.CERT_REQUIRED
    # Trust it by itself: who signed it is for the peers to know.
    judge.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    judge.load_verify_locations(cafile=certificate)
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(down, up, server_side=False),
        server.wrap_bio(up, down, server_side=True),
    ]
    try:
        _shake_hands(ends)
    except ssl.SSLCertVerificationError as error:
        raise TlsConfigError(
            f"certificate {certificate} would be refused: {error.verify_message}"
        ) from error
    except ssl.SSLError as error:
        raise TlsConfigError(
            f"certificate {certificate} can't be used: {handshake_failure(error)}"
        ) from error
    found = ends[0 if as_server else 1].getpeercert()
    assert found is not None  # it was required
    return str(found["notAfter"])


def _shake_hands(ends: list[ssl.SSLObject]) -> None:
    waiting = list(ends)
    for _ in range(_ROUNDS_MAX):
        for end in list(waiting):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            waiting.remove(end)
    assert not waiting  # what is written is there at once, so nothing can be missing
