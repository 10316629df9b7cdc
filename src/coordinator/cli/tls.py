"""The options of ``coordinator serve`` for TLS, and what they come to.

Imported for every ``--help``: so what takes time is imported when it is needed.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from coordinator.cli.exits import CliError, ExitCode

if TYPE_CHECKING:
    from cmdstream import ServerTls
    from coordinator.serve import Address

__all__ = ["TlsCertOption", "TlsClientCaOption", "TlsKeyOption", "load_tls"]

TlsCertOption = Annotated[
    str | None,
    typer.Option(
        metavar="FILE", help="For tls://, PEM; read again on SIGHUP, as the key is."
    ),
]
TlsKeyOption = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Of the certificate; without a password."),
]
TlsClientCaOption = Annotated[
    str | None,
    typer.Option(
        metavar="FILE", help="Let in only clients with a certificate of these."
    ),
]


def load_tls(
    addresses: Iterable["Address"],
    certificate: str | None,
    key: str | None,
    client_ca: str | None,
) -> "ServerTls | None":
    """Load what the addresses with TLS serve with; None if there are none.

    Raises:
        CliError: The options and addresses don't go together, or a file can't be used.
    """
    from cmdstream import ServerTls, TlsConfigError

    wanted = any(address.tls for address in addresses)
    if not wanted and (certificate or key or client_ca):
        raise CliError(
            "--tls-cert, --tls-key and --tls-client-ca are for addresses that begin "
            "with tls://, and --listen has none: nothing would be encrypted",
            ExitCode.USAGE,
        )
    if not wanted:
        return None
    if certificate is None or key is None:
        raise CliError(
            "an address that begins with tls:// needs --tls-cert and --tls-key",
            ExitCode.USAGE,
        )
    try:
        return ServerTls(certificate, key, client_ca=client_ca)
    except TlsConfigError as error:
        raise CliError(str(error), ExitCode.USAGE) from error
