"""The recipe's flaws of clips, and the truths of what it shows the video detector."""

import pytest
import torch
from torch import Tensor

from clip_flaws import FLAWS, flawed
from video_detector import example, mirrored


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def clip() -> Tensor:
    """A square that goes to the right over a pattern, (16, 3, 32, 32)."""
    made = 0.3 + 0.2 * torch.rand(1, 3, 32, 32, generator=seeded()).expand(16, -1, -1, -1).clone()
    for frame in range(16):
        made[frame, :, 10:18, frame : frame + 8] = 0.9
    return made


@pytest.mark.parametrize("name", FLAWS)
def test_each_flaw_grows_with_its_amount_and_comes_from_the_generator(name: str) -> None:
    original = clip()
    slight, full = (FLAWS[name](original, amount, seeded(1)) for amount in (0.25, 1.0))
    for made in (slight, full):
        assert made.shape == original.shape and made.min() >= 0 and made.max() <= 1
    assert 0 < (slight - original).abs().mean() <= (full - original).abs().mean()
    assert torch.equal(full, FLAWS[name](original, 1.0, seeded(1)))


@pytest.mark.parametrize("name", ["shuffled", "frozen", "backwards", "dropped"])
def test_flaws_of_time_leave_the_frames_as_they_are(name: str) -> None:
    original = clip()
    made = FLAWS[name](original, 0.6, seeded(2))
    assert all(any(torch.equal(frame, own) for own in original) for frame in made)
    if name == "frozen":
        assert torch.equal(made[:6], original[:6]) and (made[6:] == original[6]).all()


def test_their_amounts_are_told_and_none_is_the_clip_itself() -> None:
    original = clip()
    same, none = flawed(original, seeded(), share=0.0)
    assert torch.equal(same, original) and not none.any()
    seen = torch.stack([flawed(original, seeded(seed), share=0.3)[1] for seed in range(60)])
    assert seen.shape == (60, len(FLAWS)) and (seen > 0).any(0).all()
    assert (seen > 0).float().mean() == pytest.approx(0.3, abs=0.07)
    backwards = seen[:, list(FLAWS).index("backwards")]
    assert set(backwards.tolist()) == {0.0, 1.0}


def test_a_mirror_swaps_sides_and_headings() -> None:
    truth = {
        "first_kind": "fish",
        "last_kind": "boat",
        "first_motion": "left",
        "last_motion": "up",
        "background": "sea",
    }
    turned, told = mirrored(clip(), truth)
    assert torch.equal(turned.flip(-1), clip())
    assert told == {
        "last_kind": "fish",
        "first_kind": "boat",
        "last_motion": "right",
        "first_motion": "up",
        "background": "sea",
    }


def test_an_example_is_told_as_it_is_shown() -> None:
    long = torch.cat([clip(), clip()[-2:]])
    truth = {
        "first_kind": "fish",
        "last_kind": "fish",
        "first_motion": "right",
        "last_motion": "right",
        "place": "left",
    }
    plain = [example(long, truth, seeded(seed), 0.0) for seed in range(30)]
    for shown, told, amounts in plain:
        assert shown.shape == (16, 3, 32, 32) and not amounts.any() and "place" not in told
        columns = (shown > 0.8).float().mean((1, 2)).argmax(1)  # where the square is
        assert told["first_motion"] == ("right" if columns[-1] > columns[0] else "left")
    assert {told["first_motion"] for _, told, _ in plain} == {"left", "right"}
    for seed in range(60):
        shown, told, amounts = example(long, truth, seeded(seed), 0.5)
        amount = dict(zip(FLAWS, amounts.tolist(), strict=True))
        assert ("first_motion" in told) == (amount["shuffled"] <= 0.2 and amount["frozen"] <= 0.7)
