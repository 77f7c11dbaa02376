"""Every picture file says where it comes from: receipts, what is found when they are wrong, and pictures made again."""

# ruff: noqa: F811 - fixtures are imported by name
from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from editing import photograph, untrained
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from test_editing_cli import OWN, folder, run  # noqa: F401

from sfumato.core import SfumatoError
from sfumato.data.audit.declared import claim, receipt_of
from sfumato.data.layout import layout_of
from sfumato.measure import grid_image
from sfumato.measure import reproduce as reproducing
from sfumato.measure.reproduce import TASKS, reproduce
from sfumato.serve.pictures import as_format
from sfumato.tasks import Model, Request, generate
from sfumato.tasks.receipt import MARK, Maker, encoded, receipt
from sfumato.tasks.recorded import identity
from sfumato.tasks.verify import verify

PHOTO, FILL = photograph(20, 14, seed=2), np.zeros((14, 20), dtype=bool)
FILL[4:10, 5:15] = True
LAYOUT = {"width": 16, "height": 16, "boxes": [{"box": [0, 0, 0.5, 1], "text": "a boat"}]}
PARENTS = {"inpaint": [PHOTO, FILL], "outpaint": [PHOTO], "upscale": [PHOTO], "vary": [PHOTO]}
CALLS = {
    "inpaint": lambda model, **told: TASKS["inpaint"](model, PHOTO, FILL, **told),
    "outpaint": lambda model, **told: TASKS["outpaint"](model, PHOTO, zoom=1.5, **told),
    "upscale": lambda model, **told: TASKS["upscale"](model, PHOTO, 2, **told),
    "vary": lambda model, **told: TASKS["vary"](model, PHOTO, 0.4, **told),
    "layout": lambda model, **told: TASKS["layout"](model, layout_of(LAYOUT), **told),
    "tile": lambda model, **told: TASKS["tile"](model, **told),
}


@pytest.fixture(scope="module")
def model() -> Model:
    return untrained("text", "known", "lowres", "boxes")


def written(model: Model, result, path: Path, number: int | None = 0) -> Path:
    path.write_bytes(encoded(result.images[number or 0], receipt(Maker.of(model, "tiny"), result, number)))
    return path


@pytest.fixture(scope="module")
def made(model, tmp_path_factory) -> Path:
    result = generate(model, Request(3, seed=5, steps=2, guidance=2.0, prompt=("a boat", "a red apple", "a boat")))
    return written(model, result, tmp_path_factory.mktemp("made") / "apple.png", 1)


def test_a_receipt_says_what_made_the_picture(model, made) -> None:
    found = verify(made)
    assert found.found == "made here" and found.pixels is True and found.contradictions == ()
    told = found.receipt
    assert told["model"] == "tiny" and told["weights"] == Maker.of(model, "x").weights and told["picture"] == 1
    assert told["request"]["seed"] == 5 and told["machine"]["torch"] == torch.__version__
    assert any("tiny" in words for words in found.words) and any("seed 5" in words for words in found.words)


@pytest.mark.parametrize("output, quality", [("jpeg", 75), ("webp", 80), ("webp", 100)])
def test_receipts_outlive_the_format(made, output, quality) -> None:
    data = as_format(made.read_bytes(), output, quality)
    assert Image.open(BytesIO(data)).format == output.upper()
    assert receipt_of(data) == receipt_of(made.read_bytes()) and claim(data).made
    found = verify(data)
    assert found.found == "made here" and found.pixels is (True if (output, quality) == ("webp", 100) else None)


@pytest.mark.parametrize("output", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("edited", [False, True])
def test_the_source_type_is_that_of_the_iptc(output, edited) -> None:
    data = encoded(PHOTO, {"parents": {"image": ["0"]}} if edited else {}, output)
    kind = b"digitalsourcetype/compositeWithTrained" if edited else b"digitalsourcetype/trained"
    assert kind + b"AlgorithmicMedia" in data


def test_words_that_no_jpeg_takes_are_left_out_and_the_rest_is_kept(made) -> None:
    told = receipt_of(made.read_bytes())
    told["request"] |= {"prompt": "é" * 70_000}
    kept = receipt_of(encoded(PHOTO, told, "JPEG"))
    assert kept["cut"] is True and "prompt" not in kept["request"] and kept["weights"] == told["weights"]
    assert receipt_of(encoded(PHOTO, told))["request"]["prompt"] == told["request"]["prompt"]


def changed(path: Path, picture: Image.Image, told: dict | str) -> Path:
    """A PNG file with this text as its receipt, exactly."""
    info = PngInfo()
    info.add_text(MARK, told if isinstance(told, str) else json.dumps(told))
    picture.save(path, pnginfo=info)
    return path


def test_a_changed_pixel_and_a_moved_receipt_are_found(made, tmp_path) -> None:
    told, picture = receipt_of(made.read_bytes()), Image.open(made)
    assert verify(changed(tmp_path / "same.png", picture, told)).found == "made here"
    touched = picture.copy()
    pixel = touched.getpixel((3, 4))
    touched.putpixel((3, 4), (pixel[0] ^ 1, *pixel[1:]))
    for k, other in enumerate((touched, photograph(16, 16), picture.resize((8, 8)), picture.convert("L"))):
        found = verify(changed(tmp_path / f"{k}.png", other, told))
        assert found.found == "contradicting" and found.pixels is False and "changed" in " ".join(found.words)


@pytest.mark.parametrize("told", ["", "null", "[1]", "{", "3", '"x"', "[" * 5000])
def test_what_is_no_receipt_is_none(told, tmp_path) -> None:
    assert receipt_of(changed(tmp_path / "x.png", PHOTO, told).read_bytes()) is None


@pytest.mark.parametrize("told", ["{}", '{"weights": 3, "request": {}}', '{"weights": "0", "request": []}'])
def test_a_receipt_that_lacks_what_all_have_is_told(told, tmp_path) -> None:
    assert verify(changed(tmp_path / "x.png", PHOTO, told)).found == "contradicting"


def test_plain_pictures_and_those_of_others(tmp_path) -> None:
    PHOTO.save(tmp_path / "plain.png")
    assert verify(tmp_path / "plain.png").found == "nothing"
    info = PngInfo()
    info.add_text("parameters", "a boat\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1")
    PHOTO.save(tmp_path / "other.png", pnginfo=info)
    found = verify(tmp_path / "other.png")
    assert found.found == "made by AI" and found.receipt is None and "generator parameters" in found.words[0]
    xmp = b'<x Iptc4xmpExt:DigitalSourceType="http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"/>'
    PHOTO.save(tmp_path / "declared.jpg", xmp=xmp)
    found = verify(tmp_path / "declared.jpg")
    assert found.found == "made by AI" and "trainedAlgorithmicMedia" in found.words[0]


@pytest.mark.parametrize("data", [b"", b"text", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\0\0\0\0WEBP"])
def test_what_cannot_be_read_is_one_line(data, tmp_path) -> None:
    (tmp_path / "x.png").write_bytes(data)
    with pytest.raises(SfumatoError) as told:
        verify(tmp_path / "x.png")
    assert "\n" not in str(told.value) and "x.png" in str(told.value)
    with pytest.raises(SfumatoError, match="there is no such file"):
        verify(tmp_path / "none.png")


def test_a_torn_picture_with_a_receipt_is_one_line(model, made, tmp_path) -> None:
    data = made.read_bytes()
    torn = bytearray(data)
    torn[data.index(b"IDAT") + 8] ^= 255
    for k, part in enumerate((data[: data.index(b"IDAT") + 20], bytes(torn), data.replace(b"IDAT", b"\0\1\2\3"))):
        (tmp_path / f"{k}.png").write_bytes(part)
        assert receipt_of(part) is not None
        for look in (verify, lambda file: reproduce(file, model)):
            with pytest.raises(SfumatoError) as told:
                look(tmp_path / f"{k}.png")
            assert "\n" not in str(told.value) and f"{k}.png" in str(told.value)


def test_a_picture_is_made_again_alone(model, made) -> None:
    again = reproduce(made, model)
    assert again.identical and again.apart == 0 and again.differs == ()


@pytest.mark.parametrize("n, again", [(16, 1), (17, 17)])
def test_one_of_many_is_drawn_among_all_as_it_was(n, again, model, tmp_path, monkeypatch) -> None:
    """A few are each drawn alike alone and in company; many together have other roundings, which rarely show in 8 bits."""
    result, seen = generate(model, Request(n, seed=8, steps=3, guidance=2.0, prompt="a boat")), []
    monkeypatch.setattr(reproducing, "generate", lambda *about: seen.append(about[1].n) or generate(*about))
    for number in (0, n - 1):
        assert reproduce(written(model, result, tmp_path / "one.png", number), model).identical
    assert seen == [again, again]
    path = tmp_path / "sheet.png"
    path.write_bytes(encoded(grid_image(result.images), receipt(Maker.of(model, "tiny"), result)))
    assert reproduce(path, model).identical and seen[-1] == n


def test_a_receipt_leads_to_no_folder(made, folder, capsys, monkeypatch) -> None:
    for name in ("../m", "/etc/passwd", "a/b", "..", ""):
        path = changed(folder / "x.png", Image.open(made), receipt_of(made.read_bytes()) | {"model": name})
        code, _, err = run(folder, capsys, monkeypatch, "reproduce", str(path))
        assert code == 2 and "give it with --model" in err
        assert run(folder, capsys, monkeypatch, "trace", str(path))[0] == 2
    told = receipt_of(made.read_bytes())
    told["machine"] |= {"torch": "\x1b[31m1.0"}
    path = changed(folder / "x.png", Image.open(made), told | {"model": "plain"})
    code, _, err = run(folder, capsys, monkeypatch, "reproduce", str(path))
    assert code == 1 and "\x1b" not in err and "1.0 then" in err


def test_what_differs_is_said(model, made, tmp_path) -> None:
    with torch.no_grad():
        other = untrained("text", "known", "lowres", "boxes")
        next(other.denoiser.parameters()).add_(0.1)
    again = reproduce(made, other)
    assert not again.identical and again.apart > 0 and again.differs == ("the weights are those of another model",)
    told = receipt_of(made.read_bytes())
    older = changed(tmp_path / "older.png", Image.open(made), told | {"machine": told["machine"] | {"torch": "1.0"}})
    assert reproduce(older, model).identical and reproduce(older, model).differs == (
        f"torch: 1.0 then, {torch.__version__} now",
    )


@pytest.mark.parametrize("name", CALLS)
def test_edits_are_made_again_from_their_parents(name, model, tmp_path) -> None:
    told = {"n": 2, "seed": 3, "steps": 2} | ({} if name in ("upscale", "tile") else {"prompt": "a boat"})
    path = written(model, CALLS[name](model, **told), tmp_path / "edit.png", 1)
    parents = PARENTS.get(name, [])
    again = reproduce(path, model, [photograph(9, 9), *parents])
    assert again.identical and again.apart == 0
    for missing in parents:
        with pytest.raises(SfumatoError, match="give it with --parent"):
            reproduce(path, model, [one for one in parents if one is not missing])


def test_a_picture_of_a_map_alone_is_made_again(tmp_path) -> None:
    told = untrained("text", "classes")
    areas = Image.new("RGB", (16, 16), "red")
    result = TASKS["layout"](told, colours=areas, seed=3, steps=2)
    again = reproduce(written(told, result, tmp_path / "map.png"), told, [areas])
    assert again.identical and result.call.parents == {"colours": [identity(areas)]}


def test_a_parent_is_known_by_what_it_shows(tmp_path) -> None:
    PHOTO.save(tmp_path / "a.png", compress_level=0)
    PHOTO.save(tmp_path / "b.png", compress_level=9)
    PHOTO.convert("RGBA").save(tmp_path / "c.webp", lossless=True, exact=True)
    assert len({identity(tmp_path / name) for name in ("a.png", "b.png", "c.webp")} | {identity(PHOTO)}) == 1
    touched = PHOTO.copy()
    touched.putpixel((0, 0), (1, 2, 3))
    assert identity(touched) != identity(PHOTO) != identity(PHOTO.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    assert identity(FILL) == identity(Image.fromarray(FILL.astype(np.uint8) * 255))


@pytest.mark.parametrize(
    "told",
    [
        {"request": {"n": 10**9}},
        {"request": {"n": "x"}},
        {"request": {"what": 1}},
        {"picture": 99},
        {"picture": "1"},
        {"task": "rm", "options": {}},
        {"task": "inpaint"},
        {"task": "vary", "options": {"no": 1}, "parents": {}},
        {"task": "tile", "options": {}, "parents": []},
        {"cut": True},
        {"request": None},
    ],
    ids=str,
)
def test_a_receipt_that_cannot_be_followed_is_an_error(told, model, made, tmp_path) -> None:
    path = changed(tmp_path / "x.png", Image.open(made), receipt_of(made.read_bytes()) | told)
    with pytest.raises(SfumatoError) as error:
        reproduce(path, model)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", OWN)
def test_the_commands_write_receipts_and_follow_them(name, folder, capsys, monkeypatch) -> None:
    asked = [name, "all.safetensors", *OWN[name], "--seed", "7", "--steps", "1", "--out", f"{name}.png", "--json"]
    code, found, _ = run(folder, capsys, monkeypatch, *asked)
    assert code == 0
    code, told, _ = run(folder, capsys, monkeypatch, "verify", found["out"], "--json")
    assert code == 0 and told["found"] == "made here" and told["pixels"] is True
    parents = [part for file in ("photo.png", "mask.png", "drawing.png") for part in ("--parent", file)]
    again = ["reproduce", found["out"], *parents, "--out", "again.png", "--json"]
    code, told, err = run(folder, capsys, monkeypatch, *again)
    assert code == 0 and told["identical"], err
    assert (folder / "again.png").read_bytes() == (folder / found["out"]).read_bytes()


def test_sheets_and_single_pictures_of_generate_and_sample(folder, capsys, monkeypatch) -> None:
    asked = [
        "generate",
        "a boat",
        "--model",
        "plain.safetensors",
        "--n",
        "3",
        "--seed",
        "2",
        "--steps",
        "2",
        "--out",
        "g.png",
    ]
    assert run(folder, capsys, monkeypatch, *asked)[0] == 0
    sampled = ["sample", "plain.safetensors", "--n", "2", "--steps", "2", "--prompt", "a boat", "--out"]
    assert (
        run(folder, capsys, monkeypatch, *sampled, "s.png")[0]
        == run(folder, capsys, monkeypatch, *sampled, "s")[0]
        == 0
    )
    files = ["g.png", "g-1.png", "g-3.png", "s.png", *(str(p.relative_to(folder)) for p in (folder / "s").iterdir())]
    assert len(files) == 6
    for file in files:
        code, found, err = run(folder, capsys, monkeypatch, "reproduce", file, "--json")
        assert code == 0 and found["identical"], err


def test_exit_codes_of_verify_and_reproduce(folder, capsys, monkeypatch, made) -> None:
    assert run(folder, capsys, monkeypatch, "verify", "photo.png", "--json")[0] == 1
    assert run(folder, capsys, monkeypatch, "verify", "none.png", "--json")[0] == 2
    code, _, err = run(folder, capsys, monkeypatch, "reproduce", "photo.png", "--json")
    assert code == 2 and "no receipt" in err and len(err.strip().splitlines()) == 1
    code, _, err = run(folder, capsys, monkeypatch, "reproduce", str(made), "--json")
    assert code == 2 and "--model" in err
    code, found, _ = run(folder, capsys, monkeypatch, "reproduce", str(made), "--model", "plain.safetensors", "--json")
    assert code == 1 and not found["identical"] and found["differs"]
