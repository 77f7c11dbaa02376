"""Sources that scale: every format gives the folder's pictures, in memory or not, in an order that is a pure function."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from scaling import make_folder, make_tar, picture, told

import sfumato.data as data
from sfumato.core import SfumatoError
from sfumato.data import load as load_module
from sfumato.data import source as source_module
from sfumato.data.lazy import Lazy
from sfumato.data.readers import parquet as parquet_reader
from sfumato.data.records import expand, open_records
from sfumato.data.source import Source


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("sets") / "pets")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SFUMATO_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def small_limit(monkeypatch: pytest.MonkeyPatch) -> int:
    """No decoded set of more than four 8x8 pictures fits."""
    monkeypatch.setattr(source_module, "LIMIT_BYTES", 4 * 8 * 8 * 3)
    return 4


def same(a: Source, b: Source) -> None:
    """Names, split, pixels, batches, classes and captions are equal."""
    assert a.keys == b.keys and a.fingerprint == b.fingerprint
    assert a.classes == b.classes and a.captions == b.captions and a.columns == b.columns
    everything = torch.arange(len(a))
    assert (a.images(everything) == b.images(everything)).all()
    first, second = a.batch(a.train_index[:7]), b.batch(b.train_index[:7])
    assert torch.equal(first.x0, second.x0) and first.cond.keys() == second.cond.keys()
    for name in first.cond:
        assert torch.equal(first.cond[name].value, second.cond[name].value)
        assert torch.equal(first.cond[name].present(), second.cond[name].present())


# --- formats: written by hand or by the libraries that own them, read back as the folder -----------------------------


def as_jsonl(folder: Path, out: Path) -> str:
    rows = [{k: v for k, v in row.items() if k not in ("bytes", "label")} for row in told(folder)]
    (folder / "paths.jsonl").write_text("\n".join(json.dumps(row) for row in reversed(rows)))
    return str(folder / "paths.jsonl")


def tars(folder: Path, out: Path) -> None:
    for shard in range(3):
        members = []
        for k, row in list(enumerate(told(folder)))[shard * 8 : shard * 8 + 8]:
            rest = json.dumps({"file_name": row["file_name"], "stars": row["stars"], "label": row["label"]})
            ending = row["file_name"].rpartition(".")[2]
            members += [(f"./{k}.{ending}", row["bytes"]), (f"./{k}.txt", row["text"].encode())]
            members += [(f"./{k}.json", rest.encode()), (f"./{k}.cls", b"7"), (f"./{k}.extra", b"x")]
        make_tar(out / f"set-{shard:03d}.tar", members)


def as_tar_folder(folder: Path, out: Path) -> str:
    tars(folder, out)
    return str(out)


def as_tar_pattern(folder: Path, out: Path) -> str:
    tars(folder, out)
    return str(out / "set-{000..002}.tar")


def as_tar_of_names(folder: Path, out: Path) -> str:
    """One archive as `tar cf` makes it, with the captions beside; names and classes are those of its folders."""
    members = []
    for row in told(folder):
        stem = row["file_name"].rpartition(".")[0]
        told_more = json.dumps({"stars": row["stars"]}).encode()
        members += [
            (row["file_name"], row["bytes"]),
            (f"{stem}.txt", row["text"].encode()),
            (f"{stem}.json", told_more),
        ]
    return str(make_tar(out / "one.tar", members))


def dataset(folder: Path) -> datasets.Dataset:
    rows = told(folder)
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=["cat", "dog"]),
            "text": datasets.Value("string"),
            "stars": datasets.Value("int64"),
            "file_name": datasets.Value("string"),
        }
    )
    values = {name: [row[name] for row in rows] for name in ("label", "text", "stars", "file_name")}
    return datasets.Dataset.from_dict(
        values | {"image": [{"bytes": row["bytes"], "path": None} for row in rows]}, features=features
    )


def as_saved(folder: Path, out: Path) -> str:
    dataset(folder).save_to_disk(str(out / "saved"), num_shards=2)
    return str(out / "saved")


def as_parquet(folder: Path, out: Path) -> str:
    dataset(folder).to_parquet(str(out / "pets.parquet"), batch_size=5)
    return str(out / "pets.parquet")


def as_parquet_folder(folder: Path, out: Path) -> str:
    (out / "data").mkdir(parents=True)
    for k in range(2):
        part = dataset(folder).select(range(12 * k, 12 * k + 12))
        part.to_parquet(str(out / "data" / f"train-{k:05d}-of-00002.parquet"), batch_size=7)  # groups of 7 and 5
    return str(out)


def as_plain_parquet(folder: Path, out: Path) -> str:
    """Pictures as bare bytes, without anything of Hugging Face."""
    rows = told(folder)
    columns = {name: [row[name] for row in rows] for name in ("label", "text", "stars", "file_name")}
    pq.write_table(pa.table(columns | {"jpeg": [row["bytes"] for row in rows]}), out / "bare.parquet", row_group_size=7)
    return str(out / "bare.parquet")


FORMATS = [
    as_jsonl, as_tar_folder, as_tar_pattern, as_tar_of_names, as_saved, as_parquet, as_parquet_folder, as_plain_parquet,
]  # fmt: skip


@pytest.mark.parametrize("written", FORMATS, ids=lambda f: f.__name__[3:])
def test_every_format_is_the_folder(folder: Path, tmp_path: Path, written, monkeypatch) -> None:
    """The same names, pixels, classes, captions and columns as the folder, in memory and on demand."""
    datasets.disable_progress_bars()
    truth = data.open(folder, size=8)
    assert len(truth) == 24 and truth.captioned and truth.classes == ("cat", "dog")
    given = written(folder, tmp_path)
    same(truth, data.open(given, size=8))
    assert data.open(given).codec.spec == data.open(folder).codec.spec
    monkeypatch.setattr(source_module, "LIMIT_BYTES", 23 * 8 * 8 * 3)
    lazy = data.open(given, size=8)
    assert isinstance(lazy.pixels, Lazy) and not lazy.summary()["in_memory"]
    same(truth, lazy)
    json.dumps(lazy.summary())


def test_csv_names_pictures_anywhere(folder: Path, tmp_path: Path) -> None:
    rows = told(folder)
    lines = [f"{folder / row['file_name']},{row['label']}" for row in rows[:5]]
    (tmp_path / "list.csv").write_text("\n".join(["file_name,label", *lines, "gone.png,cat"]))
    loaded = data.open(tmp_path / "list.csv", size=8)
    assert len(loaded) == 5 and loaded.columns == {} and loaded.classes == ()  # all five are cats
    assert loaded.summary()["skipped"] == [{"file": "gone.png", "reason": "there is no such file"}]
    assert (loaded.images(torch.arange(5)) == data.open(folder, size=8).images(torch.arange(5))).all()


def test_class_numbers_of_shards(tmp_path: Path) -> None:
    members = [m for k in range(4) for m in ((f"{k}.png", picture(k)), (f"{k}.cls", str(k % 2 + 9).encode()))]
    loaded = data.open(make_tar(tmp_path / "a.tar", members), size=8)
    assert loaded.classes == ("9", "10") and loaded.labels.tolist() == [0, 1, 0, 1]


def test_one_picture_of_a_sample_counts(tmp_path: Path) -> None:
    members = [
        ("1.jpg", picture(1, ending="jpg")),
        ("1.mask.png", picture(2)),
        ("2.a.png", picture(3)),
        ("2.b.png", picture(4)),
    ]
    assert open_records(str(make_tar(tmp_path / "a.tar", members))).keys == ["1.jpg", "2.a.png", "2.b.png"]


def test_long_and_odd_names_in_shards(tmp_path: Path) -> None:
    names = ["d" * 120 + "/" + "n" * 150 + ".png", "ein größerer Hund\n.png", 'quote".png']
    assert open_records(str(make_tar(tmp_path / "a.tar", [(n, picture(0)) for n in names]))).keys == names


def test_patterns() -> None:
    assert [p.name for p in expand("a-{08..11}.tar")] == [f"a-{k:02d}.tar" for k in range(8, 12)]
    assert [p.name for p in expand("a-{8..11}.tar")] == ["a-8.tar", "a-9.tar", "a-10.tar", "a-11.tar"]
    assert [p.as_posix() for p in expand("{0..1}/{0..1}.tar")] == ["0/0.tar", "0/1.tar", "1/0.tar", "1/1.tar"]
    assert expand("a.tar") == []


def test_records_read_nothing_before_they_are_asked(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "a.png").write_bytes(b"no picture at all")
    records = open_records(str(copy))
    assert len(records) == 1 and records[0].read() == b"no picture at all" and records[-1].key == "a.png"
    with pytest.raises(IndexError):
        records[1]


def test_row_groups_kept_are_bounded_and_read_once_in_order(folder: Path, tmp_path: Path, monkeypatch) -> None:
    """With room for two groups of five pictures, one pass in order reads each group once."""
    rows = told(folder)
    pq.write_table(pa.table({"image": [r["bytes"] for r in rows]}), tmp_path / "a.parquet", row_group_size=5)
    read, largest = [], [0]
    really = parquet_reader.Groups._read

    def counted(self, group: int):
        read.append(group)
        largest[0] = max(largest[0], len(self.kept))
        return really(self, group)

    monkeypatch.setattr(parquet_reader.Groups, "_read", counted)
    monkeypatch.setattr(parquet_reader, "CACHE_BYTES", 11 * max(len(r["bytes"]) for r in rows))
    records = open_records(str(tmp_path / "a.parquet"))
    assert [record.read() for record in records] == [r["bytes"] for r in rows]
    assert read == [0, 1, 2, 3, 4] and largest[0] < 5
    assert records[0].read() == rows[0]["bytes"] and len(read) == 6


# --- pictures on demand ------------------------------------------------------------------------------------------------


def test_the_limit_switches_and_changes_nothing(folder: Path, monkeypatch) -> None:
    truth = data.open(folder, size=8)
    monkeypatch.setattr(source_module, "LIMIT_BYTES", 24 * 8 * 8 * 3)
    assert isinstance(data.open(folder, size=8).pixels, np.ndarray)
    monkeypatch.setattr(source_module, "LIMIT_BYTES", 24 * 8 * 8 * 3 - 1)
    lazy = data.open(folder, size=8)
    assert isinstance(lazy.pixels, Lazy) and lazy.pixels.shape == truth.pixels.shape
    same(truth, lazy)
    rows = torch.tensor([5, 5, 0, 23, 5])
    assert (lazy.images(rows) == truth.images(rows)).all()
    same(truth.take(torch.tensor([20, 3, 4])), lazy.take(torch.tensor([20, 3, 4])))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("grey", [True, False])
def test_channels_on_demand(tmp_path: Path, monkeypatch, channels: int, grey: bool) -> None:
    from io import BytesIO

    from PIL import Image

    for k in range(3):
        image = Image.open(BytesIO(picture(k)))
        (image.convert("L").convert("RGB") if grey else image).save(tmp_path / f"{k}.png")
    truth, auto = data.open(tmp_path, size=8, channels=channels), data.open(tmp_path, size=8)
    monkeypatch.setattr(source_module, "LIMIT_BYTES", 1)
    lazy = data.open(tmp_path, size=8, channels=channels)
    assert lazy.codec == truth.codec and data.open(tmp_path, size=8).codec == auto.codec
    assert (lazy.images(torch.arange(3)) == truth.images(torch.arange(3))).all()


def test_pictures_that_cannot_be_used_are_skipped_on_demand_too(folder: Path, tmp_path: Path, monkeypatch) -> None:
    set_ = make_folder(tmp_path / "set", 9)
    (set_ / "cat/0004.png").write_bytes(picture(4)[:60])
    truth = data.open(set_, size=8)
    monkeypatch.setattr(source_module, "LIMIT_BYTES", 1)
    lazy = data.open(set_, size=8)
    same(truth, lazy)
    assert len(lazy) == 8
    differ = {k for k in truth.summary() if truth.summary()[k] != lazy.summary()[k]}
    assert differ == {"in_memory", "window", "largest"}  # sizes are kept of a set in memory


def test_a_second_look_is_not_needed_unless_a_file_changed(tmp_path: Path, monkeypatch) -> None:
    """The look is kept by the length and time of every file; one that changed, or a damaged note, means looking again."""
    monkeypatch.setenv("SFUMATO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(source_module, "LIMIT_BYTES", 1)
    set_ = make_folder(tmp_path / "set", 9)
    (set_ / "cat/0004.png").write_bytes(b"no picture")
    looked = []
    really = load_module.read_sized
    monkeypatch.setattr(load_module, "read_sized", lambda file, size: looked.append(file) or really(file, size))

    def opened(size: int = 8) -> int:
        looked.clear()
        source = data.open(set_, size=size)
        truth = {"0004": "not a picture that Pillow can read"}
        assert {Path(s["file"]).stem: s["reason"] for s in source.summary()["skipped"]} == truth
        assert len(source) == 8 and source.codec.channels == 3
        return len(looked)

    assert opened() == 9 and opened() == 0 and opened(16) == 9
    (set_ / "dog/0001.png").write_bytes(picture(77))
    assert opened() == 9 and opened() == 0
    os.utime(set_ / "dog/0001.png", (1, 1))  # of the same length, but written at another time
    assert opened() == 9 and opened() == 0
    for note in (tmp_path / "cache" / "looks").iterdir():
        note.write_text('{"pictures": 9, "grey": 1, "reasons": []}')
    assert opened() == 9 and opened() == 0
    monkeypatch.setenv("SFUMATO_CACHE", "/dev/null/nowhere")
    assert opened() == 9 == opened()


@pytest.mark.parametrize("readers", [1, 2, 5])
def test_batches_do_not_depend_on_readers_or_on_what_was_expected(folder: Path, small_limit, readers: int) -> None:
    lazy = data.open(folder, size=8)
    truth = lazy.pixels.take(np.arange(24))[np.arange(24)]
    pixels = replace(lazy.pixels, readers=readers)
    generator = np.random.default_rng(readers)
    for _ in range(20):
        rows, guess = generator.integers(0, 24, 6), generator.integers(0, 24, 6)
        pixels.expect(guess)
        assert len(pixels.ahead) <= 6
        assert (pixels[rows] == truth[rows]).all()
        pixels.expect(rows)
        assert pixels.nbytes <= 6 * 8 * 8 * 3


def test_what_was_expected_is_read_before_it_is_asked(folder: Path, small_limit) -> None:
    lazy = data.open(folder, size=8)
    lazy.expect(torch.tensor([3, 1, 4]))
    for ahead in list(lazy.pixels.ahead.values()):
        ahead.result()
    lazy.pixels.records.fetch = lazy.pixels.records.locate = None  # nothing can be read any more
    assert len(lazy.images(torch.tensor([1, 3, 4]))) == 3


def test_a_picture_that_goes_away_is_named(tmp_path: Path, monkeypatch) -> None:
    set_ = make_folder(tmp_path / "set", 9)
    monkeypatch.setattr(source_module, "LIMIT_BYTES", 1)
    lazy = data.open(set_, size=8)
    (set_ / "cat/0002.png").unlink()
    with pytest.raises(SfumatoError, match="cat/0002.png of .* could be read before and now cannot") as caught:
        lazy.images(torch.arange(9))
    assert "\n" not in str(caught.value)
    assert len(lazy.images(torch.tensor([0, 2]))) == 2  # the others still can


def test_memory_stays_bounded(tmp_path: Path) -> None:
    """A set of 24 times the limit is opened and read: no more memory at its peak than half of the set decoded."""
    side, n, limit = 256, 256, 2 * 2**20
    raw = picture(1, side)
    make_tar(tmp_path / "a.tar", [(f"{k}.png", raw) for k in range(n)])
    code = f"""
import resource, torch
from sfumato.data import source
import sfumato.data as data
warm = data.open({str(make_tar(tmp_path / "warm.tar", [("0.png", raw)]))!r}, size={side})
source.LIMIT_BYTES = {limit}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
lazy = data.open({str(tmp_path / "a.tar")!r}, size={side})
for rows in torch.arange(len(lazy)).split(8):
    batch = lazy.batch(rows)
    lazy.expect((rows + 8) % len(lazy))
print(len(lazy), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    count, grown = map(int, done.stdout.split())
    decoded = n * side * side * 3
    assert count == n and decoded >= 20 * limit
    assert grown < decoded / 2, grown
