"""The bundled detector for clips: what it takes, what it learns, and that it survives saving."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss

from selfcascade.metrics.composition import accuracy
from selfcascade.metrics.video_detector import VideoDetector

LABELS = {"first_motion": ["left", "right", "still"], "background": ["dark", "light"]}
FLAWS = ["noisy", "frozen"]


def small_detector() -> VideoDetector:
    torch.manual_seed(0)
    return VideoDetector(LABELS, FLAWS, widths=(8, 16, 16, 24), input_size=32).eval()


def bars() -> tuple[Tensor, list[dict[str, str | int]]]:
    """Clips (6, 8, 3, 32, 32) of a bar that goes one way before one of two backgrounds."""
    clips, truths = [], []
    for background, shade in (("dark", 0.1), ("light", 0.5)):
        for motion, step in (("left", -2), ("right", 2), ("still", 0)):
            clip = torch.full((8, 3, 32, 32), shade)
            for frame in range(8):
                clip[frame, :, 8:24, 14 + step * frame - 4 * step : 18 + step * frame - 4 * step] = 1.0
            clips.append(clip)
            truths.append({"first_motion": motion, "background": background})
    return torch.stack(clips), truths


def test_it_learns_where_things_go() -> None:
    detector = small_detector()
    clips, truths = bars()
    optimizer = torch.optim.Adam(detector.parameters(), lr=5e-3)
    for _ in range(40):
        optimizer.zero_grad()
        detector.loss(clips, truths, torch.zeros(6, 2)).backward()
        optimizer.step()
    assert accuracy(detector.read(clips), truths)["all"] == 1.0
    back = [
        {**truth, "first_motion": {"left": "right", "right": "left"}.get(str(truth["first_motion"]), "still")}
        for truth in truths
    ]
    assert accuracy(detector.read(clips.flip(1)), back)["first_motion"] >= 5 / 6  # it is motion that it reads


def test_it_reads_any_size_and_length_and_survives_saving(tmp_path: Path) -> None:
    detector = small_detector()
    clips, _ = bars()
    detector.save_pretrained(tmp_path)
    assert [path.suffix for path in tmp_path.iterdir() if "config" not in path.name] == [".safetensors"]
    again = VideoDetector.from_pretrained(tmp_path, local_files_only=True)
    assert torch.equal(again.features(clips), detector.features(clips)) and again.read(clips) == detector.read(clips)
    told = detector(torch.rand(2, 5, 3, 40, 70))
    assert {name: tuple(value.shape) for name, value in told.items()} == {
        "first_motion": (2, 3),
        "background": (2, 2),
        "degraded": (2, 2),
    }
    assert detector.features(clips).shape == (6, 24)


def test_the_loss_is_that_of_what_is_known() -> None:
    detector = small_detector()
    clips, truths = bars()
    amounts = torch.rand(6, 2, generator=torch.Generator().manual_seed(0))
    told, plain = detector(clips), detector.told(detector.features(clips))
    target = torch.tensor([LABELS["background"].index(str(truth["background"])) for truth in truths])
    # In order of name, the background's two words come first.
    expected = cross_entropy(told["background"], target) + 0.3 * cross_entropy(plain[:, :2], target)
    expected = expected + 100 * mse_loss(plain[:, -2:], amounts)
    partial = [{"background": truth["background"]} for truth in truths]
    torch.testing.assert_close(detector.loss(clips, partial, amounts), expected)
    assert detector.loss(clips, truths, amounts) > expected


@pytest.mark.parametrize("shape", [(1, 3, 3, 32, 32), (4, 3, 32, 32), (1, 8, 1, 32, 32)])
def test_clips_that_it_cannot_take_are_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="clips must be \\(B, F, 3, H, W\\) of at least 4 frames"):
        small_detector().features(torch.zeros(shape))
