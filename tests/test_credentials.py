"""Content credentials: files are sealed, c2pa's own reader agrees, and every change is found."""

from __future__ import annotations

import os
import stat
from io import BytesIO
from pathlib import Path

import c2pa
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from editing import photograph, untrained
from PIL import Image

from sfumato.core import SfumatoError
from sfumato.data.audit.declared import claim, manifests, receipt_of
from sfumato.serve.pictures import as_format
from sfumato.tasks import Request, certificate, generate
from sfumato.tasks.credentials import credentials_of, signed, wanted
from sfumato.tasks.receipt import Maker, encoded, receipt
from sfumato.tasks.verify import verify

KINDS = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    """Signing on, with a configuration of its own."""
    monkeypatch.delenv("SFUMATO_CREDENTIALS")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config" / "sfumato"


@pytest.fixture
def told(monkeypatch) -> dict:
    model = untrained("text")
    request = Request(1, seed=5, steps=1, prompt="ein Bär 🐻", shape=(16, 20), guidance=2.3)
    with monkeypatch.context() as patch:
        patch.setenv("SFUMATO_CREDENTIALS", "off")
        maker = Maker.of(model, "tiny")
    return receipt(maker, generate(model, request), 0)


@pytest.mark.parametrize("output", KINDS)
def test_every_format_is_sealed_with_its_receipt(output, told) -> None:
    data = encoded(photograph(40, 30), told, output)
    found = credentials_of(data, KINDS[output])
    assert found.valid and found.program == "sfumato" and found.wrong == ()
    assert found.receipt == receipt_of(data) and found.receipt["request"]["prompt"] == "ein Bär 🐻"
    states = manifests(data, KINDS[output])
    assert states["validation_state"] == "Valid"
    assert [s["code"] for s in states["validation_status"]] == ["signingCredential.untrusted"]
    assert "trainedAlgorithmicMedia" in claim(data).evidence and "Sfumato" in claim(data).evidence
    said = verify(data)
    assert said.found == "made here" and any("sealed by" in words for words in said.words)
    assert len(data) < 10_000 + len(photograph(40, 30).tobytes())  # no thumbnails


@pytest.mark.parametrize("output", KINDS)
def test_changed_bytes_break_the_seal(output, told) -> None:
    data = encoded(photograph(40, 30), told, output)
    pixels = {"PNG": b"IDAT", "JPEG": b"\xff\xda", "WEBP": b"VP8"}[output]
    places = [data.rindex(pixels) + 30, data.rindex(told["weights"].encode()) + 3]
    for place in places:
        changed = bytearray(data)
        changed[place] ^= 1
        found = credentials_of(bytes(changed), KINDS[output])
        assert found is None or not found.valid
    text = data.replace(told["weights"].encode(), told["weights"][::-1].encode())
    assert text != data and not credentials_of(text, KINDS[output]).valid


def test_a_seal_that_was_moved_and_a_receipt_that_was_exchanged_are_told(told, tmp_path) -> None:
    data = encoded(photograph(40, 30), told)
    other = encoded(photograph(40, 30), told | {"model": "another"})
    start, end = data.index(b"tEXtsfumato") - 4, data.index(b"iTXtXML") - 4
    begin, stop = other.index(b"tEXtsfumato") - 4, other.index(b"iTXtXML") - 4
    (tmp_path / "exchanged.png").write_bytes(data[:start] + other[begin:stop] + data[end:])
    found = verify(tmp_path / "exchanged.png")
    assert found.receipt["model"] == "another" and found.found == "contradicting"
    assert "seal is broken" in " ".join(found.contradictions) and "not the one" in " ".join(found.contradictions)


def test_another_format_of_a_sealed_file_is_sealed_anew(told) -> None:
    data = encoded(photograph(40, 30), told)
    brought = as_format(data, "jpeg", 80)
    assert credentials_of(brought, "image/jpeg").valid and receipt_of(brought) == receipt_of(data)


def test_edits_say_that_they_are_composed(told) -> None:
    data = encoded(photograph(40, 30), told | {"parents": {"image": ["0" * 64]}})
    assert "compositeWithTrainedAlgorithmicMedia" in claim(data).evidence and credentials_of(data, "image/png").valid


def test_the_key_is_made_once_and_is_the_users_alone(home, told) -> None:
    encoded(photograph(8, 8), told)
    (file,) = home.iterdir()
    first = file.read_bytes()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    encoded(photograph(8, 8), told)
    assert file.read_bytes() == first
    leaf, root = x509.load_pem_x509_certificates(first)
    leaf.verify_directly_issued_by(root)
    key = serialization.load_pem_private_key(first[first.index(b"-----BEGIN PRIVATE") :], None)
    assert leaf.public_key() == key.public_key()


def test_of_two_that_begin_at_once_one_makes_the_certificate(home, told, monkeypatch) -> None:
    """The other one finds it there when it comes to keep its own."""
    link = os.link
    other = certificate._made()

    def faster(begun: str, file: Path) -> None:
        file.write_text("".join(other))
        link(begun, file)

    monkeypatch.setattr(os, "link", faster)
    assert credentials_of(encoded(photograph(8, 8), told), "image/png").valid
    assert (home / "certificate.pem").read_text() == "".join(other)
    assert [p.name for p in home.iterdir()] == ["certificate.pem"]


def test_a_certificate_of_the_users_own_signs(home, told, tmp_path, monkeypatch) -> None:
    parts = zip(("SFUMATO_CERTIFICATE", "SFUMATO_KEY"), certificate._made(), strict=True)
    for name, text in parts:
        (tmp_path / name).write_text(text)
        monkeypatch.setenv(name, str(tmp_path / name))
    assert credentials_of(encoded(photograph(8, 8), told), "image/png").valid
    assert not home.exists()


@pytest.mark.parametrize("given", [("none.pem", "none.pem"), ("", "none.pem"), ("wrong.pem", "wrong.pem")])
def test_a_certificate_that_does_not_serve_is_one_line(given, told, tmp_path, monkeypatch) -> None:
    (tmp_path / "wrong.pem").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    for name, file in zip(("SFUMATO_CERTIFICATE", "SFUMATO_KEY"), given, strict=True):
        if file:
            monkeypatch.setenv(name, str(tmp_path / file))
    for asked in (lambda: encoded(photograph(8, 8), told), lambda: Maker.of(untrained("text"), "tiny")):
        with pytest.raises(SfumatoError) as error:  # before anything is drawn, too
            asked()
        assert "\n" not in str(error.value) and "sign" in str(error.value)


def test_a_configuration_that_cannot_be_written_is_one_line(home, told, monkeypatch) -> None:
    (home.parent.parent / "file").write_text("")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home.parent.parent / "file"))
    with pytest.raises(SfumatoError, match="SFUMATO_CREDENTIALS=off"):
        encoded(photograph(8, 8), told)


def test_off_is_off(told, monkeypatch) -> None:
    monkeypatch.setenv("SFUMATO_CREDENTIALS", "off")
    assert not wanted() and credentials_of(encoded(photograph(8, 8), told), "image/png") is None
    assert encoded(photograph(8, 8), told) == encoded(photograph(8, 8), told)


def test_nothing_is_fetched_while_reading() -> None:
    """A file that names a manifest elsewhere is not followed: not by audit, not by verify, not by a server."""
    xmp = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        b'<rdf:Description rdf:about="" xmlns:dcterms="http://purl.org/dc/terms/" '
        b'dcterms:provenance="http://127.0.0.1:9/manifest.c2pa"/></rdf:RDF></x:xmpmeta>'
    )
    file = BytesIO()
    photograph(8, 8).save(file, "JPEG", xmp=xmp)
    with pytest.raises(c2pa.C2paError, match="must fetch"):  # "could not fetch" is what one that tries says
        manifests(file.getvalue(), "image/jpeg")
    assert verify(file.getvalue()).found == "nothing"


@pytest.mark.parametrize(
    "data", [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xeb\x00\x04JP", b"RIFF\0\0\0\0WEBPC2PA\xff\xff\xff\xff"]
)
def test_what_is_no_manifest_is_none(data) -> None:
    for mime in (*KINDS.values(), "", "text/html"):
        assert credentials_of(data, mime) is None


def test_pixels_are_not_touched(told) -> None:
    picture = photograph(21, 13)
    found = Image.open(BytesIO(signed(encoded(picture, told), "image/png", told)))
    assert found.tobytes() == picture.tobytes()
