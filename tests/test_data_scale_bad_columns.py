"""Bad Parquet files and `datasets` folders: each ends in one clear line, as an error or as a recorded reason."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scaling import line, picture

import sfumato.data as data
from sfumato.data.readers import parquet as parquet_reader


def write_parquet(root: Path, **columns: object) -> str:
    pq.write_table(pa.table(columns), root / "a.parquet")
    return str(root / "a.parquet")


def parquet_no_picture(root: Path) -> str:
    return write_parquet(root, text=["a"], n=[1])


def parquet_strings(root: Path) -> str:
    return write_parquet(root, image=["0.png"])


def parquet_struct_of_numbers(root: Path) -> str:
    return write_parquet(root, image=[{"bytes": 3, "path": "a"}])


def parquet_two_pictures(root: Path) -> str:
    return write_parquet(root, left=[picture(0)], right=[picture(1)])


def parquet_truncated(root: Path) -> str:
    path = Path(write_parquet(root, image=[picture(0)]))
    path.write_bytes(path.read_bytes()[:-9])
    return str(path)


def parquet_not(root: Path) -> str:
    (root / "a.parquet").write_bytes(b"PAR1 but no more")
    return str(root / "a.parquet")


def parquet_empty(root: Path) -> str:
    return write_parquet(root, image=pa.array([], pa.binary()))


def parquet_text_number(root: Path) -> str:
    return write_parquet(root, image=[picture(0)], text=[5])


def parquet_duplicate_names(root: Path) -> str:
    return write_parquet(root, image=[picture(0)] * 2, file_name=["a.png"] * 2)


def parquet_other_columns(root: Path) -> str:
    (root / "set").mkdir()
    pq.write_table(pa.table({"image": [picture(0)]}), root / "set/a.parquet")
    pq.write_table(pa.table({"photo": [picture(0)]}), root / "set/b.parquet")
    return str(root / "set")


def parquet_all_nulls(root: Path) -> str:
    return write_parquet(root, image=pa.array([None, None], pa.binary()))


def saved(root: Path) -> Path:
    datasets.disable_progress_bars()
    rows = datasets.Dataset.from_dict({"image": [{"bytes": picture(k), "path": None} for k in range(3)]})
    rows.cast_column("image", datasets.Image()).save_to_disk(str(root / "saved"))
    return root / "saved"


def saved_splits(root: Path) -> str:
    rows = datasets.Dataset.from_dict({"image": [picture(0)]})
    datasets.DatasetDict({"train": rows, "test": rows}).save_to_disk(str(root / "saved"))
    return str(root / "saved")


def saved_without_file(root: Path) -> str:
    folder = saved(root)
    state = json.loads((folder / "state.json").read_text())
    state["_data_files"].append({"filename": "data-00009-of-00010.arrow"})
    (folder / "state.json").write_text(json.dumps(state))
    return str(folder)


def saved_truncated(root: Path) -> str:
    folder = saved(root)
    path = next(folder.glob("*.arrow"))
    path.write_bytes(path.read_bytes()[:300])
    return str(folder)


def saved_bad_state(root: Path) -> str:
    folder = saved(root)
    (folder / "state.json").write_text("{")
    return str(folder)


def saved_state_leads_out(root: Path) -> str:
    folder = saved(root)
    state = json.loads((folder / "state.json").read_text())
    state["_data_files"] = [{"filename": "../../../../etc/passwd"}]
    (folder / "state.json").write_text(json.dumps(state))
    return str(folder)


ERRORS: dict[Callable[[Path], str], str] = {
    parquet_no_picture: "has no column of pictures, as bytes or as {bytes, path}; its columns: text (string), n (int64)",
    parquet_strings: "its columns: image (string)",
    parquet_struct_of_numbers: "has no column of pictures",
    parquet_two_pictures: "several columns of pictures (left, right); name the one to use 'image'",
    parquet_truncated: "no whole Parquet file",
    parquet_not: "no whole Parquet file",
    parquet_empty: "the table has no rows",
    parquet_text_number: "text is 5",
    parquet_duplicate_names: "row 1: file_name is 'a.png', which is no name of its own",
    parquet_other_columns: "keeps its pictures in column 'photo'",
    parquet_all_nulls: "none of the 2 pictures in",
    saved_splits: "holds the splits test, train; give one of them",
    saved_without_file: "data-00009-of-00010.arrow is no whole Arrow file",
    saved_truncated: "is no whole Arrow file",
    saved_bad_state: "state.json cannot be read",
    saved_state_leads_out: "passwd is no whole Arrow file",
}


@pytest.mark.parametrize("case", ERRORS, ids=lambda case: case.__name__)
def test_errors_are_one_line(tmp_path: Path, case: Callable[[Path], str]) -> None:
    told = line(case(tmp_path))
    assert ERRORS[case] in told, told


def test_nulls_and_paths_in_parquet(tmp_path: Path) -> None:
    (tmp_path / "there.png").write_bytes(picture(3))
    cells = [{"bytes": picture(0), "path": "a.png"}, {"bytes": None, "path": "there.png"}]
    cells += [{"bytes": None, "path": "gone.png"}, {"bytes": None, "path": None}, None]
    pq.write_table(pa.table({"image": cells}), tmp_path / "a.parquet")
    loaded = data.open(tmp_path / "a.parquet", size=8)
    assert loaded.keys == ("a-00000000", "a-00000001")
    assert [s["reason"] for s in loaded.summary()["skipped"]] == [
        "there is no such file",
        *["no picture in this row"] * 2,
    ]


def test_a_row_group_too_large_to_read(tmp_path: Path, monkeypatch) -> None:
    path = write_parquet(tmp_path, image=[picture(0)] * 4)
    monkeypatch.setattr(parquet_reader, "MOST_GROUP", 1000)
    assert "row group 0 holds" in line(path) and "row_group_size" in line(path)


def test_without_pyarrow_the_line_says_what_to_install(tmp_path: Path, monkeypatch) -> None:
    path = write_parquet(tmp_path, image=[picture(0)])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "needs pyarrow to be read: pip install 'sfumato[parquet]'" in line(path)


def test_labels_out_of_range_are_unknown(tmp_path: Path) -> None:
    names = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}
    table = pa.table({"image": [picture(k) for k in range(4)], "label": [0, 1, 7, None]})
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(names)}), tmp_path / "a.parquet")
    loaded = data.open(tmp_path / "a.parquet", size=8)
    assert loaded.classes == ("cat", "dog") and loaded.labels.tolist() == [0, 1, -1, -1]
    damaged_note = table.replace_schema_metadata({"huggingface": "{no json"})
    pq.write_table(damaged_note, tmp_path / "b.parquet")
    assert data.open(tmp_path / "b.parquet", size=8).classes == ("0", "1", "7")
