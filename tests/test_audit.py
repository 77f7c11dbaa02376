"""Faults planted at known places are found there and nowhere else; what is declared is read, what is not is not guessed."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter, PngImagePlugin

from sfumato.cli import main
from sfumato.core import SfumatoError
from sfumato.data import Source
from sfumato.data.audit import FIXES, KINDS, audit
from sfumato.data.audit.declared import MARK, claim


def drawing(seed: int, size: int = 64) -> Image.Image:
    """Coloured boxes on white, each seed another picture."""
    rng = np.random.default_rng(seed)
    pixels = np.full((size, size, 3), 255, np.uint8)
    for _ in range(6):
        top, left = rng.integers(0, size * 3 // 4, 2)
        high, wide = rng.integers(size // 8, size // 2, 2)
        pixels[top : top + high, left : left + wide] = rng.integers(0, 256, 3)
    return Image.fromarray(pixels)


def folder(root: Path, n: int = 24) -> Path:
    for seed in range(n):
        save(drawing(seed), root / f"good{seed:02d}.png")
    return root


def save(image: Image.Image, path: Path, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


def found(root: Path) -> dict[str, set[str]]:
    """Files by kind."""
    out: dict[str, set[str]] = {}
    for finding in audit(str(root)).findings:
        assert finding.kind in KINDS and finding.fix in FIXES and finding.evidence
        out.setdefault(finding.kind, set()).update(finding.files)
    out.pop("outlier", None)  # twenty boxes have no rest to be unlike of
    return out


def test_a_clean_folder_is_clean(tmp_path: Path) -> None:
    result = audit(str(folder(tmp_path)))
    assert {f.kind for f in result.findings} <= {"outlier"} and result.images == 24


def test_planted_faults_are_found_where_they_are(tmp_path: Path) -> None:
    folder(tmp_path)
    plain, photo = drawing(90), drawing(91).filter(ImageFilter.GaussianBlur(0.6))
    noise = np.random.default_rng(0).normal(0, 2, (64, 64, 3))
    slope = np.linspace(60, 180, 64)[:, None, None] + noise[..., :1]
    plant = {
        "blank": Image.fromarray((200 + noise).clip(0, 255).astype(np.uint8)),
        "dark": photo.point(lambda v: v * 0.12),
        "blown_out": photo.point(lambda v: 215 + v * 0.19),
        "blurred": plain.filter(ImageFilter.GaussianBlur(3)),
        "low_information": Image.fromarray(np.broadcast_to(slope, (64, 64, 3)).clip(0, 255).astype(np.uint8)),
        "tiny": drawing(92, 10),
        "odd_aspect": drawing(93).resize((256, 40), Image.Resampling.NEAREST),
        "mixed_modes": drawing(94).convert("L"),
    }
    for kind, image in plant.items():
        save(image, tmp_path / f"{kind}.png")
    glass = drawing(95).convert("RGBA")
    glass.putpixel((3, 3), (0, 0, 0, 128))
    save(glass, tmp_path / "alpha.png")
    save(drawing(96).convert("RGBA"), tmp_path / "opaque.png")
    save(drawing(97), tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:-200])
    (tmp_path / "copy.png").write_bytes((tmp_path / "good03.png").read_bytes())
    save(drawing(4), tmp_path / "copy.bmp")
    want = {kind: {f"{kind}.png"} for kind in plant}
    want |= {"alpha": {"alpha.png"}, "corrupt": {"cut.png"}}
    want["exact_duplicate"] = {"good03.png", "copy.png", "good04.png", "copy.bmp"}
    assert {k: v for k, v in found(tmp_path).items() if k not in ("near_duplicate", "bucket_waste")} == want


def test_a_faint_picture_is_dark_and_a_black_one_is_blank(tmp_path: Path) -> None:
    """All tones lie within 14 levels: what holds something is too dark; what holds a sensor's noise is blank."""
    folder(tmp_path)
    draw = np.random.default_rng(3)
    faint = np.kron(draw.integers(0, 15, (32, 32, 1)), np.ones((2, 2, 3), int))
    for name, pixels in {"faint": faint, "black": draw.integers(0, 4, (64, 64, 3))}.items():
        save(Image.fromarray(pixels.astype(np.uint8)), tmp_path / f"{name}.png")
    told = found(tmp_path)
    assert told["dark"] == {"faint.png"} and told["blank"] == {"black.png"}


def test_looks_that_are_no_faults(tmp_path: Path) -> None:
    """A night, a thin icon on white, a soft background behind a sharp subject, a wide but usual picture."""
    folder(tmp_path)
    rng = np.random.default_rng(5)
    night = rng.integers(0, 12, (64, 64, 3))
    night[20:26, 30:36] = 230
    icon = np.full((64, 64, 3), 255)
    icon[30:33, 10:54] = 0
    soft = np.asarray(drawing(70).filter(ImageFilter.GaussianBlur(4))).copy()
    soft[20:44, 20:44] = np.asarray(drawing(71))[20:44, 20:44]
    for name, pixels in {"night": night, "icon": icon, "soft": soft}.items():
        save(Image.fromarray(pixels.astype(np.uint8)), tmp_path / f"{name}.png")
    save(drawing(72).resize((128, 64), Image.Resampling.NEAREST), tmp_path / "wide.png")
    assert not {"dark", "blank", "blown_out", "blurred", "odd_aspect", "low_information"} & set(found(tmp_path))


def test_classes_and_captions(tmp_path: Path) -> None:
    for k in range(60):
        save(drawing(k), tmp_path / ("many" if k < 50 else "few") / f"{k}.png")
    rows = [
        {"file_name": f"many/{k}.png", "text": f"drawing {chr(97 + k)} with boxes {'abc'[k % 3] * (k + 1)}"}
        for k in range(26)
    ]
    rows += [{"file_name": f"many/{k}.png", "text": "a thing in a room"} for k in range(26, 36)]
    rows += [{"file_name": "many/36.png", "text": " "}, {"file_name": "many/37.png", "text": "IMG_2041.JPG"}]
    rows += [{"file_name": "many/38.png", "text": " ".join(f"w{k}" for k in range(80))}]
    rows += [{"file_name": "gone.png", "text": "a ghost"}]
    rows += [{"file_name": f"few/{k}.png", "text": f"rare thing number {k} {k * 7}"} for k in range(50, 60)]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    faults = found(tmp_path)
    assert faults["caption_missing"] == {f"many/{k}.png" for k in range(39, 50)}
    assert faults["caption_empty"] == {"many/36.png"} and faults["caption_boilerplate"] == {"many/37.png"}
    assert faults["caption_duplicated"] == {f"many/{k}.png" for k in range(26, 36)}
    assert faults["caption_long"] == {"many/38.png"} and faults["caption_without_picture"] == {"gone.png"}
    result = audit(str(tmp_path))
    assert result.classes == {"few": 10, "many": 50} and "class_imbalance" in {f.kind for f in result.findings}


def png_with(**texts: str) -> bytes:
    info = PngImagePlugin.PngInfo()
    for key, value in texts.items():
        info.add_text(key, value)
    return saved(drawing(1), "PNG", pnginfo=info)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    from io import BytesIO

    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def with_chunk(png: bytes, kind: bytes, body: bytes) -> bytes:
    chunk = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return png[:33] + chunk + png[33:]


def with_segment(jpeg: bytes, marker: int, body: bytes) -> bytes:
    return jpeg[:2] + bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


def jumbf(told: bytes) -> bytes:
    return struct.pack(">I4s", len(told) + 20, b"jumb") + b"....jumdc2pa" + told


SOURCE = b"http://cv.iptc.org/newscodes/digitalsourcetype/"
XMP = b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta><a Iptc4xmpExt:DigitalSourceType='" + SOURCE + b"%s'/></x:xmpmeta>"
JPEG = saved(drawing(1), "JPEG")
PNG = saved(drawing(1), "PNG")
WEBP = saved(drawing(1), "WEBP", lossless=True)


def exif(tag: int, value: str) -> bytes:
    block = Image.Exif()
    block[tag] = value
    return saved(drawing(1), "JPEG", exif=block)


@pytest.mark.parametrize(
    "data,needle",
    [
        (png_with(parameters="a cat\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1"), "parameters"),
        (png_with(prompt='{"3": {"class_type": "KSampler", "inputs": {}}}'), "ComfyUI"),
        (png_with(workflow='{"last_node_id": 9, "nodes": []}'), "ComfyUI"),
        (png_with(invokeai_metadata="{}"), "InvokeAI"),
        (png_with(**{"sd-metadata": "{}"}), "InvokeAI"),
        (png_with(Software="NovelAI"), "NovelAI"),
        (png_with(**{MARK: '{"version": 1}'}), "our own mark"),
        (png_with(Description="a cat --v 6 Job ID: 01234567-89ab-cdef-0123-456789abcdef"), "Midjourney"),
        (exif(0x0131, "Adobe Firefly"), "Software"),
        (with_segment(JPEG, 0xE1, XMP % b"trainedAlgorithmicMedia"), "digital source type trainedAlgorithmicMedia"),
        (with_segment(JPEG, 0xE1, XMP % b"compositeWithTrainedAlgorithmicMedia"), "compositeWith"),
        (with_chunk(PNG, b"caBX", jumbf(SOURCE + b"trainedAlgorithmicMedia")), "C2PA"),
        (with_segment(JPEG, 0xEB, b"JP\0\1\0\0\0\1" + jumbf(SOURCE + b"trainedAlgorithmicMedia")), "C2PA"),
        (WEBP + struct.pack("<4sI", b"C2PA", 98) + jumbf(SOURCE + b"trainedAlgorithmicMedia")[:98], "C2PA"),
    ],
)
def test_declared_ai_is_read(data: bytes, needle: str) -> None:
    told = claim(data)
    assert told is not None and told.made and needle in told.evidence


@pytest.mark.parametrize(
    "data",
    [
        PNG,
        JPEG,
        WEBP,
        png_with(
            Software="Adobe Photoshop 25",
            parameters="exposure 1/60",
            prompt="what do you see?",
            Comment="Steps to the sea",
        ),
        png_with(Description="stable diffusion of ink in water, a photograph"),
        exif(0x0131, "GIMP 2.10"),
        exif(0x010E, "the old house"),
        with_segment(JPEG, 0xE1, XMP % b"digitalCapture"),
        with_segment(JPEG, 0xE1, XMP % b"notTrainedAlgorithmicMediaAtAll"),
        with_segment(JPEG, 0xEB, b"JP\0\1\0\0\0\1" + jumbf(SOURCE + b"digitalCapture")),
    ],
)
def test_nothing_is_guessed(data: bytes) -> None:
    assert claim(data) is None


def test_a_manifest_that_says_nothing_is_a_note_and_no_share(tmp_path: Path) -> None:
    folder(tmp_path, 3)
    (tmp_path / "signed.png").write_bytes(with_chunk(PNG, b"caBX", jumbf(b"claim")))
    (tmp_path / "made.png").write_bytes(png_with(Software="NovelAI"))
    result = audit(str(tmp_path))
    told = {f.files: f.severity for f in result.findings if f.kind == "ai_made"}
    assert told == {("signed.png",): "note", ("made.png",): "warning"} and result.ai_made_share == 1 / 5


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clean, faulty, page = tmp_path / "clean", tmp_path / "faulty", tmp_path / "page.html"
    for seed in range(3):
        save(drawing(seed), clean / f"{seed}.png")
    assert main(["audit", str(clean), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {"images", "faults", "classes", "captions", "ai_made_share", "verdict"} <= set(told) and told["images"] == 3
    save(drawing(0), faulty / '<b>"a\n.png')
    save(drawing(0), faulty / "b.png")
    (faulty / "c.png").write_text("no picture")
    assert main(["audit", str(faulty), "--json", "--report", str(page)]) == 1
    printed = capsys.readouterr()
    entries = json.loads(printed.out)["faults"]["exact_duplicate"]
    assert entries == [
        {**entries[0], "files": ['<b>"a\n.png', "b.png"], "severity": "error", "fix": "quarantine-others"}
    ]
    assert '<b>"a\\n.png' in printed.err
    html = page.read_text()
    assert "&lt;b&gt;&quot;a\\n.png" in html and '<b>"a' not in html and html.count("<img") >= 2
    assert "would be moved" in html and "not a picture that Pillow can read" in html
    assert main(["audit", str(tmp_path / "nowhere")]) == 2
    assert main(["audit", str(clean), "--report", str(faulty / "b.png" / "x.html")]) == 2


def test_a_folder_of_splits_is_looked_at_as_a_whole(tmp_path: Path) -> None:
    for seed in range(8):
        save(drawing(seed), tmp_path / "train" / f"{seed}.png")
    save(drawing(2), tmp_path / "test" / "leak.png")
    assert found(tmp_path)["exact_duplicate"] == {"train/2.png", "test/leak.png"}


def test_named_sets_can_be_audited() -> None:
    assert audit("digits").images == 1797
    with pytest.raises(SfumatoError, match="no folder"):
        audit("nowhere")


def test_the_command_runs_as_a_process(tmp_path: Path) -> None:
    folder(tmp_path, 2)
    done = subprocess.run(
        [sys.executable, "-m", "sfumato.cli.main", "audit", str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0 and "verdict: clean" in done.stderr


def test_copies_on_both_sides_are_told_by_the_split_that_training_makes(monkeypatch) -> None:
    """Forty drawings, each there twice: by its drawing no copy is on the other side, by the names of pictures some are."""
    pixels = np.stack([np.asarray(drawing(k % 40, 32).convert("RGB")) for k in range(80)])
    source = Source("emoji", pixels, tuple(f"{k}.png" for k in range(80)))
    kept = set(source.train_index.tolist())
    apart = {k for k in range(40) if (k in kept) != (k + 40 in kept)}
    assert apart

    def told(source: Source) -> tuple[int, set[int]]:
        monkeypatch.setattr(sys.modules["sfumato.data.open"], "open", lambda *told: source)
        copies = [f for f in audit("emoji").findings if f.kind == "exact_duplicate"]
        return len(copies), {int(Path(f.files[0]).stem) % 40 for f in copies if "both sides" in f.evidence}

    assert told(source) == (40, apart)
    assert told(replace(source, groups=tuple(str(k % 40) for k in range(80)))) == (40, set())
    assert told(replace(source, held=("",) * 79 + ("kept",))) == (40, {39})
