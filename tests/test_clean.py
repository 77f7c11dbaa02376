"""sfumato clean: by hashes against the original, by kill -9 at every file operation, by edited plans and bad places."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from cleaning import FINDINGS, array, edit, hashes, make_pets, pixels, run
from PIL import Image, ImageCms

import sfumato.data as data
from sfumato.cli.main import main
from sfumato.core import SfumatoError
from sfumato.data.audit import audit
from sfumato.data.audit.finding import Finding
from sfumato.data.clean import clean, plan_path, undo
from sfumato.data.clean.plan import read_plan


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    return make_pets(tmp_path / "pets")


def test_the_cleaned_set(pets: Path, tmp_path: Path) -> None:
    before, out = hashes(pets), tmp_path / "clean"
    told = run(pets, out)
    assert hashes(pets) == before
    after = hashes(out)
    assert set(after) == set(before) - {"a/2.png", "b/copy.png", "b/broken.png", "b/moving.gif"} | {"b/moving.gif.png"}
    changed = {"a/clear.png", "b/sixteen.png", "a/turned.jpg", "metadata.csv"}
    assert {n for n in set(after) & set(before) if after[n] != before[n]} == changed
    kept = hashes(out / ".quarantine")
    assert kept == {n: before[n] for n in kept}
    assert set(kept) == changed | {"a/2.png", "b/copy.png", "b/broken.png", "b/moving.gif"}
    assert told["pictures"] == 7 and told["taken_out"] == ["a/2.png", "b/broken.png", "b/copy.png"]
    source = data.open(out)
    assert len(source) == 7 and source.classes == ("a", "b") and not source.summary()["skipped"]
    assert (
        source.captions is not None
        and dict(zip(source.keys, source.captions, strict=True))["b/moving.gif.png"] == "moves"
    )
    assert source.summary()["rows_without_picture"]["count"] == 0


def test_the_manifest_is_of_the_files(pets: Path, tmp_path: Path) -> None:
    run(pets, tmp_path / "clean")
    told = json.loads((tmp_path / "clean/manifest.json").read_text())
    for where, names in (("", told["files"]), (".quarantine", told["quarantine"])):
        for name, given in names.items():
            raw = (tmp_path / "clean" / where / name).read_bytes()
            assert hashlib.blake2b(raw, digest_size=32).hexdigest() == given
    assert set(told["files"]) == set(hashes(tmp_path / "clean"))


def test_converted_pictures(pets: Path, tmp_path: Path) -> None:
    run(pets, tmp_path / "clean")
    out = tmp_path / "clean"
    mask = np.tile(np.array([False, True]), (12, 8))[..., None]
    assert (array(out / "a/clear.png") == np.where(mask, pixels(5), 255)).all()
    with Image.open(pets / "b/moving.gif") as gif:
        rgba = np.asarray(gif.convert("RGBA"))
    assert (rgba[..., 3] == 0).any()
    assert (array(out / "b/moving.gif.png") == np.where(rgba[..., 3:] == 255, rgba[..., :3], 255)).all()
    grey = np.rint(np.arange(192).reshape(12, 16) * 340 / 257)
    assert np.abs(array(out / "b/sixteen.png") - grey[..., None]).max() <= 1
    with Image.open(pets / "a/turned.jpg") as sideways:
        want = np.rot90(np.asarray(sideways), -1).astype(int)
    assert array(out / "a/turned.jpg").shape == (64, 48, 3)
    assert np.abs(array(out / "a/turned.jpg") - want).mean() < 3
    with Image.open(out / "a/turned.jpg") as upright:
        assert upright.getexif().get(0x0112, 1) == 1


def test_sixteen_bits_among_grey_pictures_stay_grey(tmp_path: Path) -> None:
    root = tmp_path / "xray"
    root.mkdir()
    for k in range(3):
        Image.fromarray(pixels(k)[..., 0]).save(root / f"{k}.png")
    Image.fromarray(pixels(3)[..., 0].astype(np.uint16) * 257).save(root / "deep.png")
    clean(str(root), tmp_path / "out", (), lambda: [Finding("mixed_modes", ("deep.png",), "", "warning", "convert")])
    with Image.open(tmp_path / "out/deep.png") as picture:
        assert picture.mode == "L" and (np.asarray(picture) == pixels(3)[..., 0]).all()


def test_a_colour_profile_is_applied(tmp_path: Path) -> None:
    root = tmp_path / "in"
    root.mkdir()
    swapped = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    # the red and the blue primary change places: reds must come out as blues
    r, b = swapped.index(b"rXYZ"), swapped.index(b"bXYZ")
    table = bytearray(swapped)
    table[r : r + 4], table[b : b + 4] = b"bXYZ", b"rXYZ"
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 255
    Image.fromarray(red).save(root / "red.png", icc_profile=bytes(table))
    clean(str(root), tmp_path / "out", (), lambda: [Finding("mixed_modes", ("red.png",), "", "warning", "convert")])
    with Image.open(tmp_path / "out/red.png") as picture:
        assert "icc_profile" not in picture.info
        assert np.abs(np.asarray(picture).astype(int) - [0, 0, 255]).max() <= 2


def test_undo_restores_exactly(pets: Path, tmp_path: Path) -> None:
    out = tmp_path / "clean"
    run(pets, out)
    shutil.move(pets, tmp_path / "elsewhere")  # undo does not need the source
    undo(str(pets), out)
    assert hashes(out) == hashes(tmp_path / "elsewhere") and not (out / ".quarantine").exists()
    with pytest.raises(SfumatoError, match="undone already"):
        undo(str(pets), out)


def test_clean_undo_clean_gives_the_same(pets: Path, tmp_path: Path) -> None:
    out = tmp_path / "clean"
    run(pets, out)
    first = hashes(out)
    undo(str(pets), out)
    run(pets, out)
    assert hashes(out) == first


def test_only_the_kinds_asked_for(pets: Path, tmp_path: Path) -> None:
    before, out = hashes(pets), tmp_path / "clean"
    run(pets, out, ("exact_duplicate",))
    kept = {n: h for n, h in before.items() if n not in ("a/2.png", "b/copy.png", "metadata.csv")}
    assert {n: h for n, h in hashes(out).items() if n != "metadata.csv"} == kept
    run(pets, out)  # then all: the rest is done to the same set
    other = tmp_path / "other"
    run(pets, other)
    assert hashes(out) == hashes(other)


def test_an_edited_plan_is_done_anew(pets: Path, tmp_path: Path) -> None:
    out = tmp_path / "clean"
    run(pets, out)

    def change(told: dict) -> None:
        told["actions"] = [a for a in told["actions"] if a["file"] != "a/2.png"]
        next(a for a in told["actions"] if a["file"] == "a/3.png")["action"] = "quarantine"
        next(a for a in told["actions"] if a["file"] == "a/clear.png")["action"] = "keep"

    edit(out, change)
    told = run(pets, out)
    assert told["taken_out"] == ["a/3.png", "b/broken.png", "b/copy.png"]
    for name in ("a/2.png", "a/clear.png"):
        assert (out / name).read_bytes() == (pets / name).read_bytes()
    undo(str(pets), out)
    assert hashes(out) == hashes(pets)


def test_the_same_again_does_nothing(pets: Path, tmp_path: Path) -> None:
    out = tmp_path / "clean"
    run(pets, out)
    inode, when = out.stat().st_ino, (out / "manifest.json").stat().st_mtime_ns
    run(pets, out)
    assert (out.stat().st_ino, (out / "manifest.json").stat().st_mtime_ns) == (inode, when)


@pytest.mark.parametrize(
    "change,message",
    [
        (lambda t: t["actions"][0].update(action="delete"), r"entry 1: no action 'delete'; the actions are quarantine"),
        (lambda t: t["actions"][1].update(kind="corupt"), "entry 2: no fault is called 'corupt'; did you mean corrupt"),
        (lambda t: t["actions"][0].update(file="b/brokn.png"), "no picture of that name; did you mean 'b/broken.png'"),
        (lambda t: t["actions"][0].pop("kind"), "entry 1: no 'kind'"),
        (lambda t: t["actions"][0].update(colour="red"), "entry 1: unknown 'colour'"),
        (lambda t: t["actions"].insert(0, 3), "entry 1: not an object"),
        (lambda t: t.pop("actions"), "has no 'actions'"),
        (lambda t: t.update(link="yes"), "has no 'link'"),
        (lambda t: t.update(fingerprint="0" * 32), "was made before files of .* changed; delete it"),
        (lambda t: t.update(source="/elsewhere"), "was made from /elsewhere, not from"),
        (
            lambda t: t["actions"].append({"file": "a/1.png", "action": "quarantine", "kind": "dark"}),
            "as a copy of 'a/1.png', and that one as well; keep one",
        ),
        (
            lambda t: t.update(
                actions=[
                    {"file": n, "action": "quarantine", "kind": "dark"}
                    for n in (
                        "a/1.png a/2.png a/3.png a/4.png a/clear.png a/turned.jpg b/broken.png b/copy.png"
                    ).split()
                    + ["b/moving.gif", "b/sixteen.png"]
                ]
            ),
            "takes out every picture",
        ),
    ],
)
def test_wrong_edits_are_told_in_one_line(pets: Path, tmp_path: Path, change, message: str) -> None:
    out = tmp_path / "clean"
    run(pets, out)
    before = hashes(out)
    edit(out, change)
    with pytest.raises(SfumatoError, match=message) as told:
        run(pets, out)
    assert "\n" not in str(told.value) and hashes(out) == before


def test_a_plan_that_is_no_json_is_told_with_its_line(pets: Path, tmp_path: Path) -> None:
    out = tmp_path / "clean"
    run(pets, out)
    text = plan_path(out).read_text()
    plan_path(out).write_text(text.replace('"},\n', '"}\n', 1))
    wrong = next(k for k, line in enumerate(text.split("\n"), 1) if line.endswith('"},')) + 1
    with pytest.raises(SfumatoError, match=f"line {wrong}, column"):
        run(pets, out)
    assert len([line for line in text.split("\n") if '"file"' in line]) == len(json.loads(text)["actions"])


def test_bad_places(pets: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(pets)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("mine")
    (tmp_path / "file").write_text("")
    for out, message in (
        (pets, "the source itself"),
        (tmp_path / "link", "the source itself"),
        (pets / "clean", "inside the source"),
        (tmp_path / "link/clean", "inside the source"),
        (tmp_path, "holds the source"),
        (tmp_path / "full", "already holds something"),
        (tmp_path / "file", "already holds something"),
    ):
        with pytest.raises(SfumatoError, match=message):
            run(pets, out)
    with pytest.raises(SfumatoError, match="did you mean blurred.*the kinds are: corrupt"):
        run(pets, tmp_path / "clean", ("blured",))
    with pytest.raises(SfumatoError, match="nothing to undo"):
        undo(str(pets), tmp_path / "clean")
    assert sorted(os.listdir(tmp_path)) == ["file", "full", "link", "pets"]
    (tmp_path / "empty").mkdir()
    run(pets, tmp_path / "empty")


def test_other_files_than_those_of_the_set(pets: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "clean", tmp_path / "other"
    run(pets, out)
    shutil.copytree(pets, other)
    with pytest.raises(SfumatoError, match="cleaned from .*pets, not from .*other"):
        run(other, out)
    with pytest.raises(SfumatoError, match="cleaned from .*pets, not from .*other"):
        undo(str(other), out)
    Image.fromarray(pixels(9)).save(pets / "a/4.png")
    with pytest.raises(SfumatoError, match=r"before files of .* changed \(a/4.png\); choose another --out"):
        run(pets, out)
    shutil.copy(plan_path(out), plan_path(tmp_path / "new"))
    with pytest.raises(SfumatoError, match="changed; delete it to audit anew"):
        run(pets, tmp_path / "new")


def test_files_that_change_during_the_audit(pets: Path, tmp_path: Path) -> None:
    def audit() -> tuple[Finding, ...]:
        Image.fromarray(pixels(8)).save(pets / "a/4.png")
        return FINDINGS

    with pytest.raises(SfumatoError, match="changed during the audit"):
        clean(str(pets), tmp_path / "clean", (), audit)
    assert not (tmp_path / "clean").exists()


@pytest.mark.parametrize("name", ["a/3.png", "a/clear.png", ".quarantine/a/2.png", "metadata.csv"])
def test_an_edit_in_the_cleaned_set_is_not_lost(pets: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "clean"
    run(pets, out)
    (out / name).write_bytes(b"edited by hand")
    edit(out, lambda t: t["actions"].pop())
    for act in (lambda: run(pets, out), lambda: undo(str(pets), out)):
        with pytest.raises(SfumatoError, match="was changed; nothing was done"):
            act()
        assert (out / name).read_bytes() == b"edited by hand"


@pytest.mark.parametrize("name", ["a/2.png", "b/moving.gif"])
def test_a_new_file_in_the_place_of_a_quarantined_one_is_not_lost(pets: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "clean"
    run(pets, out)
    (out / name).write_bytes(b"new")
    with pytest.raises(SfumatoError, match=f"{name} is new"):
        undo(str(pets), out)
    assert (out / name).read_bytes() == b"new"


def test_copies_are_apart_from_the_source_and_links_by_wish_only(pets: Path, tmp_path: Path) -> None:
    run(pets, tmp_path / "copied")
    edit_plan = json.loads(plan_path(tmp_path / "copied").read_text())
    plan_path(tmp_path / "linked").write_text(json.dumps({**edit_plan, "link": True}))
    assert run(pets, tmp_path / "linked")["linked"]
    before = hashes(pets)
    same = os.path.samefile
    assert not same(pets / "a/3.png", tmp_path / "copied/a/3.png") and same(
        pets / "a/3.png", tmp_path / "linked/a/3.png"
    )
    assert hashes(tmp_path / "linked") == hashes(tmp_path / "copied")
    edit(tmp_path / "linked", lambda t: t.update(link=False, actions=t["actions"][1:]))
    assert run(pets, tmp_path / "linked")["linked"], "what was linked once stays so, and is told"
    undo(str(pets), tmp_path / "linked")
    assert hashes(tmp_path / "linked") == before == hashes(pets)


def test_unreadable_files_are_left_out_and_told(pets: Path, tmp_path: Path) -> None:
    (pets / "b/dangling.png").symlink_to(pets / "nothing.png")
    found = (*FINDINGS, Finding("corrupt", ("b/dangling.png",), "a link to nothing", "error", "quarantine"))
    told = clean(str(pets), tmp_path / "clean", (), lambda: found)
    assert list(told["left_out"]) == ["b/dangling.png"] and told["pictures"] == 7
    with pytest.raises(SfumatoError, match="b/dangling.png cannot be read: a link to a file that is not there"):
        run(pets, tmp_path / "other")


def test_names_that_are_hard_to_write(tmp_path: Path) -> None:
    root = tmp_path / "in"
    root.mkdir()
    names = ['a"b.png', "line\nbreak.png", "<b>&amp;.png", "ümlaut 猫.png", os.fsdecode(b"bytes\xff.png"), "last.png"]
    for k, name in enumerate(names):
        Image.fromarray(pixels(k)).save(root / name, format="PNG")
    before = hashes(root)
    found = [Finding("dark", tuple(names[:5]), "dark", "warning", "quarantine")]
    clean(str(root), tmp_path / "out", (), lambda: found)
    assert set(hashes(tmp_path / "out")) == {"last.png"}
    assert {a.file for a in read_plan(plan_path(tmp_path / "out")).actions} == set(names[:5])
    assert "ümlaut 猫.png" in plan_path(tmp_path / "out").read_text()
    undo(str(root), tmp_path / "out")
    assert hashes(tmp_path / "out") == before


def test_shards_and_tables_become_a_folder(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "set.tar", "w") as tar:
        for k in range(4):
            Image.fromarray(pixels(k % 3)).save(tmp_path / f"{k}.png")
            tar.add(tmp_path / f"{k}.png", f"x/{k}.png")
            (tmp_path / "told").write_text(f"number {k}")
            tar.add(tmp_path / "told", f"x/{k}.txt")
    found = [Finding("exact_duplicate", ("x/0.png", "x/3.png"), "same", "error", "quarantine-others")]
    clean(str(tmp_path / "set.tar"), tmp_path / "out", (), lambda: found)
    source = data.open(tmp_path / "out")
    assert source.keys == ("x/0.png", "x/1.png", "x/2.png") and source.captions == ["number 0", "number 1", "number 2"]
    undo(str(tmp_path / "set.tar"), tmp_path / "out")
    assert (tmp_path / "out/x/3.png").read_bytes() == (tmp_path / "3.png").read_bytes()
    assert data.open(tmp_path / "out").captions == [f"number {k}" for k in range(4)]
    (tmp_path / "far").mkdir()
    (tmp_path / "far/list.csv").write_text("file_name,text\n../0.png,zero\n../1.png,one\n")
    clean(str(tmp_path / "far/list.csv"), tmp_path / "flat", (), lambda: [])
    assert data.open(tmp_path / "flat").captions == ["zero", "one"]


def test_the_command(pets: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "clean"
    assert main(["clean", str(pets), "--out", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert "b/broken.png" in told["quarantined"] and not told["undone"]
    assert {"a/2.png", "b/copy.png"} <= set(told["quarantined"]) and "a/1.png" not in told["quarantined"]
    assert [
        f for f in audit(str(out)).findings if f.fix in ("quarantine", "quarantine-others", "convert", "drop-rows")
    ] == []
    assert main(["clean", str(pets), "--out", str(out), "--only", "sharp"]) == 2
    assert "no fault is called 'sharp'" in capsys.readouterr().err
    assert main(["clean", str(pets), "--out", str(out), "--undo"]) == 0
    assert hashes(out) == hashes(pets)
    assert main(["clean", str(pets), "--out", str(out), "--undo"]) == 2
    assert main(["clean", "digits", "--out", str(tmp_path / "d")]) == 2
    assert not (tmp_path / "d").exists()


def test_what_was_drawn_to_the_pictures_is_told_to_stay_behind(pets: Path, tmp_path: Path, capsys) -> None:
    (pets / "masks" / "a").mkdir(parents=True)
    Image.new("L", (64, 64), 255).save(pets / "masks" / "a" / "1.png")
    assert main(["clean", str(pets), "--out", str(tmp_path / "clean"), "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["not_taken"] == ["masks"]
    assert sum(line.startswith("masks: ") and "copy what you need" in line for line in said.err.splitlines()) == 1
    assert not (tmp_path / "clean" / "masks").exists()
