"""Who built a bundle: signatures in OpenSSH's format (its PROTOCOL.sshsig), made and checked by OpenSSH itself.

So the keys, agents and hardware tokens that people have already serve here, and `ssh-keygen -Y verify` checks a bundle
where this package is not installed.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from sekron_edge.errors import BundleError, ConfigError, MissingDependencyError

NAMESPACE = "sekron-edge-bundle"
_LARGEST, _LONGEST_S = 1 << 16, 30.0
_PUBLIC_KEY = re.compile(r"(ssh|ecdsa|sk-ssh|sk-ecdsa)-\S+\s+\S+")
_GOOD = re.compile(r'^Good ".*" signature .*with (?P<kind>\S+) key (?P<fingerprint>SHA256:\S+)$', re.MULTILINE)


class Signature(BaseModel):
    """A signature that belongs to what it is said to sign.

    Attributes:
        key: Kind and fingerprint of the public key, as `ssh-keygen -l` gives it.
        signer: Who has that key, as the trusted keys say; None where they were not asked.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    signer: str | None = None

    def __str__(self) -> str:
        by = "a key that nobody was asked to vouch for (--trusted KEYS)" if self.signer is None else self.signer
        return f"signed by {by}: {self.key}"


def signed(content: bytes, key: Path) -> bytes:
    """Sign with a private key, or with the public one of a key that the ssh agent holds; may ask for a passphrase.

    Raises:
        ConfigError: If the key cannot be used; says why.
        MissingDependencyError: If OpenSSH is absent.
    """
    if not key.is_file():
        raise ConfigError(f"{key} is no key to sign with: give the file of a private key, as ~/.ssh/id_ed25519")
    ended = _ssh_keygen("sign", "-f", str(key), "-n", NAMESPACE, content=content)
    if ended.returncode != 0 or not ended.stdout:
        raise ConfigError(f"{key} cannot sign: {_said(ended)}. A new key: ssh-keygen -t ed25519 -f FILE")
    return ended.stdout


def signature_of(content: bytes, signature: Path, trusted: Path | None = None) -> Signature:
    """Check that a signature belongs to ``content``, and to one of the trusted keys if they are given.

    Args:
        content: What was signed.
        signature: The signature's file.
        trusted: Public keys, a line each, as in ``id_ed25519.pub``; or OpenSSH's allowed signers (ssh-keygen(1)).

    Raises:
        BundleError: If it does not belong to them; says which.
        ConfigError: If there are no trusted keys in the file.
        MissingDependencyError: If OpenSSH is absent.
    """
    if signature.stat().st_size > _LARGEST:
        raise BundleError(f"{signature} is no signature: it is larger than {_LARGEST} bytes")
    given = ("-n", NAMESPACE, "-s", str(signature))
    ended = _ssh_keygen("check-novalidate", *given, content=content, timeout=_LONGEST_S)
    good = _GOOD.search(ended.stdout.decode(errors="replace"))
    if ended.returncode != 0 or good is None:
        raise BundleError(f"{signature} is not the signature of what is signed: {_said(ended)}")
    key = f"{good['kind']} {good['fingerprint']}"
    if trusted is None:
        return Signature(key=key)
    with _allowed_signers(trusted) as allowed:
        ended = _ssh_keygen("find-principals", "-f", str(allowed), "-s", str(signature), timeout=_LONGEST_S)
        refused = ended
        for signer in ended.stdout.decode(errors="replace").splitlines() if ended.returncode == 0 else ():
            refused = _ssh_keygen(
                "verify", "-f", str(allowed), "-I", signer, *given, content=content, timeout=_LONGEST_S
            )
            if refused.returncode == 0:
                return Signature(key=key, signer=signer)
    raise BundleError(f"{signature} is of {key}, and {trusted} has no such key for bundles ({_said(refused)})")


@contextmanager
def _allowed_signers(trusted: Path) -> Iterator[Path]:
    """Yield a file of allowed signers: the one that is given, its plain public keys named by their comments."""
    try:
        lines = [line.strip() for line in trusted.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{trusted} cannot be read as trusted keys: {error}") from error
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise ConfigError(f"{trusted} has no keys: give a file of public keys, as ~/.ssh/id_ed25519.pub")
    named = [f"{_name(line, trusted)} {line}" if _PUBLIC_KEY.match(line) else line for line in keys]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "allowed_signers"
        path.write_text("\n".join(named) + "\n", encoding="utf-8")
        yield path


def _name(line: str, trusted: Path) -> str:
    """Return a signer's name: the comment of a public key, or else the name of the file that it is in."""
    comment = " ".join(line.split()[2:]) or trusted.stem
    return re.sub(r"[^\w.@+-]", "_", comment)


def _ssh_keygen(
    doing: str, *arguments: str, content: bytes = b"", timeout: float | None = None
) -> subprocess.CompletedProcess[bytes]:
    program = shutil.which("ssh-keygen")
    if program is None:
        raise MissingDependencyError("ssh-keygen", install="apt-get install openssh-client, or your system's OpenSSH")
    command = [program, "-Y", doing, *arguments]
    try:
        return subprocess.run(command, input=content, capture_output=True, check=False, timeout=timeout)
    except subprocess.TimeoutExpired as error:
        raise BundleError(f"ssh-keygen -Y {doing} did not end in {timeout:.0f} s") from error


def _said(ended: subprocess.CompletedProcess[bytes]) -> str:
    """Return the last that ssh-keygen said, on one line."""
    said = (ended.stderr + ended.stdout).decode(errors="replace").replace("\r", "").splitlines()
    told = [line.strip() for line in said if line.strip() and not line.startswith("Signing data on")]
    return told[-1] if told else f"ssh-keygen ended with {ended.returncode}"
