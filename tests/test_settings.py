"""Configuration to JSON and back, and what is said when it does not fit."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import typing

import pytest

from sfumato.core import SfumatoError
from sfumato.data import Augment
from sfumato.denoiser import X0, EDMTarget, Eps, Flow, SlotSpec, TransformerConfig, UNetConfig, V
from sfumato.forward import EDM, VE, Absorbing, RectifiedFlow, SubVP, VPCosine, VPLinear
from sfumato.settings import from_dict, override, to_dict
from sfumato.train import RECIPES, LogNormalTimes, MinSNR, Recipe, SquaredError, UniformTimes, pick_recipe

PROCESSES = [RectifiedFlow(), VPLinear(0.2, 19.0), VPCosine(2e-3), SubVP(), VE(0.01, 50.0), EDM(40.0)]
TARGETS = [Flow(), X0(), Eps(), V(), EDMTarget(0.4)]
SLOTS = (SlotSpec("class", "vector", 10, ids=True), SlotSpec("past", "frames", 3, frames=2))
NETS = [
    UNetConfig(widths=(8, 16), blocks=(1, 2), attention=(1,), slots=SLOTS),
    TransformerConfig(width=64, slots=SLOTS),
]


def back(recipe: Recipe) -> Recipe:
    return from_dict(Recipe, json.loads(json.dumps(to_dict(recipe))))


def test_the_lists_here_hold_every_choice_of_a_recipe() -> None:
    hints = typing.get_type_hints(Recipe)
    for name, values in (("process", PROCESSES), ("parameterisation", TARGETS), ("net", NETS)):
        assert set(typing.get_args(hints[name])) == {type(v) for v in values}, name


@pytest.mark.parametrize("net", NETS, ids=lambda n: type(n).__name__)
def test_every_combination_of_choices_comes_back_equal(net) -> None:
    for process, target, space in itertools.product(PROCESSES, TARGETS, TARGETS):
        recipe = Recipe(net=net, process=process, parameterisation=target, objective=SquaredError(space, MinSNR(4.0)))
        assert back(recipe) == recipe


@pytest.mark.parametrize("name", RECIPES)
def test_named_recipes_come_back_equal(name) -> None:
    for recipe in (
        pick_recipe(name, 32),
        dataclasses.replace(pick_recipe(name, 64), augment=Augment(), sigma_data=0.3),
    ):
        assert back(recipe) == recipe


def test_types_survive_json_exactly() -> None:
    recipe = back(Recipe(net=NETS[0], times=UniformTimes()))
    assert isinstance(recipe.net.widths, tuple) and isinstance(recipe.net.slots[0], SlotSpec)
    assert isinstance(from_dict(VE, {"sigma_max": 80}).sigma_max, float)  # JSON writers drop ".0"


@pytest.mark.parametrize(
    ("assignment", "path", "value"),
    [
        ("process=VPCosine", "process", VPCosine()),
        ('process={"is": "VE", "sigma_max": 30}', "process", VE(sigma_max=30.0)),
        ("process.t_max", None, None),
        ("optimiser.rate=1e-3", "optimiser.rate", 1e-3),
        ("optimiser.rate=1", "optimiser.rate", 1.0),
        ("optimiser.warmup=7", "optimiser.warmup", 7),
        ("net.widths=[64,128]", "net.widths", (64, 128)),
        ("net.patch=4", "net.patch", 4),
        ("net=TransformerConfig", "net", TransformerConfig()),
        ("objective.space=X0", "objective.space", X0()),
        ("objective.weighting=MinSNR", "objective.weighting", MinSNR()),
        ("objective.weighting=null", "objective.weighting", None),
        ("augment=Augment", "augment", Augment()),
        ("sigma_data=0.4", "sigma_data", 0.4),
        ("sigma_data=null", "sigma_data", None),
        ('conditions=["class"]', "conditions", ("class",)),
        ("times.mean=-1.2", "times.mean", -1.2),
        ("seed=5", "seed", 5),
    ],
)
def test_override_sets_what_it_names_and_nothing_else(assignment, path, value) -> None:
    before = Recipe()
    if path is None:
        with pytest.raises(SfumatoError, match="write key=value"):
            override(before, [assignment])
        return
    after = override(before, [assignment])
    found = after
    for part in path.split("."):
        found = getattr(found, part)
    assert found == value and type(found) is type(value)
    undone = {path.split(".")[0]: getattr(before, path.split(".")[0])}
    assert dataclasses.replace(after, **undone) == before


def test_override_applies_in_order() -> None:
    recipe = override(Recipe(), ["process=VE", "process.sigma_max=20", "times=LogNormalTimes", "times.std=2"])
    assert recipe.process == VE(sigma_max=20.0) and recipe.times == LogNormalTimes(std=2.0)


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("proces=VE", ["proces", "process", "optimiser"]),
        ("optimiser.lr=1", ["optimiser.lr", "Optimiser", "rate", "warmup"]),
        ("process=DDPM", ["process", "RectifiedFlow", "VPLinear", "VPCosine", "SubVP", "VE", "EDM", "DDPM"]),
        ("process=3", ["process", "RectifiedFlow", "3"]),
        ('process={"is": []}', ["process", "RectifiedFlow"]),
        ('process={"is": "VE", "sigma": 1}', ["process", "sigma_max", "'sigma'"]),
        ("augment=none", ["augment", "Augment", "null"]),
        ("optimiser.rate=fast", ["optimiser.rate", "float", "fast"]),
        ("optimiser.rate=true", ["optimiser.rate", "float"]),
        ("optimiser.rate=NaN", ["optimiser.rate", "finite"]),
        ("sigma_data=Infinity", ["sigma_data", "finite"]),
        ("optimiser.rate=null", ["optimiser.rate", "float"]),
        ("batch=2.5", ["batch", "int", "2.5"]),
        ("batch=true", ["batch", "int"]),
        ("batch=0", ["batch"]),
        ("accumulate=5", ["batch", "accumulate", "5"]),
        ("net.widths=64", ["net.widths", "list", "64"]),
        ('net.widths=["wide"]', ["net.widths", "int", "wide"]),
        ("batch.size=3", ["batch.size", "no parts"]),
        ("ema.width=0.5", ["width", "0.28", "0.5"]),
        ("ema.widths=[]", ["widths"]),
        ("ema.snapshots=0", ["snapshot"]),
        ("condition_dropout=2", ["condition_dropout", "2"]),
        ("sigma_data=-1", ["sigma_data", "-1"]),
        ("optimiser=3", ["optimiser", "object"]),
        ("optimiser", ["key=value"]),
    ],
)
def test_a_wrong_assignment_is_one_line_that_names_field_and_choices(assignment, said) -> None:
    with pytest.raises(SfumatoError) as caught:
        override(Recipe(), [assignment])
    message = str(caught.value)
    assert "\n" not in message
    for word in said:
        assert word in message, message


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.update(learning_rate=1), ["Recipe", "learning_rate", "optimiser"]),
        (lambda d: d["net"].update(depths=[1]), ["net", "depths", "widths"]),
        (lambda d: d["process"].update({"is": "Heat"}), ["process", "Heat", "RectifiedFlow"]),
        (lambda d: d["process"].pop("is"), ["process", "RectifiedFlow"]),
        (lambda d: d["net"].update(patch="two"), ["net.patch", "int", "two"]),
        (
            lambda d: d["net"]["slots"].append({"name": "x", "role": "sound", "size": 1}),
            ["role", "vector", "frames", "sound"],
        ),
        (lambda d: d["net"]["slots"].append({"role": "map", "size": 1}), ["net.slots", "name"]),
        (lambda d: d["net"]["slots"].append(7), ["net.slots", "7"]),
        (lambda d: d.update(ema=None), ["ema", "None"]),
    ],
)
def test_a_damaged_description_is_one_line_that_names_the_field(change, said) -> None:
    data = json.loads(json.dumps(to_dict(Recipe())))
    change(data)
    with pytest.raises(SfumatoError) as caught:
        from_dict(Recipe, data)
    message = str(caught.value)
    assert "\n" not in message
    for word in said:
        assert word in message, message


def test_a_choice_with_required_fields_names_the_missing_one() -> None:
    assert from_dict(Absorbing, {"classes": 5, "schedule": "cosine"}) == Absorbing(5, "cosine")
    with pytest.raises(SfumatoError, match="classes"):
        from_dict(Absorbing, {"schedule": "cosine"})
    with pytest.raises(SfumatoError, match="schedule should be one of linear, cosine, not 'sudden'"):
        from_dict(Absorbing, {"classes": 5, "schedule": "sudden"})


def test_what_is_written_is_plain_json() -> None:
    text = json.dumps(to_dict(Recipe(net=NETS[0])), allow_nan=False)
    assert '"is": "RectifiedFlow"' in text and not math.isnan(len(text))
