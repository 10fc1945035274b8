"""Throwaway certificates for servers on loopback."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import NamedTuple


class Certificate(NamedTuple):
    """A throwaway CA (`ca_file`) and the server side of a certificate for localhost."""

    ca_file: str
    server: ssl.SSLContext


def certificate(folder: Path) -> Certificate:
    """Make one; needs trustme. `folder` is a Path for the CA's file."""
    import trustme

    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    path = folder / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return Certificate(str(path), context)
