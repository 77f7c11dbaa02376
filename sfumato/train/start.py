"""A network that begins with what another one has learned: more conditions, other pictures, the same inside."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from sfumato.core import SfumatoError
from sfumato.denoiser import SlotSpec, TransformerConfig, UNetConfig
from sfumato.train.grown import around, moved_in
from sfumato.train.recipe import Recipe

Config = UNetConfig | TransformerConfig
KEPT = ("net", "process", "parameterisation", "standard", "sigma_data", "encoder")
FIRST = ("net.stem.weight", "net.embed.0.weight")  # what reads the picture, and the maps behind it


def continued(before: Recipe, other: Recipe | None) -> Recipe:
    """The recipe of a run that begins with a model of the recipe `before`: this, or another one (None: the same) as far as
    the weights leave it free. They were made for their network, process, parameterisation and standardisation."""
    if other is None:
        return before
    kept = {name: getattr(before, name) for name in KEPT}
    controls = dataclasses.replace(other.controls, palette=before.controls.palette)  # what the channels of its map mean
    return dataclasses.replace(other, controls=controls, **kept)


def take_over(denoiser: nn.Module, weights: dict[str, Tensor], before: Config, after: Config) -> None:
    """Copy what `weights` of a network `before` teach into the denoiser of a network `after`, which may have more conditions.

    A new map is read with weights of zero, a new name begins as the absent condition, a new kind of vector as nothing: with
    the new conditions absent the network answers as the old one did (not so where the first words at all are added: then
    attention gets a token to read that it did not have). A network with one level more at the resolution above has the old
    one inside of it, for pictures twice as large. Raises SfumatoError when the inside differs.
    """
    own = dict(denoiser.named_parameters())
    larger = around(before, after)
    if larger:
        weights = moved_in(weights, own, before)
    for name in sorted(weights.keys() - own.keys()):
        raise SfumatoError(
            f"this network cannot begin with that model: it has nowhere to put {name!r}; keep its slots and net"
        )
    known = {spec.name for spec in before.slots}
    changed = {
        f"net.conditioner.encoders.{spec.name}.weight" for spec in after.slots if spec.ids and spec.role == "vector"
    }
    with torch.no_grad():
        for name, p in own.items():
            if name not in weights:
                if name in changed and name.split(".")[3] not in known:
                    p[-1].zero_()  # the absent condition
                continue
            found = weights[name].to(p.dtype)
            if name in FIRST and before.patch == after.patch and not larger:
                found = _first(p, found, before, after)
            elif name in changed and len(found) < len(p):
                found = torch.cat([found[:-1], found[-1:].expand(len(p) + 1 - len(found), -1)])
            if found.shape != p.shape:
                raise SfumatoError(
                    f"this network cannot begin with that model: {name} is {tuple(p.shape)} here and "
                    f"{tuple(weights[name].shape)} there; keep its net (widths, patch, embedding)"
                )
            p.copy_(found)


def _channels(config: Config) -> dict[str, slice]:
    """Which input channels are the picture's ("") and which each map's."""
    maps: list[SlotSpec] = [spec for spec in config.slots if spec.channels]
    starts = {"": slice(0, config.channels)}
    at = config.channels
    for spec in maps:
        starts[spec.name] = slice(at, at + spec.channels)
        at += spec.channels
    return starts


def _first(like: Tensor, found: Tensor, before: Config, after: Config) -> Tensor:
    """The first weights [out, channels * patch^2, ...] with the channels of each map where `after` has them."""
    old, new = _channels(before), _channels(after)
    patch = after.patch**2
    if like.shape[1] % patch or found.shape[0] != like.shape[0] or before.channels != after.channels:
        return found
    made = torch.zeros_like(like).unflatten(1, (-1, patch))
    parts = found.unflatten(1, (-1, patch))
    for name, place in old.items():
        if name not in new:
            return found
        here, there = (one[name].stop - one[name].start - bool(name) for one in (new, old))
        if here != there:
            raise SfumatoError(
                f"this network cannot begin with that model: the map {name!r} has {here} channels here and {there} there"
            )
        made[:, new[name]] = parts[:, place]
    return made.flatten(1, 2)
