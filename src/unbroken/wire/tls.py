"""TLS contexts: by default verified by the system's trust store."""

from __future__ import annotations

import ssl
from pathlib import Path

import httpcore2

from unbroken.errors import UsageError


def client_context(verify: bool | str | Path | ssl.SSLContext = True) -> ssl.SSLContext:
    """Return a context for connecting to servers.

    Args:
        verify: ``True`` for the system's trust store (``SSL_CERT_FILE`` and ``SSL_CERT_DIR`` are honoured), a path to
            a file of CA certificates in PEM, a context that is taken as it is, or ``False`` for no verification.

    Raises:
        UsageError: the file cannot be read or holds no certificate.
    """
    if isinstance(verify, ssl.SSLContext):
        return verify
    if verify is True:
        return httpcore2.default_ssl_context()
    if verify is False:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    try:
        return ssl.create_default_context(cafile=verify)
    except OSError as exc:
        reason = "it holds no PEM certificate" if isinstance(exc, ssl.SSLError) else exc.strerror
        raise UsageError(f"cannot use the CA file {str(verify)!r}: {reason}") from None
