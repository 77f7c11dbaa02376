"""What a user types to get pictures: the prompt line, its revision, the command."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import torch
from PIL import Image

from sfumato.cli import main
from sfumato.core import Cond, SfumatoError, Slot
from sfumato.data import encode
from sfumato.forward import RectifiedFlow
from sfumato.guide import cfg
from sfumato.tasks import Request, generate, load
from sfumato.tasks.chat import ask
from sfumato.tasks.mark import read_mark
from sfumato.tasks.prompt import Line, parse
from sfumato.tasks.revise import Reviser
from sfumato.tasks.shipped import find, listed

torch.set_num_threads(1)
CAPTIONS = (
    "red apple, fruit, food, red and green, flat style",
    "strawberry, berry, fruit, red, glossy style",
    "police car, vehicle, blue and white, flat style",
    "owl, bird, animal, brown, glossy style",
)


def test_options_are_read_behind_the_text() -> None:
    line = "a red apple --ar 3:2 --no leaf, stem --seed 7 --chaos 20 --stylize 250 --style flat --n 2"
    assert parse(line) == (Line("a red apple", (3, 2), 7, "leaf, stem", 20, 250, "flat", 2),)
    assert parse("plain words - and a--dash") == (Line("plain words - and a--dash"),)


def test_choices_in_braces_stand_for_all_their_combinations() -> None:
    found = [line.text for line in parse("a {red, blue} {apple,car} --seed {1,2}")]
    assert found == [f"a {c} {t}" for c in ("red", "blue") for t in ("apple", "car") for _ in (1, 2)]
    assert [line.seed for line in parse("x --seed {1,2}")] == [1, 2]
    assert parse("a \\{b\\}")[0].text == "a {b}"


@pytest.mark.parametrize(
    "line,said",
    [
        ("a --sed 3", "did you mean --seed"),
        ("a --ar 3", "width:height"),
        ("a --ar 0:2", "width:height"),
        ("a --ar 99:1", "width:height"),
        ("a --seed x", "whole number"),
        ("a --seed -1", "whole number"),
        ("a --chaos 101", "0 to 100"),
        ("a --stylize 1001", "0 to 1000"),
        ("a --n 0", "1 to 1000"),
        ("a --no", "needs words"),
        ("a --seed 1 --seed 2", "twice"),
        ("a {b", "brace"),
        ("a b}", "brace"),
        ("{a,b,c,d,e,f,g} {a,b,c,d,e,f,g}", "49 prompts"),
    ],
)
def test_a_wrong_prompt_line_is_told_in_one_line(line: str, said: str) -> None:
    with pytest.raises(SfumatoError, match=said) as error:
        parse(line)
    assert "\n" not in str(error.value)


def test_spelling_is_mended_towards_known_words_only() -> None:
    reviser = Reviser(CAPTIONS)
    mended = reviser.revise("a Strawbery with an owl and a zeppelin and a castle and a tower")
    assert mended.text == "a strawberry with an owl and a zeppelin and a castle and a tower"
    assert len(mended.reasons) == 1 and "strawbery" in mended.reasons[0]
    assert reviser.revise("apples and owls and towers and castles and boats").reasons == ()


def test_a_short_prompt_is_completed_from_the_nearest_caption_and_keeps_its_own_colour() -> None:
    reviser = Reviser(CAPTIONS)
    done = reviser.revise("a blue apple")
    assert done.text.startswith("a blue apple, ") and "fruit" in done.text and "red" not in done.text
    assert "style" not in done.text and done.reasons
    assert reviser.revise("a xylophone").text == "a xylophone"
    for same in ("", "ein Apfel", "un pajaro", "the quick red fox jumps over lazy dogs today", "word " * 5000):
        assert reviser.revise(same).text == same


class _Chat(BaseHTTPRequestHandler):
    answer = b""
    seen: list[dict] = []

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        self.seen.append(
            {"path": self.path, "key": self.headers["Authorization"], **json.loads(self.rfile.read(length))}
        )
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.answer)

    def log_message(self, *_) -> None:
        pass


def test_a_chat_endpoint_may_revise_and_its_nonsense_is_an_error(monkeypatch) -> None:
    server = HTTPServer(("127.0.0.1", 0), _Chat)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/v1"
    monkeypatch.setenv("SFUMATO_REVISE_KEY", "secret")
    try:
        _Chat.answer = json.dumps({"choices": [{"message": {"content": ' "a shiny apple" '}}]}).encode()
        assert ask(url, "apple", CAPTIONS).text == "a shiny apple"
        asked = _Chat.seen[-1]
        assert asked["path"] == "/v1/chat/completions" and asked["key"] == "Bearer secret"
        assert asked["messages"][1]["content"] == "apple" and CAPTIONS[3] in asked["messages"][0]["content"]
        for nonsense in (b"", b"[]", b'{"choices": []}', b'{"choices": [{"message": {"content": ""}}]}', b"\xff"):
            _Chat.answer = nonsense
            with pytest.raises(SfumatoError):
                ask(url, "apple", CAPTIONS)
    finally:
        server.shutdown()
        server.server_close()
    for wrong in (url, "ftp://host", "file:///etc/passwd", "no address"):
        with pytest.raises(SfumatoError):
            ask(wrong, "apple", CAPTIONS)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A captioned model of two styles, hardly trained."""
    root = tmp_path_factory.mktemp("generate")
    rows = ["file_name,text,style"]
    for k in range(16):
        Image.new("RGB", (16, 16), (k * 16, 255 - k * 16, 90)).save(root / f"{k}.png")
        rows.append(f'{k}.png,"{CAPTIONS[k % 4]}",{("flat", "glossy")[k % 2]}')
    (root / "metadata.csv").write_text("\n".join(rows), encoding="utf-8")
    arguments = ["train", str(root), "--run", str(root / "run"), "--size", "16", "--steps", "3", "--set", "batch=4"]
    arguments += ["--set", "net.widths=[8,16]", "--set", "net.blocks=[1,1]", "--set", "net.embedding=16"]
    arguments += ["--set", "net.attention=[1]", "--set", "net.head=8"]
    assert main(arguments) == 0
    return root / "run"


def told(capsys) -> dict:
    return json.loads(capsys.readouterr().out.strip().splitlines()[-1])


def test_a_sentence_becomes_a_grid_of_four_and_single_files(run: Path, tmp_path: Path, capsys) -> None:
    arguments = ["generate", "strawbery --seed 3", "--model", str(run), "--style", "flat", "--steps", "2", "--json"]
    assert main([*arguments, "--out", str(tmp_path / "a.png")]) == 0
    (one,) = told(capsys)["pictures"]
    assert one["revised_prompt"].startswith("strawberry, ") and one["reasons"] and one["seed"] == 3
    assert Image.open(one["grid"]).size[0] > 2 * 16 and len(one["files"]) == 4
    marked = read_mark(Path(one["files"][2]))
    assert marked["ai_made"] and marked["picture"] == 2 and marked["asked"] == "strawbery"
    assert marked["request"]["prompt"] == one["revised_prompt"] and marked["request"]["style"] == "flat"
    again = load(run).generate(n=1, first=2, seed=3, steps=2, style="flat", prompt=one["revised_prompt"], guidance=3.0)
    assert list(again.images[0].getdata()) == list(Image.open(one["files"][2]).getdata())
    assert main([*arguments, "--no-revise", "--out", str(tmp_path / "b")]) == 0
    (other,) = told(capsys)["pictures"]
    assert other["revised_prompt"] == "strawbery" and other["reasons"] == [] and Path(other["grid"]).parent.name == "b"


def test_choices_shapes_chaos_and_what_should_not_be_seen(run: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    line = "{owl,car} --ar 2:1 --no red --chaos 100 --seed 1"
    assert main(["generate", line, "--model", str(run), "--n", "3", "--steps", "2", "--json"]) == 0
    both = told(capsys)["pictures"]
    assert [p["prompt"] for p in both] == ["owl", "car"] and len(both[0]["files"]) == 3
    width, height = Image.open(both[0]["files"][0]).size
    assert 1.6 < width / height < 2.4
    assert not Path(both[0]["grid"]).is_absolute() and Path(both[0]["grid"]).is_file()


@pytest.mark.parametrize(
    "arguments,said",
    [
        (["a", "--n", "0"], "--n lies in"),
        ([""], "say what to draw"),
        (["  --seed 3"], "say what to draw"),
        (["a", "--style", "flt"], "did you mean 'flat'"),
        (["a", "--size", "15x16"], "multiples of"),
        (["a", "--size", "big"], "width x height"),
        (["a", "--size", "0x0"], "multiples of"),
        (["a", "--steps", "0"], "at least 1 step"),
        (["a", "--chaos", "-1"], "--chaos lies in"),
        (["a", "--stylize", "2000"], "--stylize lies in"),
        (["a", "--seed", "-4"], "--seed lies in"),
        (["a", "--no", "b", "--guidance", "1"], "guidance above 1"),
        (["a", "--out", "x.jpg"], ".png"),
        (["word " * 30_000], "20,000 words"),
        (["a --sty flat"], "did you mean --style"),
    ],
)
def test_wrong_requests_are_told_in_one_line(run: Path, arguments: list[str], said: str, capsys) -> None:
    assert main(["generate", *arguments, "--model", str(run)]) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert said in errors[-1]


@pytest.mark.parametrize("prompt", ["🍎 ❤️", "تفاحة حمراء", "a" * 1_000_000, "\u202eabc", "赤いリンゴ"])
def test_odd_prompts_are_drawn(run: Path, prompt: str, tmp_path: Path) -> None:
    out = str(tmp_path / "x.png")
    assert main(["generate", prompt, "--model", str(run), "--n", "1", "--steps", "1", "--out", out]) == 0


def test_models_are_found_by_name_or_the_mistake_is_told(run: Path, tmp_path: Path, capsys) -> None:
    assert main(["models", str(run.parent), "--json"]) == 0
    (found,) = [m for m in told(capsys)["models"] if not m["shipped"]]
    assert found["conditions"] == ["style", "text"] and found["styles"] == ["flat", "glossy"]
    (tmp_path / "index.json").write_text('{"default": "one", "models": [{"name": "one", "file": "one.safetensors"}]}')
    assert find(None, tmp_path) == find("one", tmp_path) == tmp_path / "one.safetensors"
    assert find(str(run), tmp_path) == run
    with pytest.raises(SfumatoError, match="did you mean 'one'"):
        find("on", tmp_path)
    for model in listed():
        assert find(model["name"]).is_file()


def test_a_prompt_for_each_picture_draws_what_each_alone_would(run: Path) -> None:
    model = load(run)
    both = generate(model, Request(n=2, seed=5, steps=2, prompt=("owl", "a very long red police car"), guidance=2.0))
    alone = generate(model, Request(n=1, first=1, seed=5, steps=2, prompt="a very long red police car", guidance=2.0))
    assert torch.allclose(both.x0[1], alone.x0[0], atol=1e-4)
    with pytest.raises(SfumatoError, match="2 prompts for 3"):
        Request(n=3, prompt=("a", "b"))


def test_guidance_leads_away_from_what_should_not_be_seen() -> None:
    """lin = other + w (cond - other), with tokens of unlike lengths in one call."""
    process = RectifiedFlow()

    class Counting:
        """Believes in the number of words it is told."""

        def __init__(self) -> None:
            self.process = process

        def __call__(self, x_t, t, cond=None):
            n = cond["text"].present().sum(1).float()
            return process.posterior(x_t, t, n.reshape(-1, 1).expand_as(x_t))

    def said(*captions: str) -> Cond:
        ids, mask = encode(captions)
        return Cond({"text": Slot(ids, "tokens", mask)})

    x = torch.zeros(2, 1)
    against = said("five words are too many")
    guided = cfg(3.0, against=against)(Counting())(x, 0.5, said("one", "one two")).lin[:, 0]
    assert guided.tolist() == [5 + 3 * (1 - 5), 5 + 3 * (2 - 5)]
    plain = cfg(3.0)(Counting())(x, 0.5, said("one", "one two")).lin[:, 0]
    assert plain.tolist() == [3.0, 6.0]
