"""Who competes for quality per minute: each trains step by step on the same pictures and draws samples.

A contender is named `NAME` or `NAME:key=value;key=value`; the assignments change its recipe, so one name covers
ablations and honest tuning: `sfumato:batch=64`, `diffusers-fair:optimiser.rate=0.0015;widths=[32,64,128,128]`.
Keys are those of the recipe, and the four of `RUNNING`.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import common, peers
from sfumato.data import Source
from sfumato.data import open as open_source
from sfumato.tasks.sampling import DEFAULTS
from sfumato.train import bf16_pays

# Near our default in size (3.87 M), all with 32x32 inputs of one channel.
DIFFUSERS_WIDTHS = (32, 64, 96, 128)  # 5.20 M
DDP_SHAPE = (24, (1, 2, 4, 8))  # its default multipliers: 5.28 M

# How our recipes are run and sampled; precision "" means: what the one-second probe chooses.
RUNNING = {"precision": ""} | {name: str(value) for name, value in DEFAULTS.items()}

# Our recipe with one thing changed at a time.
ABLATION = tuple(
    f"sfumato:{change}"
    for change in (
        "process=VPLinear;parameterisation=Eps;objective.space=Eps",
        "process=VPCosine;parameterisation=V;objective.space=V",
        "process=EDM;parameterisation=EDMTarget;objective.space=EDMTarget",
        "parameterisation=X0",
        "times=UniformTimes",
        "batch=16",
        "batch=64",
        "optimiser.rate=0.0005",
        "optimiser.rate=0.003",
        "optimiser.decay=0",
        "net.widths=[24,48,96,144]",
        "net.widths=[48,96,192,288]",
        "net=TransformerConfig",
        "ema.width=0.05",
        "ema.width=0.2",
        "precision=float32",
        "solver=ddim;grid=uniform;steps=50",
    )
)


class Contender(Protocol):
    """Prepare costs nothing of the budget; `step` is called until the budget of CPU-seconds is spent."""

    images: int
    net: nn.Module
    sampler: str
    settings: dict[str, Any]

    def prepare(self, seed: int, budget: float) -> None: ...
    def step(self) -> float: ...
    def sample(self, n: int, seed: int, fast: bool) -> Tensor: ...


def pictures() -> Source:
    """Fashion-MNIST laid in 32x32, without its classes."""
    return replace(open_source("fashion-mnist", size=32), classes=(), labels=None)


class _Peer:
    """Rows in random order without repeats within an epoch, and sampling in the peer's own or in the fast setting."""

    images = 0
    batch: int
    net: nn.Module

    def _data(self, seed: int) -> None:
        self.source = pictures()
        self.generator = torch.Generator().manual_seed(seed)
        self.order = torch.empty(0, dtype=torch.int64)
        torch.manual_seed(seed)

    def _rows(self) -> Tensor:
        """The next batch [B, 1, 32, 32] in [-1, 1]."""
        if len(self.order) < self.batch:
            index = self.source.train_index
            self.order = index[torch.randperm(len(index), generator=self.generator)]
        rows, self.order = self.order[: self.batch], self.order[self.batch :]
        self.images += self.batch
        return self.source.batch(rows).x0

    @contextlib.contextmanager
    def _setting(self, net: nn.Module, fast: bool) -> Iterator[None]:
        """channels_last, and bf16 where it pays, when `fast`: the same for all contenders; spares the benchmark hours."""
        net.eval()
        if fast:
            net.to(memory_format=torch.channels_last)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=fast and bf16_pays()):
            yield


class DiffusersRecipe(_Peer):
    """UNet2DModel with the defaults of diffusers' examples/unconditional_image_generation/train_unconditional.py.

    DDPM with linear betas and 1,000 steps, noise prediction, batch 16, AdamW (0.95, 0.999), decay 1e-6, rate 1e-4 after
    500 steps of warm-up, cosine over 100 epochs, clipping at 1, EMA with warm-up to 0.9999, fp32. Sampled by
    DPM-Solver++ with 25 steps (the example's own DDPM sampler would take 1,000).
    """

    batch = 16
    sampler = "DPMSolverMultistepScheduler, 25 steps"

    def __init__(self) -> None:
        self.settings = {"widths": list(DIFFUSERS_WIDTHS), "batch": 16, "rate": 1e-4, "precision": "fp32"}

    def prepare(self, seed: int, budget: float) -> None:
        from diffusers import DDPMScheduler
        from diffusers.optimization import get_scheduler
        from diffusers.training_utils import EMAModel

        self._data(seed)
        self.net = peers.Diffusers(DIFFUSERS_WIDTHS, channels=1).train()
        self.noising = DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear", prediction_type="epsilon")
        self.optimiser = torch.optim.AdamW(
            self.net.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8
        )
        steps = 100 * len(self.source.train_index) // self.batch
        self.schedule = get_scheduler("cosine", self.optimiser, num_warmup_steps=500, num_training_steps=steps)
        self.ema = EMAModel(
            self.net.parameters(), decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=3 / 4, model_cls=None
        )

    def step(self) -> float:
        x0 = self._rows()
        noise = torch.randn_like(x0)
        t = torch.randint(0, 1000, (len(x0),))
        loss = F.mse_loss(self.net(self.noising.add_noise(x0, noise, t), t), noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimiser.step()
        self.schedule.step()
        self.ema.step(self.net.parameters())
        self.optimiser.zero_grad()
        return loss.item()

    def sample(self, n: int, seed: int, fast: bool) -> Tensor:
        from diffusers import DPMSolverMultistepScheduler

        self.ema.store(self.net.parameters())
        self.ema.copy_to(self.net.parameters())
        solver = DPMSolverMultistepScheduler.from_config(self.noising.config)
        solver.set_timesteps(25)
        x = torch.randn(n, 1, 32, 32, generator=torch.Generator().manual_seed(seed))
        with self._setting(self.net, fast):
            for t in solver.timesteps:
                x = solver.step(self.net(x, t.expand(n)).float(), t, x).prev_sample
        self.ema.restore(self.net.parameters())
        return x.clamp(-1, 1)


class DDPDefaults(_Peer):
    """denoising-diffusion-pytorch with the defaults of its GaussianDiffusion and Trainer, DDIM with 50 steps.

    v-prediction, sigmoid schedule, 1,000 steps; batch, rate, Adam betas, accumulation, clipping and EMA are read off
    the signature of its Trainer. Its default of flipping pictures is left off: shoes point left in this set.
    """

    sampler = "DDIM, 50 steps"

    def __init__(self) -> None:
        self.library = peers.denoising_diffusion_pytorch()
        given = inspect.signature(self.library.Trainer).parameters
        self.defaults = {k: p.default for k, p in given.items()}
        self.batch = self.defaults["train_batch_size"]
        names = (
            "train_batch_size",
            "gradient_accumulate_every",
            "train_lr",
            "adam_betas",
            "ema_decay",
            "ema_update_every",
        )
        self.settings = {"dim": DDP_SHAPE[0], "mults": DDP_SHAPE[1], **{k: self.defaults[k] for k in names}}

    def prepare(self, seed: int, budget: float) -> None:
        from ema_pytorch import EMA

        self._data(seed)
        self.net = peers.ddp_unet(*DDP_SHAPE, channels=1)
        self.diffusion = self.library.GaussianDiffusion(self.net, image_size=32, timesteps=1000, sampling_timesteps=50)
        self.optimiser = torch.optim.Adam(
            self.diffusion.parameters(), lr=self.defaults["train_lr"], betas=self.defaults["adam_betas"]
        )
        self.ema = EMA(self.diffusion, beta=self.defaults["ema_decay"], update_every=self.defaults["ema_update_every"])
        self.diffusion.train()

    def step(self) -> float:
        total, every = 0.0, self.defaults["gradient_accumulate_every"]
        for _ in range(every):
            loss = self.diffusion((self._rows() + 1) / 2) / every  # it takes pictures in [0, 1]
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(self.diffusion.parameters(), self.defaults["max_grad_norm"])
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.ema.update()
        return total

    def sample(self, n: int, seed: int, fast: bool) -> Tensor:
        model = self.ema.ema_model
        with torch.random.fork_rng(devices=[]), self._setting(model, fast):
            torch.manual_seed(seed)
            return (model.sample(batch_size=n).float() * 2 - 1).clamp(-1, 1)


class _AsNet(nn.Module):
    """A peer's (x, t in 0..999) -> y as a network of ours: the noise level in [-3, 3] becomes a time around 500."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, level: Tensor, cond: Any) -> Tensor:
        return self.net(x, 500 + 250 * level)


class Sfumato:
    """Our default recipe; `diffusers-fair` is the same with diffusers' network in its place, tuned for it.

    Our one-second probe of precision and layout is paid out of the budget; the peer gets its setting free.
    """

    images = 0

    def __init__(self, changes: list[str], widths: tuple[int, ...] | None = None) -> None:
        from sfumato.settings import override
        from sfumato.train import Recipe

        pairs = dict(c.split("=", 1) for c in changes if "=" in c)
        self.running = {**RUNNING, **{k: v for k, v in pairs.items() if k in RUNNING}}
        if self.running["precision"] not in ("", "float32", "bf16"):
            raise ValueError(f"precision is float32 or bf16, not {self.running['precision']!r}")
        self.widths = widths
        self.recipe = override(Recipe(), [c for c in changes if c.split("=")[0] not in RUNNING])
        self.settings: dict[str, Any] = {"changes": changes, **({"widths": list(widths)} if widths else {})}
        self.sampler = "{solver}, {grid}, {steps} steps".format(**self.running)

    def prepare(self, seed: int, budget: float) -> None:
        from sfumato.settings import to_dict
        from sfumato.train import keep_large_blocks

        keep_large_blocks()
        self.budget = budget
        self.source = pictures()
        self.recipe = replace(self.recipe, seed=seed).fit_to(self.source)
        self.denoiser = self.recipe.build()
        if self.widths:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                self.denoiser.net = _AsNet(peers.Diffusers(self.widths, channels=1))
        self.net = self.denoiser.net
        self.settings["recipe"] = to_dict(self.recipe)
        self.progress: Iterator[Any] | None = None
        self.snapshots: list[Any] = []

    def _begin(self) -> None:
        from sfumato.core import Cond
        from sfumato.train import Budget, Setting, Trainer, probe

        began = time.process_time()
        given = self.running["precision"] or (("bf16" if bf16_pays() else "float32") if self.widths else "")
        if given:
            setting = Setting(torch.bfloat16 if given == "bf16" else None, channels_last=True)
        else:
            x = self.source.batch(self.source.train_index[: self.recipe.batch]).x0
            setting, _ = probe(self.denoiser, x, Cond())
        self.settings["setting"] = str(setting)
        left = max(1e-3, self.budget - (time.process_time() - began))
        self.trainer = Trainer(
            self.denoiser, self.recipe, self.source, Budget(seconds=left, clock=time.process_time), setting
        )
        self.progress, self.share = self.trainer.steps(), 0.0

    def step(self) -> float:
        if self.progress is None:
            self._begin()
        done = next(self.progress)
        self.images = done.images
        stored = self.recipe.ema.snapshots
        if done.share < 1 and int(done.share * stored) > int(self.share * stored):
            self.snapshots.append(self._snapshot())  # as a run folder keeps them, for choosing the average's width
        self.share = done.share
        return done.loss

    def _snapshot(self) -> Any:
        from sfumato.train.ema import Snapshot

        ema = self.trainer.ema
        copies = {w: {k: v.clone() for k, v in a.items()} for w, a in zip(ema.widths, ema.averages, strict=True)}
        return Snapshot(self.trainer.step, copies)

    def sample(self, n: int, seed: int, fast: bool) -> Tensor:
        from sfumato.core import Noise
        from sfumato.reverse import GRIDS, sample
        from sfumato.reverse.catalogue import pick_solver
        from sfumato.train import combine, load_weights

        kept = {k: v.clone() for k, v in self.trainer.weights.items()}
        averages = combine([*self.snapshots, self._snapshot()], self.recipe.ema.width, self.trainer.step)
        load_weights(self.denoiser, averages)
        self.denoiser.eval()
        process = self.recipe.process
        grid = GRIDS[self.running["grid"]](int(self.running["steps"]), process)
        x = sample(self.denoiser, (n, 1, 32, 32), Noise.of(seed, n), pick_solver(self.running["solver"]), grid)
        load_weights(self.denoiser, kept)
        return x.clamp(-1, 1)


NAMES = ("sfumato", "diffusers-recipe", "ddp-defaults", "diffusers-fair")
TUNED = (
    "optimiser.rate=0.0008",
)  # what suits the fair peer better than our own settings, chosen on a seed that is not reported


def make(spec: str) -> Contender:
    """The contender that `spec` names (see the module); ValueError for an unknown name or changes to a fixed recipe."""
    name, _, text = spec.partition(":")
    changes = [c for c in text.split(";") if c]
    if name == "sfumato":
        return Sfumato(changes)
    if name == "diffusers-fair":
        shape = [c for c in changes if c.startswith("widths=")]
        widths = tuple(json.loads(shape[-1].partition("=")[2])) if shape else DIFFUSERS_WIDTHS
        return Sfumato([*TUNED, *(c for c in changes if c not in shape)], widths)
    if changes or name not in NAMES:
        raise ValueError(
            f"unknown contender {spec!r}: one of {', '.join(NAMES)}; only ours and diffusers-fair take changes"
        )
    return DiffusersRecipe() if name == "diffusers-recipe" else DDPDefaults()


# of a recipe: known only with the data, part of the run's key, or without meaning for pictures without conditions
MEASURED = {"seed", "sigma_data", "channels", "slots", "conditions", "condition_dropout", "each_dropout"}


def essence(settings: Any) -> Any:
    """Settings or a recipe as plain data, without what the data decide and without what is absent."""
    if isinstance(settings, dict):
        return {k: essence(v) for k, v in settings.items() if v is not None and k not in MEASURED}
    return [essence(v) for v in settings] if isinstance(settings, list | tuple) else settings


def current(run: dict[str, Any]) -> bool:
    """Whether a run of the results file was made with what its contender's name stands for today."""
    from sfumato.core import SfumatoError
    from sfumato.settings import from_dict, to_dict
    from sfumato.train import Recipe

    made, stored = make(run["contender"]), dict(run["settings"])
    wanted = dict(made.settings)
    if isinstance(made, Sfumato):
        wanted["recipe"] = to_dict(made.recipe)
        try:  # what was not there to be set then is as it is where nothing is said
            stored["recipe"] = to_dict(from_dict(Recipe, stored["recipe"]))
        except SfumatoError:
            return False
        stored.pop("setting")  # what the probe chose
    return run["sampler"] == made.sampler and essence(stored) == essence(wanted)


def train(contender: Contender, budget: float) -> dict[str, Any]:
    """Step until `budget` CPU-seconds of this process (all threads) are spent; what was done."""
    cpu, wall, losses = time.process_time(), time.perf_counter(), []
    while time.process_time() - cpu < budget:
        try:
            losses.append(contender.step())
        except StopIteration:
            break
    spent = {"cpu_seconds": time.process_time() - cpu, "wall_seconds": time.perf_counter() - wall}
    last = losses[-100:]
    return {"steps": len(losses), "images_seen": contender.images, **spent, "loss": sum(last) / len(last)}


def draw(contender: Contender, n: int, seed: int, batch: int = 100) -> Tensor:
    """n pictures [n, 1, 32, 32] in [-1, 1], in the fast setting and with the allocator told to keep memory."""
    common.keep_memory()
    parts = [contender.sample(min(batch, n - first), seed + first, fast=True) for first in range(0, n, batch)]
    return torch.cat(parts)
