"""Content credentials as the real library writes them: signed with a certificate of our own, read back by the audit."""

from __future__ import annotations

import datetime
import json
from io import BytesIO

import c2pa
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from PIL import Image

from sfumato.data.audit.declared import claim

TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"


def certificate(
    name: str, key: ec.EllipticCurvePrivateKey, issuer: x509.Name, by: ec.EllipticCurvePrivateKey, ca: bool
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.timezone.utc)
    usage = dict.fromkeys(
        "content_commitment key_encipherment data_encipherment key_agreement encipher_only decipher_only".split(), False
    )
    built = (
        x509.CertificateBuilder()
        .subject_name(subject(name))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(digital_signature=not ca, key_cert_sign=ca, crl_sign=ca, **usage), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key()), critical=False)
    )
    if not ca:
        built = built.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
    return built.sign(by, hashes.SHA256())


def subject(name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, name),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, f"{name} of tests"),
        ]
    )


@pytest.fixture(scope="module")
def signer() -> c2pa.Signer:
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root = certificate("Root", root_key, subject("Root"), root_key, ca=True)
    leaf = certificate("Painter", key, subject("Root"), root_key, ca=False)
    chain = b"".join(c.public_bytes(serialization.Encoding.PEM) for c in (leaf, root))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return c2pa.Signer.from_info(c2pa.C2paSignerInfo(c2pa.C2paSigningAlg.ES256, chain, private, None))


def signed(signer: c2pa.Signer, kind: str, source: str) -> bytes:
    """A drawn picture with a manifest that says how it came to be."""
    action = {"action": "c2pa.created", "digitalSourceType": TYPES + source}
    manifest = {
        "claim_generator_info": [{"name": "tests", "version": "1"}],
        "assertions": [{"label": "c2pa.actions", "data": {"actions": [action]}}],
    }
    plain, out = BytesIO(), BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)).save(plain, kind)
    plain.seek(0)
    c2pa.Builder(json.dumps(manifest)).sign(signer, f"image/{kind.lower()}", plain, out)
    return out.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_signed_pictures_declare_what_they_are(signer: c2pa.Signer, kind: str) -> None:
    told = claim(signed(signer, kind, "trainedAlgorithmicMedia"))
    assert told is not None and told.made
    assert "C2PA" in told.evidence and "signed by Painter of tests" in told.evidence
    assert claim(signed(signer, kind, "digitalCapture")) is None  # a camera
