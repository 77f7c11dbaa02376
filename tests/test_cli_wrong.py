"""Wrong inputs to every command: one line that says what to do, exit code 2, and every file is as it was."""

from __future__ import annotations

import hashlib
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from serving import tiny_model

from sfumato.cli import main
from sfumato.cli.main import _parser

SMALL = "--set net.widths=[8,16] --set net.blocks=[1,1] --set net.patch=1 --set net.embedding=32 --set batch=8"

CASES = """
train pictures --run new --steps 1 --slots colour | known: class, style
train pictures --run new --steps 1 --slots text | add a metadata.csv
train pictures --run new --steps 1 --slots | --slots: expected one argument
train pictures --run new --steps 1 --start nowhere | nowhere is no run folder
train pictures --run new --steps 1 --start note.txt | note.txt cannot be read as a model
train pictures --run new --steps 1 --start tiny.safetensors --size 10 | use --size 12
train pictures --run new --steps 1 --encoder nowhere | give minilm or a folder
train pictures --run new --steps 1 --encoder empty | give minilm or a folder
train pictures --run new --steps 1 --encoder note.txt | note.txt
train pictures --run new --steps 1 --buckets 0 | 1 shape or more
train pictures --run new --steps 1 --buckets many | invalid int
train pictures --run new --steps 1 --balance often | write equal
train pictures --run new --steps 1 --balance column=none | no column 'none'
train pictures --run new --steps 1 --ai-made some | write refuse, allow
train pictures --run new --steps 1 --captions note.txt | note.txt: the caption rules cannot be read
train pictures --run new --steps 1 --captions none.json | none.json
train pictures --run new --steps 1 --seed 99999999999999999999999 | whole number
train pictures --run new --steps 1 --set seed=-9999999999999999999999 | whole number
train pictures --run new --steps 1 --set batch | write key=value
train pictures --run new --steps 1 --set batch=-4 | batch -4
train pictures --run new --minutes nan | raise it
train pictures --run new --minutes inf | without end
train empty --run new --steps 1 | no pictures in empty
train note.txt --run new --steps 1 | give a folder of pictures
train pictures --run run --steps 1 | go on with --resume
train pictures --run note.txt --steps 1 | cannot write the run folder note.txt
train pictures --steps 1 | required: --run
sample run --shape 0x0 --out new.png | multiples of 2
sample run --shape 7 --out new.png | width x height
sample run --n -1 --out new.png | at least 1 picture
sample run --guidance nan --out new.png | guidance is a number
sample run --autoguidance inf --out new.png | autoguidance is a number
sample run --original 0x5 --out new.png | leave the original size away
sample run --style flat --out new.png | leave --style away
sample run --out note.txt | --out is a .png
sample run --n 1 --steps 1 --out taken/new.png | cannot write taken/new.png
sample run --n 1 --steps 1 --out taken | cannot write taken
sample empty --out new.png | no run folder
generate "a red apple" --model run --out note.txt | --out is a .png
generate "a red apple" --model tiny.safetensors --n 0 | --n takes
generate "a red apple" --model tiny.safetensors --n 1 --steps 1 --out taken/new.png | cannot write taken/new.png
generate "a red apple" --model tiny.safetensors --no-revise --revise http://localhost | not allowed with
inpaint tiny.safetensors --image photo.png --mask note.txt --out new.png | note.txt: not a picture
inpaint tiny.safetensors --image photo.png --out new.png | required: --mask
inpaint tiny.safetensors --image photo.png --mask photo.png --out new.png | paint white
outpaint tiny.safetensors --image photo.png --zoom 0 --out new.png | above 1 and up to 16
outpaint tiny.safetensors --image photo.png --zoom nan --out new.png | above 1 and up to 16
outpaint tiny.safetensors --image photo.png --left -4 --out new.png | 0 to 16,384
upscale tiny.safetensors --image note.txt --out new.png | note.txt: not a picture
upscale tiny.safetensors --image photo.png --scale 3 --out new.png | choose from 2, 4
layout tiny.safetensors --out new.png | --layout FILE.json
layout tiny.safetensors --layout none.json --out new.png | none.json cannot be read
layout tiny.safetensors --colours note.txt --out new.png | note.txt: not a picture
layout tiny.safetensors --layout boxes.json --size 0x16 --out new.png | at least one pixel
sketch tiny.safetensors --image note.txt --out new.png | note.txt: not a picture
sketch tiny.safetensors --image photo.png --size 0x0 --out new.png | multiples of 4
vary tiny.safetensors --image photo.png --strength nan --out new.png | strength lies in
vary tiny.safetensors --image photo.png --prompt owl --guidance nan --out new.png | guidance is a number
vary tiny.safetensors --image photo.png --steps 1 --out taken/new.png | cannot write taken/new.png
blend tiny.safetensors photo.png none.png --out new.png | none.png: there is no such file
blend tiny.safetensors photo.png photo.png --strength -1 --out new.png | strength lies above 0
tile tiny.safetensors --size 16 --out new.png | width x height
tile tiny.safetensors --n 0 --out new.png | at least 1 picture
measure run | required: --against
measure run --against pictures --n 0 | 16 are the least
measure run --against empty | no pictures in empty
measure run --against pictures --size 8 | --size is for two sets
compare empty --minutes 1 --out new | no pictures in empty
compare pictures --minutes 0 --out new | above 0
compare pictures --minutes inf --out new | not without end
compare pictures --minutes 1 --seeds 0 --out new | at least 1 seed
compare pictures --minutes 1 --gan speed=1 --out new | GanRecipe has no 'speed'
card empty | no run folder
card run --watts -1 | more than 0
card run --watts nan | more than 0
trace none.png | none.png cannot be read
trace note.txt --run run | note.txt cannot be used
trace photo.png | name its run folder with --run
trace photo.png --run run --out note.txt | cannot write note.txt
trace photo.png --run run --out taken/new.png | cannot write taken/new.png
audit nowhere | no folder 'nowhere'
audit note.txt | give a folder of pictures
audit pictures --report taken/new.html | taken/new.html
audit pictures --text -1 | 1 or more
clean pictures --out full | choose a folder that is new or empty
clean nowhere --out new | nowhere is no set of pictures
clean pictures --out pictures | choose another folder
clean pictures --out new --only dust | the kinds are: corrupt
clean pictures --out new --undo | nothing to undo
clean digits --out new | digits is no set of pictures
pack nowhere --out new | nowhere is no set of pictures
pack empty --out new | no pictures in empty
pack pictures --out full | choose a folder that is new or empty
pack pictures --out note.txt | choose a folder that is new or empty
pack pictures --out new --shard-size nan | megabytes above 0
calibrate empty | no run folder
calibrate run --steps 0 | at least 1 step
calibrate run --solver magic | known: ddpm
calibrate run --guidance nan | guidance is a number
distill run --run new --guidance nan --steps 1 | finite guidance
distill run --run run --steps 1 | choose another --run folder
distill run --run new --steps 0 | raise it
distill run --run new --source nowhere --steps 1 | no folder 'nowhere'
neon run --run new --n 1 --steps 1 | --n must be at least
neon run --run new --source empty --steps 1 | no pictures in empty
neon run --run new --minutes inf | without end
adapt run pictures --run new --steps 0 | raise it
adapt tiny.safetensors pictures --run new --steps 1 | add a metadata.csv
adapt run pictures --run new --steps 1 --copies maybe | choose from 'stop', 'allow'
serve nowhere --data new | see 'sfumato models'
serve note.txt --data new | note.txt cannot be read as a model
serve tiny.safetensors --port 99999 --data new | 0 to 65535
serve tiny.safetensors --host 0.0.0.0 --data new | give a --token
serve tiny.safetensors --token short --data new | 8 to 200
serve tiny.safetensors --allow nowhere --data new | there is no such folder
serve tiny.safetensors --policy note.txt --data new | note.txt is no JSON
serve tiny.safetensors --name http://mine --data new | a host name such as
serve tiny.safetensors --data note.txt | cannot keep jobs in note.txt
bot --token-file none.txt | cannot read the token in none.txt
bot --token-file empty.txt | --token-file FILE
bot --token-file note.txt --server ftp://host | such as http://
bot --token-file note.txt --server http://host:port | such as http://
bot --token-file note.txt --at-once 0 | from 1 on
mcp --folder nowhere | there is no such folder
mcp --model nowhere | see 'sfumato models'
mcp --policy note.txt | note.txt is no JSON
policy check | say which prompt
policy show castle | did you mean 'sfumato policy check'
policy check castle --rules note.txt | note.txt is no JSON
policy check castle --rules none.json | cannot read the policy none.json
models nowhere | 'nowhere' is no folder
models note.txt | 'note.txt' is no folder
doctor empty | no run folder
doctor note.txt | note.txt
export run --half --to new.pt | .safetensors file
export run --half --to taken/new.safetensors | cannot write taken/new.safetensors
export run --half --ema nan --to new.safetensors | between 0 and 0.28
tensorboard empty | no run folder
tensorboard run --to full | name another folder with --to
verify none.png | none.png: there is no such file
verify note.txt | note.txt: not a picture
reproduce none.png | none.png cannot be read
reproduce photo.png | carries no receipt
data get icons | choose from 'emoji'
data get emoji --styles pastel | the styles are: noto
data get emoji --size 0 | 8 to 512
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of captions, a run, pictures of two classes, and things that are none of these."""
    made = tmp_path_factory.mktemp("wrong")
    tiny_model(made)
    (made / "run").rename(made / "begun")
    rng = np.random.default_rng(0)
    for name in ("dark", "light"):
        (made / "pictures" / name).mkdir(parents=True)
        for k in range(20):
            pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(made / "pictures" / name / f"{k}.png")
    Image.new("RGB", (16, 16), (200, 30, 30)).save(made / "photo.png")
    for name in ("empty", "full"):
        (made / name).mkdir()
    (made / "full" / "mine.txt").write_text("mine")
    (made / "note.txt").write_text("a note of mine")
    (made / "boxes.json").write_text('{"width": 16, "height": 16, "boxes": [{"box": [0, 0, 8, 8], "text": "owl"}]}')
    (made / "empty.txt").write_text("")
    (made / "taken").write_text("a file where a folder should be")
    (made / "cache").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made)
        patch.setenv("SFUMATO_CACHE", str(made / "cache"))
        assert main(["train", "pictures", "--run", "run", "--steps", "2", *shlex.split(SMALL)]) == 0
    return made


def held(folder: Path) -> dict[str, str]:
    """All that is in a folder, by the hash of its bytes."""
    files = {str(p.relative_to(folder)): p for p in folder.rglob("*") if "cache" not in p.parts}
    return {n: hashlib.sha256(p.read_bytes()).hexdigest() if p.is_file() else "" for n, p in files.items()}


def test_no_command_is_left_out() -> None:
    known = next(a for a in _parser()._actions if a.dest == "command").choices
    assert set(known) == {line.split()[0] for line in CASES.strip().splitlines()}


@pytest.mark.parametrize("case", CASES.strip().splitlines(), ids=lambda case: case.partition(" | ")[0])
def test_a_wrong_input_is_one_line_and_nothing_is_lost(case: str, folder: Path, capsys, monkeypatch) -> None:
    command, _, words = case.partition(" | ")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("SFUMATO_CACHE", str(folder / "cache"))
    before = held(folder)
    try:
        code = main(shlex.split(command))
    except SystemExit as stop:  # the parser's own
        code = stop.code
    told = capsys.readouterr().err.strip().splitlines()
    # what was said before the mistake was met are plain facts and a bar, never a traceback
    assert code == 2 and told[-1].startswith("sfumato") and words in told[-1], told
    assert sum(line.startswith("sfumato") for line in told) == 1 and not any("Traceback" in line for line in told)
    assert held(folder) == before
