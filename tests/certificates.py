"""Throwaway certificates for servers on loopback."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import NamedTuple


class Certificate(NamedTuple):
    """A throwaway CA (`ca_file`) and the server side of a certificate for some names."""

    ca_file: str
    server: ssl.SSLContext


def certificate(folder: Path, *names: str) -> Certificate:
    """Make one for `names`, or else for localhost; `folder` is where the CA's file goes."""
    import trustme

    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*(names or ("localhost", "127.0.0.1"))).configure_cert(context)
    path = folder / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return Certificate(str(path), context)
