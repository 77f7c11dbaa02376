"""Arguments, errors and exit codes: 0 done, 1 faults found (audit), 2 bad input (one line on stderr), 130 interrupted."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

from sfumato.cli.doors import add_doors
from sfumato.cli.editing import TEXTS, add_editing
from sfumato.core import SfumatoError


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        self.exit(2, f"sfumato: {message}; see '{self.prog} --help'\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="sfumato", description="Diffusion models from a folder of your own pictures.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)

    def command(name: str, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.add_argument("--json", action="store_true", help="print one JSON object on the last line of stdout")
        return added

    def beginning(added: argparse.ArgumentParser) -> None:
        """What every command has that begins a run with a trained model."""
        added.add_argument("--run", required=True, metavar="DIR", help="the new run folder")
        budget = added.add_mutually_exclusive_group()
        budget.add_argument("--minutes", type=float, metavar="M", help="minutes of training (5 when nothing is said)")
        budget.add_argument("--steps", type=int, metavar="N", help="steps of training")
        added.add_argument("--seed", type=int, metavar="S", help="seed of order and noise (the model's own)")
        added.add_argument("--resume", action="store_true", help="go on with the run of this folder")
        added.add_argument(
            "--set", action="append", default=[], metavar="KEY=VALUE", help="change the recipe, e.g. batch=64"
        )

    train = command("train", "Train a model on a folder of pictures or a named set, and write a report.")
    train.add_argument(
        "source", help="a folder, shards, a table of paths, or digits, fashion-mnist, emoji, emoji-people, icons"
    )
    train.add_argument("--run", required=True, metavar="DIR", help="the run folder")
    train.add_argument("--size", type=int, metavar="N", help="side of the pictures in pixels")
    train.add_argument(
        "--buckets",
        type=int,
        nargs="?",
        const=5,
        metavar="N",
        help="up to N picture shapes of about size x size instead of the square (5 when no N is given)",
    )
    budget = train.add_mutually_exclusive_group()
    budget.add_argument("--minutes", type=float, metavar="M", help="minutes of training (5 when nothing is said)")
    budget.add_argument("--steps", type=int, metavar="N", help="steps of training")
    train.add_argument(
        "--recipe", metavar="NAME", help="default, transformer, text, icons, canvas, words, ddpm, score, edm"
    )
    train.add_argument("--seed", type=int, metavar="S", help="seed of weights, order and noise (0)")
    train.add_argument("--resume", action="store_true", help="go on with the run of this folder")
    train.add_argument(
        "--balance",
        metavar="RULE",
        help="how often classes are drawn: equal, temperature=T, effective=BETA, column=NAME",
    )
    train.add_argument(
        "--ai-made", metavar="RULE", help="AI-made pictures: refuse, cap=SHARE of all draws, or allow (allow)"
    )
    train.add_argument("--captions", metavar="FILE.json", help="rules that shuffle and expand captions")
    train.add_argument(
        "--encoder",
        metavar="minilm|DIR",
        help="read captions by a frozen T5, ByT5, CLIP or BERT (a language of its own)",
    )
    train.add_argument(
        "--slots",
        metavar="NAMES",
        help="what the model is told, by commas: class, style, text, and controls of known, lowres, sketch, classes, boxes",
    )
    train.add_argument("--start", metavar="RUN|FILE", help="begin with what this model has learned, its slots and more")
    train.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change the recipe, e.g. batch=64"
    )

    adapt = command("adapt", "Go on training a model on your own pictures: its weights, your style.")
    adapt.add_argument("model", help="run folder or exported .safetensors file")
    adapt.add_argument("source", help="20 to 500 pictures with captions: a folder, shards, a table, or a named set")
    beginning(adapt)
    adapt.add_argument("--captions", metavar="FILE.json", help="rules that shuffle and expand captions")
    for training in (train, adapt):
        training.add_argument(
            "--copies", choices=["stop", "allow"], help="what to do when pictures begin to be copies of the data (stop)"
        )

    distill = command("distill", "Tune a trained model into one that draws in 1 to 4 calls.")
    distill.add_argument("model", help="run folder or exported .safetensors file")
    beginning(distill)
    distill.add_argument("--source", metavar="SOURCE", help="pictures (those that the run folder was trained on)")
    distill.add_argument("--guidance", type=float, default=1.0, metavar="W", help="guidance to be learned in (1: none)")
    distill.add_argument("--calls", type=int, default=4, metavar="N", help="calls per picture when nothing is said (4)")

    neon = command("neon", "Let a model learn from its own pictures, and move its weights the other way.")
    neon.add_argument("model", help="run folder or exported .safetensors file")
    beginning(neon)
    neon.add_argument("--source", metavar="SOURCE", help="real pictures to judge by (those of the run folder)")
    neon.add_argument(
        "--n",
        type=int,
        default=1000,
        metavar="N",
        help="pictures it draws, to learn from and each time to judge by (1000)",
    )

    calibrate = command("calibrate", "Choose the times of few-call sampling for a model, and keep them with it.")
    calibrate.add_argument("model", help="run folder or exported .safetensors file")
    calibrate.add_argument("--steps", type=int, nargs="+", default=[8, 10], metavar="N", help="numbers of steps (8 10)")
    calibrate.add_argument("--solver", metavar="NAME", help="the solver they are for (dpmpp2m)")
    calibrate.add_argument("--guidance", type=float, default=1.0, metavar="W", help="the guidance they are for (1)")

    generate = command("generate", "Draw what a sentence says: a grid of four, and the single pictures.")
    generate.add_argument(
        "prompt", help="what to draw; options may stand behind it (--ar 3:2 --no x --seed 7), {a,b} is two prompts"
    )
    generate.add_argument(
        "--model", metavar="RUN|FILE|NAME", help="run folder, exported file or shipped model (the default one)"
    )
    generate.add_argument("--n", type=int, help="pictures (4)")
    generate.add_argument("--seed", type=int, help="the same seed, the same pictures (drawn anew)")
    generate.add_argument("--style", metavar="NAME", help="one of the model's styles")
    generate.add_argument("--size", metavar="WxH", help="width and height in pixels (those of most training pictures)")
    generate.add_argument("--no", metavar="TEXT", help="what should not be seen")
    generate.add_argument("--steps", type=int, help="moves from noise to data (18, or what the model was made for)")
    generate.add_argument("--guidance", type=float, metavar="W", help="how closely to keep to the words; 1 = none (3)")
    generate.add_argument("--chaos", type=int, metavar="0..100", help="how unlike each other the pictures may be (0)")
    generate.add_argument("--stylize", type=int, metavar="0..1000", help="guidance by another name: 100 is 3")
    revising = generate.add_mutually_exclusive_group()
    revising.add_argument("--no-revise", action="store_true", help="take the prompt as it is")
    revising.add_argument("--revise", metavar="URL", help="let a chat endpoint (OpenAI's protocol) revise the prompt")
    generate.add_argument("--out", metavar="FILE.png|DIR", help="the grid; the single pictures go beside it")

    add_editing(command)
    add_doors(command)

    listing = command("models", "The models that come with the package, and your runs.")
    listing.add_argument("folder", nargs="?", default="runs", help="the folder that holds run folders (runs)")

    serving = command(
        "serve", "Serve models to other programs: the interfaces of OpenAI, A1111 and Imagen, and a queue."
    )
    serving.add_argument(
        "models", nargs="*", metavar="MODEL", help="run folders, exported files or shipped models (all)"
    )
    serving.add_argument("--host", default="127.0.0.1", help="the address to listen on (127.0.0.1: this machine alone)")
    serving.add_argument("--port", type=int, default=7860, help="the port (7860; 0: any that is free)")
    serving.add_argument(
        "--token", metavar="T", help="what callers must know; needed for addresses beyond this machine"
    )
    serving.add_argument(
        "--allow", metavar="DIR", action="append", default=[], help="a folder that may be audited and trained on"
    )
    serving.add_argument(
        "--name", metavar="HOST", action="append", default=[], help="what callers may call this machine; repeat it"
    )
    serving.add_argument("--policy", metavar="FILE.json", help="rules of the owner, on top of the package's")
    serving.add_argument("--data", metavar="DIR", default="sfumato-data", help="where jobs and pictures are kept")

    sample = command("sample", "Draw pictures from a run folder or an exported file.")
    sample.add_argument("run", help="run folder or exported .safetensors file")
    sample.add_argument("--n", type=int, default=16, help="how many (16)")
    sample.add_argument("--seed", type=int, default=0)
    sample.add_argument("--steps", type=int, help="moves from noise to data (18, or what the model was made for)")
    sample.add_argument("--solver", metavar="NAME", help="dpmpp2m, or what the model was made for")
    sample.add_argument(
        "--grid", metavar="NAME", help="flow, or what the model was made for; calibrated: its own times"
    )
    sample.add_argument("--guidance", type=float, default=1.0, metavar="W", help="classifier-free guidance, 1 = none")
    sample.add_argument(
        "--autoguidance", type=float, default=1.0, metavar="W", help="away from the model's own early self, 1 = none"
    )
    sample.add_argument("--class", dest="class_name", metavar="NAME")
    sample.add_argument("--style", metavar="NAME")
    sample.add_argument("--prompt", metavar="TEXT")
    sample.add_argument("--shape", metavar="WxH", help="width and height in pixels (the shape of most pictures)")
    for drawing in (sample, generate):
        drawing.add_argument(
            "--original", metavar="WxH", help="as if the picture came in this size, for a model that was told sizes"
        )
    sample.add_argument("--ema", type=float, metavar="WIDTH", help="relative width of the averaged weights")
    sample.add_argument("--out", required=True, metavar="FILE.png|DIR", help="one grid, or a folder of single pictures")

    measure = command("measure", "Measure a model, or a set of pictures, against real pictures it has not seen.")
    measure.add_argument("run", help="run folder, exported .safetensors file, or a set of pictures")
    measure.add_argument("--against", required=True, metavar="SOURCE")
    measure.add_argument("--n", type=int, metavar="N", help="generated pictures (1000), or pictures of the set (all)")
    measure.add_argument("--curve", action="store_true", help="measure the stored averages of the run too")
    measure.add_argument(
        "--bits", type=int, nargs="?", const=64, metavar="N", help="bits per dimension of N held-out pictures too (64)"
    )
    measure.add_argument("--weights", metavar="FILE.safetensors", help="see through FID's Inception network instead")
    measure.add_argument("--size", type=int, metavar="N", help="side at which two sets of pictures are compared")

    rival = command(
        "compare", "Train diffusion and a GAN, equal weights and equal time, and report who is better at what."
    )
    rival.add_argument("source", help="a folder, shards, a table, or the name of a set")
    rival.add_argument("--minutes", type=float, required=True, metavar="M", help="training of each, for every seed")
    rival.add_argument("--seeds", type=int, default=3, metavar="N", help="how often each is trained (3)")
    rival.add_argument("--size", type=int, metavar="N", help="side of the pictures in pixels")
    rival.add_argument("--n", type=int, default=1000, help="pictures measured of each run (1000)")
    rival.add_argument("--out", metavar="DIR", help="folder of the comparison (compare-SOURCE)")
    rival.add_argument("--resume", action="store_true", help="go on with the comparison of this folder")
    rival.add_argument("--modes", action="store_true", help="a second round on a stacked set of up to 1,000 modes")
    rival.add_argument("--vae", action="store_true", help="a variational autoencoder as third column")
    rival.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change diffusion's recipe")
    rival.add_argument(
        "--gan", action="append", default=[], metavar="KEY=VALUE", help="change the GAN's, e.g. gamma=0.5"
    )

    trace = command("trace", "Show the training pictures nearest to a picture, and say whether it is a copy.")
    trace.add_argument("file", help="a single picture, made by a model or not")
    trace.add_argument("--run", metavar="RUN", help="the run folder, where the picture's mark does not lead to it")
    trace.add_argument("--out", metavar="FILE.png", help="draw the picture and its neighbours side by side")

    doctor = command("doctor", "What this machine can do, and whether a run is healthy.")
    doctor.add_argument("run", nargs="?", help="a run folder")

    export = command("export", "Write a model as one file that sfumato.load() reads anywhere.")
    export.add_argument("run", help="run folder")
    export.add_argument("--to", required=True, metavar="FILE.safetensors")
    export.add_argument("--ema", type=float, metavar="WIDTH", help="relative width of the averaged weights")
    export.add_argument("--with-weak", action="store_true", help="with the early average too, for --autoguidance")
    export.add_argument("--half", action="store_true", help="the weights in bfloat16: half the size")

    card = command("card", "Write the model card of a run: its data, training, measured quality, licence and energy.")
    card.add_argument("run", help="run folder")
    card.add_argument(
        "--licence", metavar="TEXT", help="licence of the data, where the data do not state it; it is kept"
    )
    card.add_argument("--watts", type=float, metavar="W", help="what the machine draws while it trains; it is kept")

    board = command("tensorboard", "Write the curves and previews of a run for TensorBoard.")
    board.add_argument("run", help="run folder")
    board.add_argument("--to", metavar="DIR", help="a new folder for the events (RUN/tensorboard)")

    verify = command("verify", "Say where a picture file comes from, by its marks (exit code 1: none, or untrue ones).")
    verify.add_argument("file", help="a picture")

    again = command("reproduce", "Make a picture again from its receipt (exit code 1: it is not the same).")
    again.add_argument("file", help="a picture that a model of ours made")
    again.add_argument(
        "--model", metavar="MODEL", help="run folder, exported file or name, where the receipt's is not found"
    )
    again.add_argument(
        "--parent", action="append", default=[], metavar="FILE", help="a picture that an edit was made from"
    )
    again.add_argument("--out", metavar="FILE.png", help="write the picture as it is drawn now")

    audit = command("audit", "What is wrong with a set of pictures, and what would put it right (exit code 1: faults).")
    audit.add_argument("source", help="a folder, shards, a table, or the name of a set")
    audit.add_argument("--report", metavar="FILE.html", help="write a page with thumbnails of what is wrong")

    audit.add_argument(
        "--text",
        type=int,
        nargs="?",
        const=0,
        metavar="N",
        help="look for text and watermarks too, in N pictures spread over the set (all when no N is given): about 1 s each",
    )

    clean = command("clean", "Make a cleaned set beside the source, by a plan that can be read, edited and undone.")
    clean.add_argument("source", help="what 'sfumato audit' reads, but no named set; it is never changed")
    clean.add_argument(
        "--out", required=True, metavar="DIR", help="the cleaned set; its plan is written to DIR.plan.json"
    )
    clean.add_argument("--only", nargs="+", metavar="KIND", help="kinds of faults to put right (all that can be)")
    clean.add_argument("--undo", action="store_true", help="put everything in DIR back as it was in the source")

    get = command("data", "Make a picture set on this machine from packages that npm (or pip) fetches, once.")
    get.add_argument("action", choices=["get"])
    get.add_argument("set", choices=["emoji"], help="emoji: captioned icons in many styles, the source 'icons'")
    get.add_argument(
        "--styles", nargs="+", metavar="STYLE", help="which styles (the five under Apache and MIT licences)"
    )
    get.add_argument("--size", type=int, default=64, metavar="N", help="side of the pictures in pixels (64)")

    pack = command("pack", "Write a set of pictures as WebDataset shards, the pictures' own bytes unchanged.")
    pack.add_argument("source", help="a folder, .csv or .jsonl of paths, .tar or .parquet shards, ...")
    pack.add_argument("--out", required=True, metavar="DIR", help="a new folder for the shards")
    pack.add_argument("--shard-size", type=float, default=256, metavar="MB", help="largest shard in megabytes (256)")
    return parser


def _command(name: str) -> Callable[[argparse.Namespace], dict[str, Any]]:
    # imported when asked for, so that --help and mistakes answer at once
    if name == "train":
        from sfumato.cli.train import train as found
    elif name == "generate":
        from sfumato.cli.generate import generate as found
    elif name in TEXTS:
        from sfumato.cli.edit import edit as found
    elif name == "models":
        from sfumato.cli.models import models as found
    elif name == "serve":
        from sfumato.cli.serve import serve as found
    elif name == "sample":
        from sfumato.cli.sample import sample as found
    elif name == "adapt":
        from sfumato.cli.adapt import adapt as found
    elif name == "distill":
        from sfumato.cli.distill import distill as found
    elif name == "neon":
        from sfumato.cli.neon import neon as found
    elif name == "calibrate":
        from sfumato.cli.calibrate import calibrate as found
    elif name == "measure":
        from sfumato.cli.measure import measure as found
    elif name == "doctor":
        from sfumato.cli.doctor import doctor as found
    elif name == "compare":
        from sfumato.cli.compare import compare as found
    elif name in ("verify", "reproduce"):
        from sfumato.cli import verify as origin

        found = getattr(origin, name)
    elif name == "trace":
        from sfumato.cli.trace import trace as found
    elif name == "tensorboard":
        from sfumato.cli.tensorboard import tensorboard as found
    elif name == "card":
        from sfumato.cli.card import card as found
    elif name == "audit":
        from sfumato.cli.audit import run_audit as found
    elif name == "clean":
        from sfumato.cli.clean import clean as found
    elif name == "data":
        from sfumato.cli.data import data as found
    elif name == "pack":
        from sfumato.cli.pack import pack as found
    elif name == "policy":
        from sfumato.cli.policy import policy as found
    elif name == "bot":
        from sfumato.cli.bot import bot as found
    elif name == "mcp":
        from sfumato.cli.assistant import assistant as found
    else:
        from sfumato.cli.sample import export as found
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        result = _command(options.command)(options)
    except SfumatoError as error:
        print(f"sfumato {options.command}: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # a disk that fills up or a folder that goes away may strike anywhere
        where = f" ({error.filename})" if error.filename else ""
        print(f"sfumato {options.command}: {error.strerror or error}{where}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"sfumato {options.command}: interrupted", file=sys.stderr)
        return 130
    code = result.pop("exit_code", 0)
    if options.json:
        print(json.dumps(result))
    return code


if __name__ == "__main__":
    sys.exit(main())
