"""I3D: the shapes, names and input of the network whose weights are public."""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.functional import conv3d, interpolate

from selfcascade.metrics.i3d import I3D, _same, _Unit


@pytest.fixture(scope="module")
def network() -> I3D:
    torch.manual_seed(0)
    made = I3D().eval()
    for module in made.modules():
        if isinstance(module, nn.BatchNorm3d):  # as trained, not as made
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return made


@pytest.fixture(scope="module")
def weights(network: I3D, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("i3d") / "i3d.safetensors"
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, path)
    return path


def test_it_has_the_published_network_s_parameters_under_its_names(network: I3D) -> None:
    # Counted from the paper's channels: convolutions without bias, two vectors a normalisation, and the logits.
    assert sum(weight.numel() for weight in network.parameters()) == 12_697_264
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    assert shapes["Conv3d_1a_7x7.conv3d.weight"] == (64, 3, 7, 7, 7)
    assert shapes["Mixed_4f.b1b.conv3d.weight"] == (320, 160, 3, 3, 3)
    assert shapes["Mixed_5c.b3b.bn.running_var"] == (128,)
    assert shapes["logits.conv3d.weight"] == (400, 1024, 1, 1, 1) and shapes["logits.conv3d.bias"] == (400,)
    units = 3 + 9 * 6
    assert len([name for name in shapes if name.endswith("conv3d.weight")]) == units + 1
    assert len(shapes) == 6 * units + 2


@pytest.mark.parametrize(("kernel", "stride"), [(7, 2), (3, 1), (3, 2), (2, 2), (1, 2)])
def test_padding_is_tensorflow_s(kernel: int, stride: int) -> None:
    for size in range(5, 15):
        x = torch.arange(1.0, size + 1).view(1, 1, size, 1, 1)
        padded = _same(x, (kernel, 1, 1), (stride, 1, 1)).flatten().tolist()
        out = math.ceil(size / stride)
        total = max((out - 1) * stride + kernel - size, 0)
        assert padded == [0.0] * (total // 2) + x.flatten().tolist() + [0.0] * (total - total // 2)


def test_a_unit_is_convolution_normalisation_and_rectifier() -> None:
    torch.manual_seed(1)
    unit = _Unit(2, 4, 3, 2, 1e-3).eval()
    unit.bn.running_mean.normal_()
    unit.bn.running_var.uniform_(0.5, 2)
    x = torch.randn(1, 2, 6, 6, 6)
    padded = torch.zeros(1, 2, 7, 7, 7)
    padded[:, :, :6, :6, :6] = x
    summed = conv3d(padded, unit.conv3d.weight, stride=2)
    mean, var = (value.view(1, 4, 1, 1, 1) for value in (unit.bn.running_mean, unit.bn.running_var))
    torch.testing.assert_close(unit(x), ((summed - mean) / (var + 1e-3).sqrt()).clamp(min=0))


def test_clips_of_any_size_become_400_logits_as_lvdm_prepares_them(network: I3D, weights: Path) -> None:
    clips = torch.rand(1, 9, 3, 30, 50, generator=torch.Generator().manual_seed(0))
    found = I3D.from_file(str(weights)).features(clips)
    assert found.shape == (1, 400) and float(found.std()) > 0.01
    pixels = (clips[0] * 255).round()  # 0 to 255, as in a file
    resized = interpolate(pixels, size=(224, 224), mode="bilinear", align_corners=False)
    with torch.no_grad():
        expected = network((2 * resized / 255 - 1).transpose(0, 1)[None])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_weights_without_counters_load_and_others_are_refused(network: I3D, tmp_path: Path) -> None:
    old = {name: value for name, value in network.state_dict().items() if "num_batches" not in name}  # PyTorch 0.3's
    save_file(old, tmp_path / "old.safetensors")
    torch.testing.assert_close(
        dict(I3D.from_file(str(tmp_path / "old.safetensors")).named_parameters()), dict(network.named_parameters())
    )
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="needs pytorch-i3d's weights"):
        I3D.from_file(str(tmp_path / "other.safetensors"))
    (tmp_path / "i3d_torchscript.pt").write_bytes(b"PK\x03\x04 a pickle")
    for name in ("i3d_torchscript.pt", "nothing.safetensors"):
        with pytest.raises(ValueError, match=r"cannot read .* as safetensors"):
            I3D.from_file(str(tmp_path / name))


@pytest.mark.parametrize("shape", [(1, 8, 3, 64, 64), (9, 3, 64, 64), (1, 9, 1, 64, 64)])
def test_clips_that_it_cannot_take_are_named(network: I3D, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="clips must be \\(B, F, 3, H, W\\) of at least 9 frames"):
        network.features(torch.zeros(shape))
