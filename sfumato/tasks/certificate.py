"""A certificate of a user's own to sign with, made at first use: it seals, and vouches for nobody's name."""

from __future__ import annotations

import contextlib
import functools
import os
from datetime import datetime, timedelta, timezone
from pathlib import Path

from sfumato.core import SfumatoError
from sfumato.data.records import shown

YEARS = 10  # that it is good for


@functools.lru_cache(maxsize=4)
def own_pair(folder: Path) -> tuple[str, str]:
    """(certificate chain, private key), PEM, of the one file in this folder that holds both, readable by the user alone; made
    when it is first asked for, by whoever comes first. Raises SfumatoError where it cannot be kept."""
    file = folder / "certificate.pem"
    begun = file.with_suffix(f".{os.getpid()}")
    try:
        if not file.exists():
            folder.mkdir(parents=True, exist_ok=True)
            with open(os.open(begun, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
                out.write("".join(_made()))
            with contextlib.suppress(FileExistsError):  # another process was faster: its certificate is the one
                os.link(begun, file)
            begun.unlink()
        text = file.read_text()
    except OSError as error:
        raise SfumatoError(
            f"the certificate to sign with cannot be kept in {shown(folder)} ({error.strerror}): SFUMATO_CREDENTIALS=off "
            "signs nothing"
        ) from error
    chain, begin, key = text.partition("-----BEGIN PRIVATE KEY-----")
    return chain, begin + key


def _made() -> tuple[str, str]:
    """A root and a certificate under it, as C2PA asks for (ES256, to sign with alone, for e-mail and documents)."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    now = datetime.now(timezone.utc) - timedelta(days=1)
    until = now + timedelta(days=365 * YEARS)
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [
        x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Sfumato, self-signed"),
                x509.NameAttribute(NameOID.COMMON_NAME, n),
            ]
        )
        for n in ("Sfumato root of this user", "Sfumato of this user")
    ]
    made = []
    for k in (0, 1):
        use = {name: False for name in ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement")}
        use |= {"encipher_only": False, "decipher_only": False, "crl_sign": k == 0, "key_cert_sign": k == 0}
        builder = x509.CertificateBuilder(
            names[0], names[k], keys[k].public_key(), x509.random_serial_number(), now, until
        )
        builder = builder.add_extension(x509.BasicConstraints(k == 0, None), critical=True)
        builder = builder.add_extension(x509.KeyUsage(digital_signature=k == 1, **use), critical=True)
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(keys[k].public_key()), critical=False)
        root = x509.AuthorityKeyIdentifier.from_issuer_public_key(keys[0].public_key())
        builder = builder.add_extension(root, critical=False)
        if k == 1:
            builder = builder.add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False
            )
        made.append(builder.sign(keys[0], hashes.SHA256()))
    chain = b"".join(c.public_bytes(serialization.Encoding.PEM) for c in reversed(made))
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return chain.decode(), keys[1].private_bytes(serialization.Encoding.PEM, *plain).decode()
