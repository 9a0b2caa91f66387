"""Who may talk to whom: TLS from files, tokens from a file, and plaintext on loopback only."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import stat
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from featcomp.errors import FeatcompError, InvalidArgumentError
from featcomp.extras import needs

with needs("edge"):
    import grpc

_LOOK_SECONDS = 0.5
T = TypeVar("T")


class SecurityError(FeatcompError, PermissionError):
    """Certificates, tokens or an address that must not be used like this."""


def is_loopback(address: str) -> bool:
    """Whether "HOST:PORT" (or unix:PATH) reaches this machine only; a name other than localhost does not count."""
    if address.startswith("unix:"):
        return True
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def require_loopback(address: str) -> None:
    """Refuse plaintext to or from anywhere else.

    Raises:
        SecurityError: the address is not a loopback address.
    """
    if not is_loopback(address):
        raise SecurityError(f"plaintext is for loopback addresses only, not {address}: use TLS")


class Watched(Generic[T]):
    """What was read from files, read again when they change; a version that cannot be read leaves the one before it."""

    def __init__(self, files: Sequence[Path], read: Callable[[], T], failed: Callable[[Exception], None]) -> None:
        """Read now.

        Args:
            files: a change of time, size or inode of any of these leads to a new reading.
            read: what to do then.
            failed: is told the exception of a later reading that fails; the first one raises it.
        """
        self._files, self._read, self._failed = tuple(files), read, failed
        self._lock = threading.Lock()
        self._marks = self._look()
        self._looked = time.monotonic()
        self._value = read()
        self.generation = 0

    def get(self) -> T:
        """The value, as new as the files were half a second ago."""
        with self._lock:
            if time.monotonic() - self._looked >= _LOOK_SECONDS:
                self._looked = time.monotonic()
                marks = self._look()
                if marks != self._marks:
                    self._renew(marks)
            return self._value

    def _renew(self, marks: list[tuple[int, ...] | None]) -> None:
        try:
            self._value = self._read()
        except (OSError, ValueError, FeatcompError) as error:
            self._failed(error)
        else:
            self.generation += 1
        self._marks = marks

    def _look(self) -> list[tuple[int, ...] | None]:
        marks: list[tuple[int, ...] | None] = []
        for file in self._files:
            try:
                about = file.stat()
                marks.append((about.st_mtime_ns, about.st_size, about.st_ino))
            except OSError:
                marks.append(None)
        return marks


class Tokens:
    """The tokens that a server takes: a file with a line `NAME TOKEN` for each edge; # starts a comment."""

    def __init__(self, path: Path, failed: Callable[[Exception], None] = lambda error: None) -> None:
        """Read the file.

        Raises:
            SecurityError: others than the owner and the group may read it, or a line is wrong.
        """
        self._entries = Watched([path], lambda: _read_tokens(path), failed)

    def name_of(self, token: str) -> str | None:
        """Whose token this is, or None; every entry is compared, each in constant time."""
        digest, found = _digest(token), None
        for name, entry in self._entries.get():
            if hmac.compare_digest(entry, digest):
                found = name
        return found

    @property
    def generation(self) -> int:
        """Grows whenever the file was read anew."""
        self._entries.get()
        return self._entries.generation


def _read_tokens(path: Path) -> list[tuple[str, bytes]]:
    check_private(path)
    entries = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) != 2 or len(words[1]) < 16:
            raise SecurityError(f"{path}, line {number}: expected NAME TOKEN, with a token of 16 characters or more")
        entries.append((words[0], _digest(words[1])))
    if not entries:
        raise SecurityError(f"{path} holds no token: nobody could connect")
    return entries


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="replace")).digest()


def read_token(path: Path) -> str:
    """An edge's own token: the only word of a file, or the last word of its only line.

    Raises:
        SecurityError: there is none, or others than the owner and the group may read it.
    """
    check_private(path)
    words = path.read_text().split()
    if not 1 <= len(words) <= 2:
        raise SecurityError(f"{path} should hold one token")
    return words[-1]


def server_credentials(
    certificate: Path, key: Path, client_authority: Path | None, failed: Callable[[Exception], None]
) -> grpc.ServerCredentials:
    """TLS for a server; the files are read again for connections after they change.

    Args:
        certificate: PEM, the server's own first, then those in between.
        key: PEM, its private key.
        client_authority: PEM; clients must then show a certificate of it (mutual TLS).
        failed: is told why changed files cannot be used; those before stay in use.

    Raises:
        SecurityError: the key may be read by everybody, or certificate and key do not go together.
    """
    files = [certificate, key] + ([client_authority] if client_authority else [])

    def read() -> grpc.ServerCertificateConfiguration:
        check_pair(certificate, key)
        authority = read_authority(client_authority) if client_authority else None
        return grpc.ssl_server_certificate_configuration([(key.read_bytes(), certificate.read_bytes())], authority)

    watched = Watched(files, read, failed)
    given = [0]

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        configuration = watched.get()
        if watched.generation == given[0]:
            return None
        given[0] = watched.generation
        return configuration

    return grpc.dynamic_ssl_server_credentials(watched.get(), renewed, client_authority is not None)


def channel_credentials(
    authority: Path | None, certificate: Path | None = None, key: Path | None = None
) -> grpc.ChannelCredentials:
    """TLS for an edge.

    Args:
        authority: PEM with the authority of the server's certificate; None: those that gRPC trusts.
        certificate: PEM, for mutual TLS.
        key: PEM, its private key.

    Raises:
        SecurityError: a file is not what it should be.
    """
    if (certificate is None) != (key is None):
        raise InvalidArgumentError("mutual TLS needs a certificate and its key, both")
    if certificate and key:
        check_pair(certificate, key)
    own = [file.read_bytes() if file else None for file in (key, certificate)]
    return grpc.ssl_channel_credentials(read_authority(authority) if authority else None, *own)


def read_authority(path: Path) -> bytes:
    """The certificates of an authority, PEM.

    Raises:
        SecurityError: the file holds none.
    """
    import ssl

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError as error:
        raise SecurityError(f"{path} holds no certificate of an authority") from error
    return path.read_bytes()


def check_private(path: Path) -> None:
    """Check that a secret is one.

    Raises:
        SecurityError: everybody may read or write the file.
    """
    if path.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH):
        raise SecurityError(f"{path} is secret and may be read or written by everybody: chmod o-rw {path}")


def check_pair(certificate: Path, key: Path) -> None:
    """Check that a private key is private, and that it is the certificate's.

    Raises:
        SecurityError: it is not.
    """
    import ssl

    check_private(key)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except (ssl.SSLError, OSError) as error:
        raise SecurityError(f"{certificate} and {key} are no certificate with its key: {error}") from error
