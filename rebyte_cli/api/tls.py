"""Which certificates are trusted."""

from __future__ import annotations

import os
import ssl

from urllib3.util.ssl_ import create_urllib3_context

from ..errors import BadUsage


def make_context(ca_bundle: str | None) -> ssl.SSLContext:
    """A context that trusts one bundle and nothing beside it.

    `ca_bundle`, a file or a folder, wins over REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE, SSL_CERT_FILE
    and SSL_CERT_DIR, in this order; without any, it is the bundle of certifi, as in every tool
    built on requests. Raises BadUsage when it cannot be read.
    """
    env = os.environ.get
    chosen = ca_bundle or env("REQUESTS_CA_BUNDLE") or env("CURL_CA_BUNDLE")
    file = chosen or env("SSL_CERT_FILE")
    folder = None if chosen else env("SSL_CERT_DIR")
    if file:
        file = os.path.expanduser(file)
    if file and os.path.isdir(file):
        file, folder = None, file
    if not file and not folder:
        import certifi

        file = certifi.where()
    # Not ssl.create_default_context: it would trust the system's CAs besides those named.
    context = create_urllib3_context()
    context.verify_mode = ssl.CERT_REQUIRED
    context.check_hostname = True
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_verify_locations(file, folder)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        why = getattr(error, "strerror", None) or "it cannot be used"
        if isinstance(error, ssl.SSLError):
            why = "it holds no certificate"
        raise BadUsage(
            f"cannot read the CA file {file or folder}: {why}",
            hint="it is named by ca_bundle, REQUESTS_CA_BUNDLE or SSL_CERT_FILE",
        ) from None
    return context
