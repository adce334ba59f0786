"""Feature upsamplers by a Hub id: what was saved comes back bit for bit, and what is not there is said."""

from pathlib import Path

import pytest
import torch

from cascade_runs import QUICK
from selfcascade import FeatureUpsamplers
from selfcascade.models import load_upsamplers


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The Hub's own cache, empty, and nothing to be had from the network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path


def test_a_hub_id_loads_what_was_pushed(cache: Path) -> None:
    made = FeatureUpsamplers.from_unet(QUICK.shared().unet)
    for number, weight in enumerate(made.parameters()):
        torch.nn.init.constant_(weight, 0.01 * (number + 1))
    revision = "0" * 40
    place = cache / "models--me--sharper"
    made.save_pretrained(place / "snapshots" / revision)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(revision)
    loaded = load_upsamplers("me/sharper")
    expected, found = made.state_dict(), loaded.state_dict()
    assert expected.keys() == found.keys() and all(torch.equal(expected[name], found[name]) for name in expected)
    loaded.check_unet(QUICK.shared().unet)


def test_what_is_not_there_is_said(cache: Path) -> None:
    with pytest.raises(ValueError, match="upsamplers 'me/none' cannot be loaded: "):
        load_upsamplers("me/none")
    with pytest.raises(ValueError, match=r"upsamplers '\./none' is not a folder with a config\.json"):
        load_upsamplers("./none")
