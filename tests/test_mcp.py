"""Tools for assistants: the official client drives `sfumato mcp` over its stdin and stdout, with a tiny model."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from PIL import Image
from serving import tiny_model

import sfumato
from sfumato.cli import main
from sfumato.core import SfumatoError
from sfumato.serve.assistant import TOOLS, Tools
from sfumato.serve.policy import rules

ENV = {**os.environ, "PYTHONPATH": str(Path(sfumato.__file__).parents[1]), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with a model and twelve pictures, two of them the same."""
    place = tmp_path_factory.mktemp("assistant")
    tiny_model(place)
    (place / "photos").mkdir()
    for k in range(12):
        pixels = np.random.default_rng(min(k, 10)).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / "photos" / f"{k}.png")
    (place / "rules.json").write_text('{"figures": null}')
    return place


def talk(folder: Path, *options: str, calls: list[tuple[str, dict[str, Any]]]) -> list[Any]:
    """What the server answers, tool by tool, to the official client."""

    async def run() -> list[Any]:
        command = ["-m", "sfumato", "mcp", "--folder", str(folder), *options]
        told = StdioServerParameters(command=sys.executable, args=command, env=ENV)
        with open(os.devnull, "w") as quiet:
            async with stdio_client(told, quiet) as (read, write), ClientSession(read, write) as session:
                await session.initialize()
                return [await session.list_tools(), *[await session.call_tool(name, given) for name, given in calls]]

    return asyncio.run(asyncio.wait_for(run(), 240))


def facts(answer: Any) -> dict[str, Any]:
    assert not answer.is_error, answer.content
    return json.loads(answer.content[0].text)


def picture(answer: Any) -> Image.Image:
    shown = answer.content[1]
    assert shown.type == "image" and shown.mime_type == "image/png"
    return Image.open(BytesIO(base64.b64decode(shown.data)))


def test_an_assistant_draws(folder) -> None:
    listed, drawn, outside, wrong, refused, unmarked = talk(
        folder,
        "--policy",
        str(folder / "rules.json"),
        calls=[
            ("generate", {"prompt": "a red apple --seed 7", "n": 2, "steps": 2, "model": "tiny.safetensors"}),
            ("audit", {"folder": "../"}),
            ("generate", {"prompt": "an owl --sed 3"}),
            ("generate", {"prompt": "a castle by Greg Rutkowsky", "model": "tiny.safetensors"}),
            ("verify", {"image": "photos/0.png"}),
        ],
    )
    assert {tool.name for tool in listed.tools} == {tool.__name__ for tool in TOOLS}
    for tool in listed.tools:
        assert tool.description and tool.input_schema["properties"]
    made = facts(drawn)["pictures"][0]
    assert made["seed"] == 7 and made["steps"] == 2 and len(made["files"]) == 2
    assert all((folder / file).is_file() for file in made["files"])
    with Image.open(folder / made["grid"]) as grid:
        assert np.array_equal(np.asarray(picture(drawn).convert("RGB")), np.asarray(grid.convert("RGB")))
    assert outside.is_error and "outside" in outside.content[0].text
    assert wrong.is_error and "did you mean --seed" in wrong.content[0].text
    assert refused.is_error and "Greg Rutkowski" in refused.content[0].text
    assert facts(unmarked)["found"] == "nothing"
    told = asyncio.run(Tools(folder).verify(made["files"][1]))
    assert told["found"] == "made here" and told["receipt"]["request"]["seed"] == 7 and told["receipt"]["picture"] == 1


@pytest.mark.slow
def test_an_assistant_edits_audits_and_trains(folder) -> None:
    model = ("--model", "tiny.safetensors")
    _, audited, began = talk(
        folder,
        *model,
        calls=[
            ("audit", {"folder": "photos"}),
            ("start_training", {"source": "photos", "run": "runs/first", "minutes": 0.02, "size": 16}),
        ],
    )
    told = facts(audited)
    assert told["images"] == 12 and told["faults"]["exact_duplicate"][0]["files"] == ["10.png", "11.png"]
    assert facts(began)["run"] == "runs/first"

    # the conversation is over, and another one asks how the training goes
    _, watched, changed, wider, upscaled, traced = talk(
        folder,
        *model,
        calls=[
            ("watch_training", {"run": "runs/first", "wait": 60}),
            ("edit", {"image": "photos/0.png", "how": "inpaint", "region": [0.5, 0, 1, 1], "prompt": "an owl"}),
            ("edit", {"image": "photos/0.png", "how": "outpaint", "zoom": 2, "prompt": "an owl"}),
            ("upscale", {"image": "photos/0.png"}),
            ("trace", {"image": "photos/3.png", "run": "runs/first"}),
        ],
    )
    training = facts(watched)
    assert not training["running"] and training["rows"] > 0 and training["newest"]["step"] >= 1, training
    assert (folder / "runs" / "first" / "run.json").is_file()
    before, after = (np.asarray(p.convert("RGB")) for p in (Image.open(folder / "photos" / "0.png"), picture(changed)))
    assert np.array_equal(before[:, :8], after[:, :8]) and not np.array_equal(before[:, 8:], after[:, 8:])
    assert picture(wider).size == (32, 32) and picture(upscaled).size == (32, 32)
    assert "3.png" in json.dumps(facts(traced))


def test_prompts_are_held_against_the_rules_where_the_owner_says_so(folder) -> None:
    tools = Tools(folder, "tiny.safetensors", rules())
    with pytest.raises(SfumatoError, match="Greg Rutkowski"):
        asyncio.run(tools.generate("a {red,green} castle by {Monet,Greg Rutkowsky} --seed 3"))
    with pytest.raises(SfumatoError, match="words.sexual"):
        asyncio.run(tools.edit("photos/0.png", "vary", "naked"))


def test_paths_stay_in_the_folder(tmp_path, capsys) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.png").write_bytes(b"x")
    (tmp_path / "in" / "link.png").symlink_to(tmp_path / "secret.png")
    tools = Tools(tmp_path / "in")
    for path in ("../secret.png", str(tmp_path / "secret.png"), "link.png", "a/../../secret.png"):
        with pytest.raises(SfumatoError, match="outside"):
            asyncio.run(tools.trace(path))
    assert tools._path("--help") == "./--help"  # never an option
    with pytest.raises(SfumatoError, match="region"):
        asyncio.run(tools.edit("x.png", "inpaint", region=[0.5, 0, 0.2, 1]))
    with pytest.raises(SfumatoError, match="no training"):
        asyncio.run(tools.watch_training("nothing"))
    with pytest.raises(SfumatoError, match="no training"):
        asyncio.run(tools.stop_training("nothing"))
    assert main(["mcp", "--folder", str(tmp_path / "none")]) == 2
    assert "no such folder" in capsys.readouterr().err
