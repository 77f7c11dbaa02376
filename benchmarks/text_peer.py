"""The peer of text to picture: diffusers' UNet2DConditionModel trained from zero on the same pictures and captions.

The recipe is that of diffusers' examples/text_to_image/train_text_to_image.py: noise prediction, Stable Diffusion's betas
(scaled linear, 0.00085 to 0.012, 1,000 steps), AdamW (0.9, 0.999) at a constant 1e-4, decay 0.01, batch 16, clipping at 1,
mixed precision, EMA by diffusers' EMAModel. Different because nothing is pretrained here: pixels in place of latents; a
text encoder that is learned along (words hashed into a table, two transformer layers) in place of CLIP; the style as
the UNet's own class embedding; captions and styles dropped one time in ten, so that guidance works. No mirroring.

    python -m benchmarks.text_peer --like RUN --minutes 60 --out FOLDER     stopped, the same command goes on
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from benchmarks import common
from benchmarks.peers import parameters
from sfumato.core import Noise
from sfumato.data import Source
from sfumato.data import text as words_of

FILE = "peer.safetensors"
STEPS = 25  # of DPM-Solver++
WORDS, VOCABULARY, TEXT_WIDTH = 77, 8192, 256  # captions are cut at 77 words, as CLIP's are at 77 tokens
DROP = 0.1
SAVE_SECONDS = 120.0
BETAS = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def word_ids(captions: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Captions -> ids int64 [B, N] and mask bool [B, N], N the longest, at most WORDS; a caption without words has one empty
    place, which attention needs."""
    rows = [words_of.words(caption)[:WORDS] for caption in captions]
    ids = torch.zeros(len(rows), max([1, *map(len, rows)]), dtype=torch.int64)
    for row, found in enumerate(rows):
        for k, word in enumerate(found):
            hashed = int.from_bytes(blake2b(word.encode(), digest_size=8).digest(), "big")
            ids[row, k] = 1 + hashed % (VOCABULARY - 1)
    mask = ids > 0
    mask[:, 0] = True
    return ids, mask


class TextTower(nn.Module):
    """Hashed words with learned places and two transformer layers: [B, N] -> [B, N, TEXT_WIDTH]."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(VOCABULARY, TEXT_WIDTH)
        self.places = nn.Parameter(torch.randn(WORDS, TEXT_WIDTH) * 0.02)
        layer = nn.TransformerEncoderLayer(
            TEXT_WIDTH, 4, 4 * TEXT_WIDTH, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, 2, nn.LayerNorm(TEXT_WIDTH), enable_nested_tensor=False)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.layers(self.table(ids) + self.places[: ids.shape[1]], src_key_padding_mask=~mask)


def build_net(widths: Sequence[int], size: int, channels: int, styles: int) -> nn.Module:
    """UNet2DConditionModel with attention at the two lowest resolutions, and the text tower: net["unet"], net["text"]."""
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel(
        sample_size=size,
        in_channels=channels,
        out_channels=channels,
        layers_per_block=2,
        block_out_channels=tuple(widths),
        down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=8,
        norm_num_groups=8,
        num_class_embeds=styles + 1,  # the last is "not told"
    )
    return nn.ModuleDict({"unet": unet, "text": TextTower()})


def fitting_widths(wanted: float, size: int, channels: int, styles: int) -> list[int]:
    """Widths w, 2w, 3w, 4w, w a multiple of 8, whose network with its text tower has the number of weights nearest to
    `wanted`."""

    def count(k: int) -> int:
        with torch.device("meta"):
            return parameters(build_net([8 * k, 16 * k, 24 * k, 32 * k], size, channels, styles))

    k = 1
    while k < 64 and count(k + 1) <= wanted:
        k += 1
    best = min((k, k + 1), key=lambda one: abs(count(one) - wanted))
    return [8 * best, 16 * best, 24 * best, 32 * best]


def net_for(facts: dict[str, Any]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(facts["seed"])
        net = build_net(facts["widths"], facts["size"], facts["channels"], len(facts["styles"]))
    return net.to(memory_format=torch.channels_last)


class Trainer:
    """Steps of the recipe; what a step does depends on (seed, step), so that it goes on after a stop as if there were none."""

    def __init__(self, facts: dict[str, Any], source: Source, captions: Any = None) -> None:
        from diffusers import DDPMScheduler
        from diffusers.training_utils import EMAModel

        self.facts, self.source, self.captions = facts, source, captions
        self.net = net_for(facts).train()
        self.noising = DDPMScheduler(**BETAS, prediction_type="epsilon")
        self.optimiser = torch.optim.AdamW(
            self.net.parameters(), lr=facts["rate"], betas=(0.9, 0.999), weight_decay=1e-2, eps=1e-8
        )
        self.ema = EMAModel(self.net.parameters())
        self.step = 0

    def _rows(self, generator_seed: int) -> Tensor:
        index, batch = self.source.train_index, self.facts["batch"]
        epoch, k = divmod(self.step, max(1, len(index) // batch))
        generator = torch.Generator().manual_seed(generator_seed + epoch)
        return index[torch.randperm(len(index), generator=generator)[k * batch : (k + 1) * batch]]

    def train_step(self) -> float:
        seed = self.facts["seed"] * 1_000_003
        rows = self._rows(seed)
        noise_of = Noise.of(self.facts["seed"], len(rows)).at(self.step)
        generator = torch.Generator().manual_seed(noise_of.seeds[0])
        x0 = self.source.batch(rows).x0
        told = _told(self.source, rows, noise_of, self.captions)
        none = torch.rand(2, len(rows), generator=generator) < DROP
        told = ["" if gone else caption for caption, gone in zip(told, none[0].tolist(), strict=True)]
        styles = style_ids(self.source, rows).masked_fill(none[1], len(self.facts["styles"]))
        noise = torch.randn(x0.shape, generator=generator)
        t = torch.randint(0, BETAS["num_train_timesteps"], (len(x0),), generator=generator)
        noised = self.noising.add_noise(x0, noise, t).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.facts["precision"] == "bf16"):
            loss = F.mse_loss(predicted(self.net, noised, t, told, styles).float(), noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.ema.step(self.net.parameters())
        self.step += 1
        return float(loss.detach())

    def save(self, path: Path, seconds: float) -> None:
        """Weights, averages and the optimiser's state in one file, whole or not at all."""
        tensors = {f"net.{k}": v for k, v in self.net.state_dict().items()}
        names = [name for name, _ in self.net.named_parameters()]
        tensors |= {f"ema.{name}": v for name, v in zip(names, self.ema.shadow_params, strict=True)}
        for name, p in self.net.named_parameters():
            tensors |= {f"adam.{key}.{name}": v for key, v in self.optimiser.state[p].items()}
        told = self.facts | {"step": self.step, "seconds": seconds, "images": self.step * self.facts["batch"]}
        told["ema_step"] = self.ema.optimization_step
        scratch = path.with_suffix(".tmp")
        save_file({k: v.contiguous() for k, v in tensors.items()}, scratch, metadata={"peer": json.dumps(told)})
        os.replace(scratch, path)

    def load(self, path: Path) -> float:
        """Go on from a file; returns the seconds it had trained."""
        told, tensors = read_file(path)
        self.net.load_state_dict(_of(tensors, "net."))
        averages = _of(tensors, "ema.")
        self.ema.shadow_params = [averages[name].clone() for name, _ in self.net.named_parameters()]
        self.ema.optimization_step = told["ema_step"]
        for name, p in self.net.named_parameters():
            keys = ("step", "exp_avg", "exp_avg_sq")
            self.optimiser.state[p] = {key: tensors[f"adam.{key}.{name}"].clone() for key in keys}
        self.step = told["step"]
        return told["seconds"]


def _told(source: Source, rows: Tensor, noise: Noise, captions: Any) -> list[str]:
    """The captions of these rows, changed by the same rules as ours are in training."""
    assert source.captions is not None
    plain = [source.captions[k] for k in rows.tolist()]
    if captions is None:
        return plain
    others = source.columns.get("alternatives")
    named = [others[k] if others else () for k in rows.tolist()]
    seeds = noise.at(5).seeds
    return [captions.change(c, Noise([s]), a or ()) for c, s, a in zip(plain, seeds, named, strict=True)]


def style_ids(source: Source, rows: Tensor) -> Tensor:
    """The style of each row, the number of styles where it is unknown."""
    if not source.styles:
        return torch.zeros(len(rows), dtype=torch.int64)
    labels = source.style_labels[rows]
    return torch.where(labels >= 0, labels, len(source.styles))


def predicted(net: nn.Module, x: Tensor, t: Tensor, captions: Sequence[str], styles: Tensor) -> Tensor:
    ids, mask = word_ids(captions)
    told = net["text"](ids, mask)
    return net["unet"](x, t, encoder_hidden_states=told, encoder_attention_mask=mask, class_labels=styles).sample


def read_file(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["peer"]), {k: file.get_tensor(k) for k in file.keys()}


def _of(tensors: dict[str, Tensor], head: str) -> dict[str, Tensor]:
    return {k.removeprefix(head): v for k, v in tensors.items() if k.startswith(head)}


class Peer:
    """A trained peer that draws, with the averaged weights, by DPM-Solver++ in STEPS steps."""

    def __init__(self, folder: Path, guidance: float) -> None:
        from benchmarks.text_models import file_identity, hash_of

        told, tensors = read_file(folder / FILE)
        self.told, self.net = told, net_for(told).eval()
        self.net.load_state_dict(_of(tensors, "ema."))
        self.guidance = guidance
        self.facts: dict[str, Any] = {"kind": "diffusers", "parameters": parameters(self.net)}
        self.facts["drawn"] = {"solver": "DPM-Solver++", "steps": STEPS, "guidance": guidance}
        self.facts["training"] = {k: told[k] for k in ("seconds", "images", "step", "rate", "batch", "precision")}
        self.identity = hash_of([file_identity(folder / FILE), STEPS, guidance])

    @torch.no_grad()
    def draw(self, prompts: Sequence[str], styles: Sequence[str | None], seed: int, first: int = 0) -> Tensor:
        from diffusers import DPMSolverMultistepScheduler

        solver = DPMSolverMultistepScheduler(**BETAS)
        solver.set_timesteps(STEPS)
        known = self.told["styles"]
        ids = torch.tensor([known.index(s) if s in known else len(known) for s in styles])
        told = [*prompts, *[""] * len(prompts)]
        both = torch.cat([ids, torch.full_like(ids, len(known))])
        side = self.told["size"]
        x = Noise.of(seed, len(prompts), first).normal((len(prompts), self.told["channels"], side, side))
        for t in solver.timesteps:
            given, none = predicted(self.net, torch.cat([x, x]), t.expand(2 * len(x)), told, both).chunk(2)
            x = solver.step(none + self.guidance * (given - none), t, x).prev_sample
        return x.clamp(-1, 1)


def train(trainer: Trainer, seconds: float, path: Path) -> None:
    """Train until `seconds` of this process's wall-clock, earlier stops counted, are spent; saved every two minutes."""
    before = trainer.load(path) if path.exists() else 0.0
    began = saved = time.perf_counter()
    last = 0.0
    while before + time.perf_counter() - began < seconds:
        last = trainer.train_step()
        if time.perf_counter() - saved > SAVE_SECONDS:
            saved = time.perf_counter()
            trainer.save(path, before + saved - began)
            common.log(f"step {trainer.step}, loss {last:.4f}, {(before + saved - began) / 60:.1f} min")
    trainer.save(path, before + time.perf_counter() - began)


def main() -> None:
    from sfumato.data.open import open as open_source
    from sfumato.data.open import open_as
    from sfumato.tasks import load

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--like", type=Path, help="a run of ours: its source, size, caption rules and number of weights"
    )
    parser.add_argument("--source", default="icons")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--parameters", type=float, default=11e6, help="weights wanted, text encoder included")
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rate", type=float, default=1e-4)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--precision", choices=("bf16", "float32"), default="bf16")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    wanted, captions = args.parameters, None
    if args.like is not None:
        from sfumato.train import Run

        model, recipe = load(args.like), Run(args.like).recipe()
        wanted, captions = sum(p.numel() for p in model.denoiser.parameters()), recipe.captions
        source = open_as(args.source, model.facts["codec"])
    else:
        source = open_source(args.source, args.size)
    channels, size, _ = source.codec.spec
    facts = {k: getattr(args, k) for k in ("rate", "batch", "precision", "seed")}
    facts |= {"widths": fitting_widths(wanted, size, channels, len(source.styles)), "size": size, "channels": channels}
    facts |= {"styles": list(source.styles), "source": args.source}
    common.keep_memory()
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / FILE
    if path.exists():
        before = read_file(path)[0]
        changed = [k for k in facts if before[k] != facts[k]]
        if changed:
            parser.error(f"{path} was trained with another {', '.join(changed)}: choose another --out")
    trainer = Trainer(facts, source, captions)
    common.log(f"{parameters(trainer.net) / 1e6:.2f} M weights, widths {facts['widths']}")
    train(trainer, 60 * args.minutes, path)
    told = read_file(path)[0]
    print(json.dumps({k: told[k] for k in ("step", "images", "seconds")}))


if __name__ == "__main__":
    main()
