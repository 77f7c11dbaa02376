"""FID's network: the resize against plain arithmetic, the published sizes, and weights that are refused.

`python -m benchmarks.inception_peer` compares it with torch-fidelity's own network.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sfumato.core import SfumatoError
from sfumato.measure import inception, metric_name
from sfumato.measure.inception import Inception, Network, _stretch


def meta() -> Network:
    with torch.device("meta"):
        return Network()


def test_the_network_has_the_published_sizes() -> None:
    """Inception v3 with 1,000 classes and no helper head has 23,834,568 parameters (torchvision's count without it is
    27,161,264 less the helper's 3,326,696); FID's has 1,008 outputs."""
    assert sum(p.numel() for p in meta().parameters()) == 23_834_568 + 8 * 2049
    shapes = {k: tuple(v.shape) for k, v in meta().state_dict().items()}
    assert shapes["Mixed_6b.branch7x7dbl_5.conv.weight"] == (192, 128, 1, 7)
    assert shapes["Mixed_7c.branch3x3dbl_3b.conv.weight"] == (384, 384, 3, 1)
    assert shapes["fc.weight"] == (1008, 2048)


@pytest.mark.parametrize("size", [28, 299, 400])
def test_the_resize_is_tensorflows_first(size: int) -> None:
    line = torch.rand(size, generator=torch.Generator().manual_seed(0))
    found = _stretch(size) @ line
    for k in range(299):
        at = k * size / 299
        low = int(at)
        high = min(low + 1, size - 1)
        assert found[k] == pytest.approx(float(line[low] + (line[high] - line[low]) * (at - low)), abs=1e-4)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    generator = torch.Generator().manual_seed(0)
    state = {
        k: torch.randn(v.shape, generator=generator).mul_(0.02).abs_()
        if v.is_floating_point()
        else torch.zeros(v.shape)
        for k, v in meta().state_dict().items()
    }
    path = tmp_path_factory.mktemp("weights") / "inception.safetensors"
    save_file(state, path)
    return path


def test_weights_are_read_and_named(weights: Path) -> None:
    found = inception(weights)
    assert isinstance(found, Inception) and found.name.startswith("inception-fid-")
    x = torch.rand(1, 1, 20, 30, generator=torch.Generator().manual_seed(1)) * 2 - 1
    features = found(x)
    assert features.shape == (1, 2048) and features.isfinite().all()
    assert torch.equal(features, found(x.expand(-1, 3, -1, -1)))
    assert metric_name("fd", found.name, 5000, "cifar/test").startswith("FID-Inception[inception-fid-")
    assert metric_name("fd", "classifier-emoji-32-v1", 5000, "emoji").startswith("fd[")
    with pytest.raises(SfumatoError, match="NaN"):
        found(x * float("nan"))


def test_other_files_are_refused(weights: Path, tmp_path: Path) -> None:
    for name in ("pt_inception-2015-12-05.pth", "net.pt"):
        (tmp_path / name).write_bytes(b"cos\nsystem\n(S'touch planted'\ntR.")
        with pytest.raises(SfumatoError, match="convert it once.*weights_only=True"):
            inception(tmp_path / name)
    save_file({"fc.weight": torch.zeros(10, 2048)}, tmp_path / "other.safetensors")
    with pytest.raises(SfumatoError, match="does not hold FID's Inception"):
        inception(tmp_path / "other.safetensors")
    (tmp_path / "torn.safetensors").write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(SfumatoError, match="cannot be read"):
        inception(tmp_path / "torn.safetensors")
    with pytest.raises(SfumatoError, match="cannot be read"):
        inception(tmp_path / "absent.safetensors")
