"""Feature upsamplers by a Hub id: what was saved comes back bit for bit, and what is not there is said."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from cascade_runs import QUICK
from command_line import refuse, succeed
from hub_server import Hub, serving
from selfcascade import FeatureUpsamplers
from selfcascade.models import load_upsamplers
from training_runs import trained


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


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub of this machine in the real one's place, for the real client; and an empty cache."""
    with serving() as made:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", made.url)  # what HF_ENDPOINT says before the import
        template = f"{made.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        # The Hub's own storage protocol is compiled code that knows its own servers; the client falls back on Git LFS.
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        monkeypatch.chdir(tmp_path)
        yield made


def run_program_of(card: str) -> None:
    """Runs the one program of a model card as it is written."""
    (program,) = re.findall(r"^```python\n(.*?)^```$", card, re.MULTILINE | re.DOTALL)
    exec(compile(program, "README.md", "exec"), {"__name__": "__main__"})


def test_what_was_trained_is_pushed_with_its_card_and_comes_back(hub: Hub, quick_model: str, tmp_path: Path) -> None:
    trained(Path("runs/micro"), model=quick_model, max_train_steps=2, checkpointing_steps=2)
    own = (tmp_path / "runs/micro/README.md").read_text()
    made = FeatureUpsamplers.from_pretrained("runs/micro")
    assert made.push_to_hub("me/sharper", token="a token") == f"{hub.url}/me/sharper/commit/{'1' * 40}"
    assert sorted(hub.files["me/sharper"]) == ["README.md", "config.json", "diffusion_pytorch_model.safetensors"]
    assert any(asked.endswith("/objects/batch") for asked in hub.asked) and any("PUT /lfs" in a for a in hub.asked)
    card = hub.files["me/sharper"]["README.md"].decode()
    assert card == own.replace('from_pretrained("runs/micro")', 'from_pretrained("me/sharper")')
    loaded = load_upsamplers("me/sharper").state_dict()
    assert loaded.keys() == made.state_dict().keys()
    assert all(torch.equal(loaded[name], value) for name, value in made.state_dict().items())
    for text in (own, card):  # from the folder, and from the Hub
        Path("lighthouse.png").unlink(missing_ok=True)
        run_program_of(text)
        assert Image.open("lighthouse.png").size == (64, 64)


def test_a_card_is_made_where_no_training_wrote_one_and_never_replaced(hub: Hub, quick_model: str) -> None:
    made: Any = FeatureUpsamplers.from_unet(QUICK.shared().unet)
    with pytest.raises(ValueError, match="base_model must name the model that these upsamplers were made for"):
        made.push_to_hub("me/plain", token="a token")
    assert not hub.asked
    made.push_to_hub("me/plain", base_model=quick_model, token="a token")
    run_program_of(hub.files["me/plain"]["README.md"].decode())
    assert Image.open("lighthouse.png").size == (128, 128)
    hub.files["me/plain"]["README.md"] = b"my own words"
    made.push_to_hub("me/plain", base_model=quick_model, token="a token")
    assert hub.files["me/plain"]["README.md"] == b"my own words"


@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_card_of_other_weights_runs_too(method: str, quick_model: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    trained(Path("run"), model=quick_model, method=method, max_train_steps=1, checkpointing_steps=1)
    run_program_of(Path("run/README.md").read_text())
    assert Image.open("lighthouse.png").size == (64, 64)


def test_upsamplers_are_taken_from_a_checkpoint(workplace: Path, quick_model: str) -> None:
    trained(Path("run"), model=quick_model, max_train_steps=2, checkpointing_steps=1)
    options = ["--model", quick_model, "--steps", "3", "--scale", "2"]
    (last,) = succeed("generate", "a house", *options, "--upsamplers", "run/checkpoint-000002", "--output", "a.png")
    (whole,) = succeed("generate", "a house", *options, "--upsamplers", "run", "--output", "b.png")
    (first,) = succeed("generate", "a house", *options, "--upsamplers", "run/checkpoint-000001", "--output", "c.png")
    pixels = [Image.open(path).tobytes() for path in (last, whole, first)]
    assert pixels[0] == pixels[1] != pixels[2]
    assert "checkpoint-000003" in refuse("generate", "a house", *options, "--upsamplers", "run/checkpoint-000003")


def test_checkpoints_of_averages_and_of_earlier_versions_are_read(tmp_path: Path) -> None:
    trainer = trained(tmp_path, use_ema=True, max_train_steps=3, checkpointing_steps=3)
    place = tmp_path / "checkpoint-000003"
    with trainer.state.averaged():
        expected = {name: weight.detach().clone() for name, weight in trainer.trained.items()}

    def check() -> None:
        found = load_upsamplers(str(place)).state_dict()
        assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)

    check()
    state = json.loads((place / "state.json").read_text())
    del state["upsamplers"]  # as earlier versions wrote it: the finished run's own file says what they are made of
    (place / "state.json").write_text(json.dumps(state))
    check()
    (tmp_path / "config.json").unlink()
    with pytest.raises(ValueError, match="cannot be loaded: it is a checkpoint without upsamplers"):
        load_upsamplers(str(place))
