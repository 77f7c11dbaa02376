"""The tools that an assistant gets over the Model Context Protocol: each is one of our commands, in a process of its own.

Folders are audited and trained on where they lie, which a server over HTTP rightly refuses; so the tools work on this machine,
without a server, and say exactly what the commands say.
"""

from __future__ import annotations

import asyncio
import functools
import io
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from PIL import Image, ImageDraw

from sfumato.core import SfumatoError
from sfumato.data.audit.declared import receipt_of
from sfumato.data.files import write_text
from sfumato.data.picture import Unusable, opened
from sfumato.data.records import shown
from sfumato.serve.policy import Rules, check
from sfumato.tasks.prompt import parse
from sfumato.tasks.receipt import encoded
from sfumato.tasks.shipped import find
from sfumato.tasks.verify import verify as examined
from sfumato.train import Run

if TYPE_CHECKING:
    from mcp.server.mcpserver import MCPServer

ABOUT = """Sfumato draws pictures with diffusion models that were trained on this machine, and trains them. Files are named
relative to its folder. Long works: start_training answers at once, watch_training says how it goes."""
LINE = 2000  # letters of a message that are kept
LONGEST = 60  # seconds that watch_training may wait
SHOWN = 1024  # pixels of the longer side of a picture that is sent to the assistant

Told = dict[str, Any]


class Tools:
    """Our commands as tools; `folder` is where files are read and written, nothing outside it is touched.

    With `rules`, prompts that they refuse are not drawn.
    """

    def __init__(self, folder: Path, model: str | None = None, rules: Rules | None = None) -> None:
        self.folder, self.model, self.rules = folder.resolve(), model, rules
        if not self.folder.is_dir():
            raise SfumatoError(f"--folder {shown(folder)}: there is no such folder")
        if model is not None and not (self.folder / model).exists():
            find(model)
        self.turn = asyncio.Lock()  # one command at a time: they all want the whole machine

    async def list_models(self, folder: str = ".") -> Told:
        """The models that come with the package, and the trained ones among the folders of `folder`."""
        return await self._run("models", self._path(folder))

    async def generate(
        self,
        prompt: str,
        model: str | None = None,
        n: int = 4,
        seed: int | None = None,
        style: str | None = None,
        no: str | None = None,
        size: str | None = None,
        steps: int | None = None,
        guidance: float | None = None,
    ) -> list[Any]:
        """Draw what a sentence says. The prompt may hold options: --ar 3:2 --no text --seed 7 --chaos 30 --stylize 200.

        `no` is what should not be seen, `size` WxH in pixels; the same seed gives the same pictures. Answers with the facts,
        the files that were written, and the pictures in one grid.
        """
        self._judge(line.text for line in parse(prompt))
        given = {"n": n, "seed": seed, "style": style, "no": no, "size": size, "steps": steps, "guidance": guidance}
        chosen = self._model(model)
        options = ["--model", chosen] if chosen else []
        told = await self._run("generate", f" {prompt}", *options, *_flags(given), "--out", self._new("drawn"))
        return [told, *(_small(self.folder / one["grid"]) for one in told["pictures"])]

    async def edit(
        self,
        image: str,
        how: Literal["inpaint", "outpaint", "vary"],
        prompt: str | None = None,
        model: str | None = None,
        region: list[float] | None = None,
        zoom: float = 1.5,
        strength: float = 0.5,
        n: int = 1,
        seed: int | None = None,
    ) -> list[Any]:
        """Change a picture file. inpaint draws `region` anew: [left, top, right, bottom] in shares of the sides, 0 to 1; every
        pixel outside stays. outpaint carries the picture on beyond its edges, `zoom` times as wide and high. vary draws the
        whole again; `strength` 0 is the picture itself, 1 a new one.
        """
        path = self._path(image)
        options: list[str] = []
        if how == "inpaint":
            mask = Path(self._new("mask"))
            _mask(self.folder / path, region).save(self.folder / mask)
            options = ["--mask", str(mask)]
        elif how == "outpaint":
            options = ["--zoom", str(zoom)]
        else:
            options = ["--strength", str(strength)]
        return await self._edited(how, path, model, {"prompt": prompt, "n": n, "seed": seed}, options)

    async def upscale(
        self, image: str, scale: Literal[2, 4] = 2, prompt: str | None = None, model: str | None = None
    ) -> list[Any]:
        """Make a picture file 2 or 4 times as large; brought back to its size it is the same picture."""
        return await self._edited("upscale", self._path(image), model, {"scale": scale, "prompt": prompt}, [])

    async def audit(self, folder: str, text: int | None = None) -> Told:
        """What is wrong with a folder of pictures before one trains on it: copies, torn files, AI-made ones, captions.

        `text` looks for text and watermarks in so many of them too, which takes about a second each.
        """
        return await self._run("audit", self._path(folder), *_flags({"text": text}))

    async def start_training(
        self,
        source: str,
        run: str,
        minutes: float = 5,
        size: int | None = None,
        recipe: str | None = None,
        seed: int | None = None,
    ) -> Told:
        """Begin to train a model on a folder of pictures (or a named set: digits, emoji, icons); `run` is a new folder for it.

        It goes on when this conversation ends. watch_training says how it goes.
        """
        place = self.folder / self._path(run)
        given = self._path(source) if (self.folder / source).exists() else source
        if place.exists():
            raise SfumatoError(f"{shown(run)} exists already: give the run a new name")
        if "/" in given and not (self.folder / given).exists():
            raise SfumatoError(f"there is no {shown(given)} in {shown(self.folder)}")
        options = _flags({"minutes": minutes, "size": size, "recipe": recipe, "seed": seed})
        place.parent.mkdir(parents=True, exist_ok=True)
        with _log(place).open("wb") as log:
            process = subprocess.Popen(
                _command("train", given, "--run", str(place), *options),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        write_text(_note(place), json.dumps({"pid": process.pid, "started": time.time(), "minutes": minutes}))
        return {"run": run, "minutes": minutes, "pid": process.pid}

    async def watch_training(self, run: str, wait: float = 0) -> list[Any]:
        """How a training goes, after waiting up to 60 seconds: whether it runs, its newest losses and quality, a preview."""
        place = self.folder / self._path(run)
        if not _note(place).is_file() and not place.is_dir():
            raise SfumatoError(f"there is no training {shown(run)}")
        end = time.monotonic() + min(max(wait, 0.0), LONGEST)
        while _running(place) and time.monotonic() < end:
            await asyncio.sleep(0.25)
        rows, meter = _rows(place, "log"), _rows(place, "meter")
        told = {
            "run": run,
            "running": _running(place),
            "rows": len(rows),
            "first": rows[0] if rows else None,
            "newest": rows[-1] if rows else None,
            "quality": meter[-1] if meter else None,
            "line": _last_line(_log(place)),
        }
        preview = max((place / "previews").glob("*.png"), default=None)
        return [told, *([] if preview is None else [_small(preview)])]

    async def stop_training(self, run: str) -> Told:
        """Ask a training to end; what it has learned is kept."""
        place = self.folder / self._path(run)
        if not _running(place):
            raise SfumatoError(f"no training {shown(run)} is running")
        os.kill(json.loads(_note(place).read_text())["pid"], 2)
        return {"run": run, "stopping": True}

    async def trace(self, image: str, run: str | None = None) -> Told:
        """The training pictures nearest to a picture, and whether it is a copy of one."""
        options = [] if run is None else ["--run", self._path(run)]
        return await self._run("trace", self._path(image), *options)

    async def verify(self, image: str) -> Told:
        """Where a picture file comes from: by which model it was made, from what words and seed, whether it was changed.

        Anybody can take marks out of a file, or write some: none found does not mean that a picture is not AI-made.
        """
        verdict = examined(self.folder / self._path(image))
        return {"image": image, "found": verdict.found, "receipt": verdict.receipt, "words": list(verdict.words)}

    async def _edited(self, how: str, path: str, model: str | None, given: Told, options: Sequence[str]) -> list[Any]:
        self._judge(filter(None, [given["prompt"]]))
        chosen = self._model(model)
        if chosen is None:
            raise SfumatoError("say which model: a run folder, an exported file, or a name of list_models")
        new = f"{self._new(how)}.png"
        told = await self._run(how, chosen, "--image", path, *options, *_flags(given), "--out", new)
        return [told, _small(self.folder / told["out"])]

    async def _run(self, command: str, *arguments: str) -> Told:
        """What a command says in JSON; SfumatoError with its own words where it fails; it ends when nobody waits for it."""
        async with self.turn:
            process = await asyncio.create_subprocess_exec(
                *_command(command, *arguments),
                cwd=self.folder,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            try:
                out, said = await process.communicate()
            finally:
                if process.returncode is None:
                    process.kill()
        lines = [line for line in said.decode("utf-8", "replace").replace("\r", "\n").splitlines() if line.strip()]
        if process.returncode not in (0, 1) or not out.strip():  # 1: an audit found faults
            raise SfumatoError((lines or [f"exit code {process.returncode}"])[-1][-LINE:])
        return json.loads(out.decode("utf-8").splitlines()[-1])

    def _judge(self, prompts: Iterable[str]) -> None:
        for prompt in prompts if self.rules is not None else ():
            verdict = check(prompt, self.rules)
            if not verdict.allowed:
                raise SfumatoError(verdict.message)

    def _path(self, name: str) -> str:
        """A path inside the folder, relative to it; never one that could be read as an option."""
        found = (self.folder / name).resolve()
        if not found.is_relative_to(self.folder):
            raise SfumatoError(f"{shown(name)} lies outside {shown(self.folder)}, the folder of this server")
        return f"./{found.relative_to(self.folder)}"

    def _model(self, name: str | None) -> str | None:
        """A model of the folder, or the name of a shipped one; the server's own one where nothing is said."""
        if name is None:
            return self.model
        return self._path(name) if (self.folder / name).exists() else name.lstrip("-")

    def _new(self, what: str) -> str:
        (self.folder / "pictures").mkdir(exist_ok=True)
        return f"./pictures/{what}-{secrets.token_hex(4)}{'.png' if what in ('drawn', 'mask') else ''}"


TOOLS: tuple[Callable[..., Any], ...] = (
    Tools.list_models,
    Tools.generate,
    Tools.edit,
    Tools.upscale,
    Tools.audit,
    Tools.start_training,
    Tools.watch_training,
    Tools.stop_training,
    Tools.trace,
    Tools.verify,
)


def server_of(tools: Tools) -> MCPServer:
    """The MCP server of these tools; SfumatoError where the extra is not installed."""
    try:
        from mcp.server.mcpserver import Image as Sent
        from mcp.server.mcpserver import MCPServer
        from mcp.server.mcpserver.exceptions import ToolError
    except ImportError as error:
        raise SfumatoError("assistants need the package mcp: pip install 'sfumato[mcp]'") from error

    def told(function: Callable[..., Any]) -> Callable[..., Any]:
        method = getattr(tools, function.__name__)

        @functools.wraps(method)
        async def call(**arguments: Any) -> Any:
            try:
                found = await method(**arguments)
            except (SfumatoError, OSError) as error:
                raise ToolError(str(error)) from error
            parts = found if isinstance(found, list) else [found]
            return [Sent(data=p, format="png") if isinstance(p, bytes) else json.dumps(p) for p in parts]

        return call

    server = MCPServer("sfumato", instructions=ABOUT)
    for function in TOOLS:
        server.add_tool(told(function), structured_output=False)
    return server


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "sfumato", *arguments, "--json"]


def _flags(given: Told) -> list[str]:
    """--name=value of what is said: a value that begins with a dash stays a value."""
    return [f"--{name}={value}" for name, value in given.items() if value is not None]


def _small(path: Path) -> bytes:
    """The picture as an assistant sees it: PNG of at most SHOWN pixels a side, with its receipt where it has one."""
    image, told = opened(path), receipt_of(path.read_bytes())
    image.thumbnail((SHOWN, SHOWN))
    if told is not None:
        return encoded(image, {name: value for name, value in told.items() if name != "pixels"})
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def _mask(path: Path, region: list[float] | None) -> Image.Image:
    """White where the picture is to be drawn anew."""
    if region is None or len(region) != 4:
        raise SfumatoError(
            "inpaint needs region: [left, top, right, bottom] in shares of the sides, e.g. [0.5, 0, 1, 1]"
        )
    left, top, right, bottom = region
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise SfumatoError(f"region is [left, top, right, bottom] with 0 <= left < right <= 1, not {region}")
    try:
        width, height = opened(path).size
    except Unusable as error:
        raise SfumatoError(f"{shown(path.name)} is no picture that can be read: {error}") from error
    mask = Image.new("L", (width, height))
    box = (round(left * width), round(top * height), round(right * width) - 1, round(bottom * height) - 1)
    ImageDraw.Draw(mask).rectangle(box, fill=255)
    return mask


def _log(run: Path) -> Path:
    return run.with_name(f"{run.name}.log")


def _note(run: Path) -> Path:
    return run.with_name(f"{run.name}.started.json")


def _running(run: Path) -> bool:
    """Whether the training that we began is still there, and no other process has its number."""
    try:
        pid = json.loads(_note(run).read_text())["pid"]
        try:
            if os.waitpid(pid, os.WNOHANG)[0] == pid:  # our own child, ended
                return False
        except ChildProcessError:
            os.kill(pid, 0)
        told = Path(f"/proc/{pid}/cmdline")
        return not told.exists() or run.name.encode() in told.read_bytes()
    except (OSError, ValueError, KeyError):
        return False


def _rows(run: Path, name: str) -> list[Told]:
    try:
        return Run(run).rows(name)
    except (SfumatoError, OSError):
        return []


def _last_line(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(path.stat().st_size - LINE, 0))
            lines = file.read().decode("utf-8", "replace").replace("\r", "\n").split("\n")
    except OSError:
        return ""
    return next((line[-300:] for line in reversed(lines) if line.strip()), "")
