"""The rules of the house: one way of imports, small files and signatures, nothing that runs foreign code."""

from __future__ import annotations

import ast
import importlib
import json
import os
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import sfumato

ROOT = Path(sfumato.__file__).parent
ROOMS = (
    "core",
    "settings",
    "data",
    "forward",
    "denoiser",
    "train",
    "guide",
    "reverse",
    "tasks",
    "measure",
    "serve",
    "cli",
)
FILES = {path.relative_to(ROOT).as_posix(): path for path in sorted(ROOT.rglob("*.py"))}
MODULES = [
    "sfumato",
    *(m.name for m in pkgutil.walk_packages([str(ROOT)], "sfumato.") if not m.name.endswith("__main__")),
]
HEAVY = ("matplotlib", "sklearn", "scipy", "diffusers", "pandas", "torchvision", "transformers")
each_file = pytest.mark.parametrize("name", FILES)


def tree(name: str) -> ast.Module:
    return ast.parse(FILES[name].read_text(), name)


def imports(module: ast.Module, package: str) -> Iterator[str]:
    """Full names of all that a module imports, inside functions too."""
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def room(name: str) -> str:
    return name.split("/")[0].removesuffix(".py")


def wrong_way(name: str, module: ast.Module) -> list[str]:
    """Imports of rooms further down the list."""
    package = ".".join(["sfumato", *name.split("/")[:-1]])
    own = room(name)
    if own in ("__init__", "__main__"):  # the package's door may open every room, when asked
        return []
    if own not in ROOMS:
        return [f"{own} is no room of the house"]
    found = []
    for full in imports(module, package):
        parts = full.split(".")
        if parts[0] == "sfumato" and len(parts) > 1 and parts[1] in ROOMS and ROOMS.index(parts[1]) > ROOMS.index(own):
            found.append(full)
    return found


@each_file
def test_imports_go_one_way_only(name) -> None:
    assert wrong_way(name, tree(name)) == []


def test_the_package_itself_opens_rooms_only_when_asked() -> None:
    at_once = [n for n in tree("__init__.py").body if isinstance(n, (ast.Import, ast.ImportFrom))]
    assert all(getattr(n, "module", None) == "__future__" or "typing" in ast.unparse(n) for n in at_once)


@pytest.mark.parametrize(
    "text",
    [
        "import sfumato.train.loop",
        "from sfumato.train import Trainer",
        "from sfumato import cli",
        "def f():\n    from sfumato.measure import metrics",
        "from ..reverse import walk",
        "from .. import tasks",
    ],
)
def test_the_check_of_imports_sees_every_way_of_writing_one(text) -> None:
    assert wrong_way("forward/planted.py", ast.parse(text))
    assert not wrong_way("cli/planted.py", ast.parse(text))


@each_file
def test_files_are_small(name) -> None:
    lines = len(FILES[name].read_text().splitlines())
    assert lines <= (150 if name.startswith("tasks/") else 400)
    assert name != "core.py" or lines < 200


@each_file
def test_signatures_are_short(name) -> None:
    for node in ast.walk(tree(name)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            a = node.args
            names = [arg.arg for arg in (*a.posonlyargs, *a.args, *a.kwonlyargs)]
            taken = len([n for n in names if n not in ("self", "cls")]) + bool(a.vararg) + bool(a.kwarg)
            assert taken <= 10, (getattr(node, "name", "lambda"), taken)


def dangerous(module: ast.Module) -> list[str]:
    """Whatever could run code that was read from a file."""
    found = [
        full
        for full in imports(module, "sfumato")
        if full.split(".")[0] in ("pickle", "cPickle", "dill", "joblib", "shelve", "marshal")
    ]
    for node in ast.walk(module):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in (
                "eval",
                "exec",
                "compile",
                "__import__",
                "torch.load",
                "torch.save",
                "torch.package",
                "os.system",
                "yaml.load",
            ):
                found.append(called)
            if any(k.arg in ("allow_pickle", "shell") and getattr(k.value, "value", True) for k in node.keywords):
                found.append(ast.unparse(node))
        if (
            isinstance(node, ast.ImportFrom)
            and node.module == "torch"
            and {a.name for a in node.names} & {"load", "save"}
        ):
            found.append("torch.load")
    return found


@each_file
def test_nothing_runs_foreign_code(name) -> None:
    assert dangerous(tree(name)) == []


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from pickle import loads",
        "x = torch.load(p)",
        "eval('1')",
        "exec(s)",
        "np.load(p, allow_pickle=True)",
        "from torch import load",
    ],
)
def test_the_check_of_dangers_sees_them(text) -> None:
    assert dangerous(ast.parse(text))


def test_the_check_of_dangers_lets_harmless_names_be() -> None:
    assert dangerous(ast.parse("net.eval()\nnp.load(p)\nre.compile('a')\njson.load(f)")) == []


DRAWS = (
    "rand",
    "randn",
    "randint",
    "randperm",
    "multinomial",
    "normal",
    "bernoulli",
    "rand_like",
    "randn_like",
    "randint_like",
)


def global_draws(module: ast.Module) -> list[str]:
    """Draws from a generator that the whole process shares."""
    found = []
    for node in ast.walk(module):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func).split(".")
        given = {k.arg for k in node.keywords}
        if called[0] == "torch" and len(called) == 2 and called[1] in DRAWS and "generator" not in given:
            found.append(ast.unparse(node))
        if called[:2] == ["np", "random"] and called[2] not in ("default_rng", "Generator", "SeedSequence", "PCG64"):
            found.append(ast.unparse(node))
        if called[0] == "random" and len(called) == 2 and called[1] != "Random":
            found.append(ast.unparse(node))
    return found


@each_file
def test_nothing_draws_from_a_global_generator(name) -> None:
    assert global_draws(tree(name)) == []


def test_the_check_of_draws_sees_them() -> None:
    assert len(global_draws(ast.parse("torch.randn(3)\nnp.random.rand(2)\nrandom.random()\ntorch.rand_like(x)"))) == 4
    assert global_draws(ast.parse("torch.randn(3, generator=g)\nnp.random.default_rng(0)\nrng.random()")) == []


@each_file
def test_modules_say_what_they_are(name) -> None:
    assert ast.get_docstring(tree(name)), "a module begins with one sentence on what it is for"


@pytest.mark.parametrize("name", MODULES)
def test_what_a_room_offers_is_there(name) -> None:
    module = importlib.import_module(name)
    offered = getattr(module, "__all__", [])
    assert len(set(offered)) == len(offered)
    for thing in offered:
        assert getattr(module, thing) is not None, thing
    if hasattr(module, "__path__") and name.count(".") == 1:
        assert offered or name.endswith((".cli",)), "a room says what it offers in __all__"


def loaded_by(code: str) -> set[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT.parent), "OMP_NUM_THREADS": "1"}
    code += "\nimport sys, json; print(json.dumps(sorted({m.split('.')[0] for m in sys.modules})))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True, timeout=120
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_the_package_is_light() -> None:
    assert "torch" not in loaded_by("import sfumato")


def test_importing_every_room_loads_no_heavy_extra() -> None:
    every = "\n".join(f"import {name}" for name in MODULES)
    assert loaded_by(every) & set(HEAVY) == set()
