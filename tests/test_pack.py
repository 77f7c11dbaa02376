"""sfumato pack: shards that other libraries read, that open as the folder did, written whole or not at all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import datasets
import pytest
import torch
import webdataset
from scaling import make_folder, make_tar, picture, told

import sfumato.data as data
from sfumato.cli import main
from sfumato.core import SfumatoError
from sfumato.data.pack import pack
from sfumato.data.records import open_records


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_folder(tmp_path_factory.mktemp("sets") / "pets")
    (root / "dog" / "a\nb.png").write_bytes(picture(99))  # no row, and an awkward name
    (root / "dog" / "gone.png").symlink_to(root / "nowhere.png")
    (root / "loose.png").write_bytes(picture(98))  # no class
    return root


@pytest.fixture(scope="module")
def packed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("packs") / "out"
    assert main(["pack", str(folder), "--out", str(out), "--shard-size", "0.04"]) == 0
    return out


def shards(packed: Path) -> list[Path]:
    return sorted(packed.glob("*.tar"))


def test_the_pack_opens_as_the_folder(folder: Path, packed: Path) -> None:
    one, other = data.open(folder, size=8), data.open(packed, size=8)
    assert one.keys == other.keys and "dog/a\nb.png" in one.keys and one.fingerprint == other.fingerprint
    assert (one.pixels == other.pixels).all()
    assert one.classes == other.classes == ("cat", "dog") and torch.equal(one.labels, other.labels)
    assert (one.labels < 0).sum() == 1
    assert one.captions == other.captions and one.columns == other.columns
    assert one.train_index.tolist() == other.train_index.tolist()
    same = set(one.summary()) & set(other.summary()) - {
        "name",
        "classes_from",
        "skipped",
        "metadata",
        "pictures_without_row",
    }
    assert {k for k in same if one.summary()[k] != other.summary()[k]} <= {"missing_values"}
    pattern = f"{packed}/shard-{{000000..{len(shards(packed)) - 1:06d}}}.tar"
    assert data.open(pattern, size=8).keys == one.keys


def test_a_pack_of_a_pack_is_the_same(packed: Path, tmp_path: Path) -> None:
    """Same pictures, same order, same names, same bytes: nothing of the machine or the hour goes into a shard."""
    again = pack(open_records(str(packed)), tmp_path / "again", 40_000)
    before = json.loads((packed / "manifest.json").read_text())
    assert again["shards"] == before["shards"] and again["classes"] == before["classes"]
    assert [p.read_bytes() for p in shards(packed)] == [p.read_bytes() for p in shards(tmp_path / "again")]


def test_the_bytes_are_the_files_own(folder: Path, packed: Path) -> None:
    records = open_records(str(packed))
    assert len(records) == 26
    for record in records:
        assert record.read() == (folder / record.key).read_bytes()


def test_shards_keep_to_their_size_and_to_the_manifest(packed: Path) -> None:
    manifest = json.loads((packed / "manifest.json").read_text())
    assert len(shards(packed)) > 3 and sum(s["pictures"] for s in manifest["shards"]) == manifest["pictures"] == 26
    assert [s["file"] for s in manifest["shards"]] == [p.name for p in shards(packed)]
    for shard, told_ in zip(shards(packed), manifest["shards"], strict=True):
        assert shard.stat().st_size == told_["bytes"] <= 40_000
    left = {s["file"]: s["reason"] for s in manifest["skipped"]}
    assert left == {"dog/gone.png": "a link to a file that is not there"}
    checked = subprocess.run(["tar", "tf", shards(packed)[0]], capture_output=True, text=True, check=True)
    assert checked.stdout.split()[:4] == ["00000000.jpg", "00000000.txt", "00000000.cls", "00000000.json"]


def test_webdataset_reads_it(folder: Path, packed: Path) -> None:
    truth = {row["file_name"]: row for row in told(folder)}
    seen = {}
    for sample in webdataset.WebDataset([str(p) for p in shards(packed)], shardshuffle=False, empty_check=False):
        about = json.loads(sample["json"])
        raw = sample.get("png") or sample.get("jpg")
        assert raw == (folder / about["file_name"]).read_bytes()
        seen[about["file_name"]] = (sample["txt"].decode(), int(sample["cls"]), about["label"])
    assert len(seen) == 26
    for name, row in truth.items():
        assert seen[name] == (row["text"], int(row["label"] == "dog"), row["label"])
    assert seen["loose.png"] == ("", -1, None)
    decoded = next(iter(webdataset.WebDataset(str(shards(packed)[0]), shardshuffle=False).decode("pil")))
    assert decoded["cls"] == 0 and decoded["json"]["stars"] == 0 and decoded["jpg"].size == (20, 20)


def test_datasets_reads_it(tmp_path: Path) -> None:
    """Pictures of one format, for that library gives every ending a column of its own."""
    datasets.disable_progress_bars()
    source = tmp_path / "set"
    for k in range(12):
        path = source / ("cat", "dog")[k % 2] / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(k))
    pack(open_records(str(source)), tmp_path / "out", 10**6)
    loaded = datasets.load_dataset(
        "webdataset", data_files=str(tmp_path / "out/*.tar"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert isinstance(loaded.features["png"], datasets.Image) and len(loaded) == 12
    raw = loaded.cast_column("png", datasets.Image(decode=False))
    for row in raw:
        assert row["png"]["bytes"] == (source / row["json"]["file_name"]).read_bytes()
        assert ("cat", "dog")[row["cls"]] == row["json"]["label"] == row["json"]["file_name"].split("/")[0]


def test_shards_that_webdataset_wrote_are_read(tmp_path: Path) -> None:
    with webdataset.TarWriter(str(tmp_path / "a.tar")) as sink:
        for k in range(5):
            sink.write(
                {"__key__": f"sub/{k:03d}", "png": picture(k), "txt": f"number {k}", "json": {"k": k}, "cls": k % 2}
            )
    records = open_records(str(tmp_path / "a.tar"))
    assert records.keys == [f"sub/{k:03d}.png" for k in range(5)]
    assert records.columns == {"k": [0, 1, 2, 3, 4], "text": [f"number {k}" for k in range(5)], "label": list("01010")}
    assert [r.read() for r in records] == [picture(k) for k in range(5)]


def test_pictures_without_an_ending_get_one(tmp_path: Path) -> None:
    rows = datasets.Dataset.from_dict(
        {"image": [{"bytes": picture(k, ending=e), "path": None} for k, e in enumerate(("jpg", "png"))]}
    )
    rows = rows.cast_column("image", datasets.Image())
    rows.to_parquet(str(tmp_path / "a.parquet"))
    pack(open_records(str(tmp_path / "a.parquet")), tmp_path / "out", 10**6)
    with tarfile.open(tmp_path / "out/shard-000000.tar") as tar:
        assert [n for n in tar.getnames() if not n.endswith("json")] == ["00000000.jpeg", "00000001.png"]
    assert data.open(tmp_path / "out", size=8).keys == data.open(tmp_path / "a.parquet", size=8).keys


def test_the_command_answers_in_json(folder: Path, tmp_path: Path, capsys) -> None:
    assert main(["pack", str(folder), "--out", str(tmp_path / "new" / "out"), "--json"]) == 0
    captured = capsys.readouterr()
    answer = json.loads(captured.out.splitlines()[-1])
    assert answer["pictures"] == 26 and answer["shards"] == 1 and answer["out"] == str(tmp_path / "new" / "out")
    assert answer["bytes"] == (tmp_path / "new/out/shard-000000.tar").stat().st_size
    assert "dog/gone.png: a link to a file that is not there" in captured.err


@pytest.mark.parametrize(
    "arguments,needle",
    [
        (["--shard-size", "0"], "give megabytes above 0"),
        (["--shard-size", "-3"], "give megabytes above 0"),
        (["--shard-size", "nan"], "give megabytes above 0"),
        (["--shard-size", "1e-7"], "above 0"),
    ],
)
def test_bad_arguments(folder: Path, tmp_path: Path, capsys, arguments: list[str], needle: str) -> None:
    assert main(["pack", str(folder), "--out", str(tmp_path / "out"), *arguments]) == 2
    told_ = capsys.readouterr().err
    assert needle in told_ and told_.count("\n") == 1 and list(tmp_path.iterdir()) == []


def test_what_cannot_be_packed_leaves_nothing_behind(folder: Path, tmp_path: Path, capsys) -> None:
    assert main(["pack", "digits", "--out", str(tmp_path / "a")]) == 2
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("keep me")
    assert main(["pack", str(folder), "--out", str(full)]) == 2
    assert main(["pack", str(folder), "--out", str(full / "mine.txt")]) == 2
    assert "already holds something" in capsys.readouterr().err and (full / "mine.txt").read_text() == "keep me"
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(SfumatoError, match="no picture of .* can be read; the first: a.png: a link"):
        pack(open_records(str(tmp_path / "set")), tmp_path / "b", 10**6)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["full", "set"]


def test_a_disk_that_is_full_leaves_nothing_behind(folder: Path, tmp_path: Path, monkeypatch) -> None:
    really, written = tarfile.TarFile.addfile, []

    def fill(self, member, fileobj=None):
        written.append(member.name)
        if len(written) > 20:
            raise OSError(28, "No space left on device")
        really(self, member, fileobj)

    monkeypatch.setattr(tarfile.TarFile, "addfile", fill)
    with pytest.raises(SfumatoError, match="cannot be written .No space left on device"):
        pack(open_records(str(folder)), tmp_path / "out", 30_000)
    assert list(tmp_path.iterdir()) == []


def test_kill_9_leaves_no_half_pack(folder: Path, tmp_path: Path) -> None:
    """Killed at the first member and at the last: the folder is whole or not there."""
    code = f"""
import os, sys, tarfile
from pathlib import Path
from sfumato.data.pack import pack
from sfumato.data.records import open_records
really = tarfile.TarFile.addfile
def slow(self, *rest):
    really(self, *rest); print(1, flush=True); sys.stdin.readline()
tarfile.TarFile.addfile = slow
pack(open_records({str(folder)!r}), Path(sys.argv[1]), 30_000)
"""
    for members in (1, 104):  # the first member, and the last
        out = tmp_path / f"out{members}"
        child = subprocess.Popen(
            [sys.executable, "-c", code, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for k in range(members):
            assert child.stdout.readline() == "1\n"
            if k < members - 1:
                child.stdin.write("\n")
                child.stdin.flush()
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        assert not out.exists() and list(tmp_path.glob(f".out{members}-*.part"))
        pack(open_records(str(folder)), out, 30_000)
        assert len(open_records(str(out))) == 26


def test_packing_reads_one_picture_at_a_time(tmp_path: Path) -> None:
    """One pass over 200 MB of pictures with a peak of little more than one shard's buffers."""
    raw = picture(0) + bytes(10**6)
    make_tar(tmp_path / "a.tar", [(f"{k}.png", raw) for k in range(200)])
    code = f"""
import resource
from pathlib import Path
from sfumato.data.pack import pack
from sfumato.data.records import open_records
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(pack(open_records({str(tmp_path / "a.tar")!r}), Path({str(tmp_path / "out")!r}), 50 * 10**6)["pictures"])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    count, grown = map(int, done.stdout.split())
    assert count == 200 and grown < 40 and time.monotonic() - began < 60, grown
