"""Certificates for tests of TLS, made by the ``openssl`` program.

authority = Authority(folder)
server = authority.issue("server")
context.load_cert_chain(server.certificate, server.key)
"""

import os
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

__all__ = ["Authority", "Pair", "needs_openssl"]

needs_openssl = pytest.mark.skipif(
    shutil.which("openssl") is None and "CI" not in os.environ,
    reason="needs openssl, which makes certificates",
)

_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")

_CONFIG = """
[ca]
default_ca = ours
[ours]
new_certs_dir = {folder}
database = {folder}/index.txt
serial = {folder}/serial
default_md = sha256
policy = anybody
certificate = {folder}/authority.pem
private_key = {folder}/authority.key
unique_subject = no
[anybody]
commonName = supplied
"""


class Pair(NamedTuple):
    """A certificate and its key, as files."""

    certificate: Path
    key: Path


class Authority:
    """Signs certificates in a folder of its own.

    Attributes:
        certificate: Its own, which peers have to trust.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self.certificate = folder / "authority.pem"
        self._config = folder / "openssl.cnf"
        self._config.write_text(_CONFIG.format(folder=folder))
        (folder / "index.txt").touch()
        (folder / "serial").write_text("01")
        key = folder / "authority.key"
        request = ("req", "-x509", *_NEW_KEY, "-days", "365", "-subj", "/CN=authority")
        _openssl(*request, "-keyout", str(key), "-out", str(self.certificate))

    def issue(
        self,
        name: str,
        *,
        usage: str = "serverAuth,clientAuth",
        until: str = "20491231235959Z",
    ) -> Pair:
        """Make a certificate for *name*, at 127.0.0.1 and localhost."""
        certificate, key = (self._folder / f"{name}.{end}" for end in ("pem", "key"))
        request = self._folder / f"{name}.csr"
        asked = ("req", *_NEW_KEY, "-subj", f"/CN={name}", "-keyout", str(key))
        _openssl(*asked, "-out", str(request))
        extensions = self._folder / f"{name}.ext"
        extensions.write_text(
            f"subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage={usage}\n"
        )
        signing = ("ca", "-batch", "-notext", "-config", str(self._config))
        dates = ("-startdate", "20200101000000Z", "-enddate", until)
        files = ("-in", str(request), "-extfile", str(extensions))
        _openssl(*signing, *dates, *files, "-out", str(certificate))
        return Pair(certificate, key)


def _openssl(*arguments: str) -> None:
    done = subprocess.run(
        ["openssl", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
