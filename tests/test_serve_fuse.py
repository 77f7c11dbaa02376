"""Jobs that share one network thread: nothing that a task needs of the network is lost on the way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from serving import tiny_model

from sfumato.serve.fuse import Fuser
from sfumato.tasks import load
from sfumato.tasks.inpaint import inpaint
from sfumato.tasks.upscale import upscale


@pytest.mark.parametrize("edit", ["inpaint", "upscale"])
def test_a_guide_that_goes_back_through_the_network_gets_the_same_gradient(edit: str, tmp_path: Path) -> None:
    model, fuser = load(tiny_model(tmp_path)), Fuser()
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8))
    hole = np.zeros((16, 16), bool)
    hole[4:12, 4:12] = True

    def drawn(asked) -> np.ndarray:
        if edit == "inpaint":
            result = inpaint(asked, picture, hole, steps=3, seed=1)
        else:
            result = upscale(asked, picture.resize((8, 8)), 2, steps=3, seed=1)
        assert result.by == "guide"
        return np.asarray(result.images[0])

    try:
        assert np.array_equal(drawn(fuser.shared(model)), drawn(model))
    finally:
        fuser.close()
