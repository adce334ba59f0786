"""What the recipe's base model and autoencoder are trained on."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from torch.nn.functional import avg_pool2d, interpolate
from transformers import CLIPTokenizer

import base_batches
import pictures
from autoencoder import decibels, enlarged_window, wake_unused_channels
from base import Base, hearing_loss, learn_words, start_from_bundled
from base_batches import SETTINGS, Batches, draw_timesteps, loss_weights
from common import BUNDLED, CONFIG, HERE, as_images, merged, write_array
from loop import Draw
from pictures import GROUP_STRIDE, load_said, path_of, picture, shards
from schedules import build_scheduler
from selfcascade import load_bundled
from texts import NOT_SAID, build_tokenizer, token_ids, told_attributes, with_world
from worlds import WORLDS, draw_window, labels

GROUPS = CONFIG["pictures"]["groups"]


@pytest.mark.parametrize("name", WORLDS)
def test_a_picture_depends_on_its_number_alone_and_says_what_it_shows(name: str) -> None:
    world = WORLDS[name]
    image, said = picture("native", world, 7)
    again, _ = picture("native", world, 7)
    scene = world.sample(7 + GROUP_STRIDE * list(GROUPS).index("native"))
    assert np.array_equal(image, again) and image.shape == (64, 64, 3) and said["truth"] == scene.truth
    assert np.abs(image / 255 - world.render(scene, 64, 64, None)).max() < 0.51 / 255
    assert len(said["captions"]) == pictures.PHRASINGS


@pytest.mark.parametrize("name", WORLDS)
def test_a_window_is_cut_out_of_its_render_and_names_neither_place_nor_size(name: str) -> None:
    world, side = WORLDS[name], GROUPS["close-2x"]["side"]
    for index in range(3):
        image, said = picture("close-2x", world, index)
        number = index + GROUP_STRIDE * list(GROUPS).index("close-2x")
        scene = world.sample(number)
        window = draw_window(world, scene, side, 64, np.random.default_rng([number, 11]))
        whole = world.render(scene, side, side, None)[window.top : window.top + 64, window.left : window.left + 64]
        assert np.abs(image / 255 - whole).mean() < 1 / 255
        assert said["truth"] == {} and all(line.startswith("close up") for line in said["captions"])


@pytest.mark.parametrize("name", WORLDS)
def test_a_window_shows_the_objects_that_lie_in_it(name: str) -> None:
    world, rng = WORLDS[name], np.random.default_rng(0)
    for number in range(30):
        scene = world.sample(number)
        window = draw_window(world, scene, 256, 128, rng)
        for item in scene.items:
            inside = all(
                edge < place * 256 < edge + 128 for edge, place in ((window.top, item.y), (window.left, item.x))
            )
            assert not inside or item in window.shown.items
        assert window.shown.place is None


def test_shards_hold_every_group_of_every_world_once() -> None:
    found = shards(list(GROUPS))
    assert len(found) == len(set(found))
    sizes = {(group, world): 0 for group in GROUPS for world in WORLDS}
    for group, world, _ in found:
        sizes[group, world] += CONFIG["pictures"]["shard"]
    assert all(size >= GROUPS[group]["count"] for (group, _), size in sizes.items())


@pytest.fixture(scope="module")
def tokenizer() -> CLIPTokenizer:
    return build_tokenizer()


def test_each_word_of_the_worlds_is_one_token(tokenizer: CLIPTokenizer) -> None:
    said = [phrase for name, phrases in labels().items() if name not in ("count", "relation") for phrase in phrases]
    for word in {word for phrase in (*said, *WORLDS) for word in phrase.split()}:
        assert len(tokenizer(word).input_ids) == 3, word
    longest = 0
    for world in WORLDS.values():
        for number in range(60):
            line = with_world(world, world.caption(world.sample(number), number, False))
            longest = max(longest, len(tokenizer(line).input_ids))
    assert longest + 2 <= CONFIG["text_encoder"]["max_position_embeddings"]  # two are the objects' own
    world = WORLDS["scene"]
    line = with_world(world, world.caption(world.sample(1), 1, False))
    assert tokenizer.decode(tokenizer(line).input_ids, skip_special_tokens=True).replace(" ,", ",").strip() == line


def test_a_base_can_start_from_the_bundled_one(tokenizer: CLIPTokenizer) -> None:
    bundled, base = load_bundled("cpu"), Base(tokenizer)
    start_from_bundled(base, tokenizer)
    for name, weight in bundled.unet.state_dict().items():
        assert torch.equal(base.unet.state_dict()[name], weight.float())
    world = WORLDS["scene"]
    line = world.caption(world.sample(1), 1, False)
    with torch.no_grad():
        own = base.text_encoder(token_ids(tokenizer, [line]).long())[0]
        expected = bundled.text_encoder.float()(token_ids(bundled.tokenizer, [line]).long())[0]
    torch.testing.assert_close(own, expected, rtol=0, atol=1e-4)


def test_a_recipe_changes_settings_at_any_depth_and_removes_those_that_are_null() -> None:
    changes = {"a": {"b": {"c": 5}, "gone": None}, "new": 1}
    with pytest.raises(ValueError, match="a recipe cannot change 'new', which is not among a, e"):
        merged({"a": {"b": {"c": 1}, "gone": 3}, "e": 4}, changes)
    assert merged({"a": {"b": {"c": 1, "d": 2}, "gone": 3}, "e": 4, "new": 0}, changes) == {
        "a": {"b": {"c": 5, "d": 2}}, "e": 4, "new": 1,
    }  # fmt: skip
    collages = merged(CONFIG, json.loads((HERE / "collages.json").read_text()))
    assert collages["pictures"]["groups"].keys() == collages["base"]["shares"]["groups"].keys()
    shipped = DDIMScheduler.from_pretrained(BUNDLED / "image/scheduler")
    torch.testing.assert_close(build_scheduler(collages["scheduler"]).alphas_cumprod, shipped.alphas_cumprod)


def test_truths_become_numbers_of_their_words() -> None:
    told = told_attributes([{"count": 1, "first_colour": "orange"}, {}])
    names = list(labels())
    assert told[0, names.index("count")] == 0 and told[0, names.index("first_colour")] == 1
    assert (told == NOT_SAID).sum() == 2 * len(names) - 2


def test_hearing_counts_what_is_told_alone() -> None:
    logits = tuple(torch.zeros(2, len(words), requires_grad=True) for words in labels().values())
    told = told_attributes([{"count": 1}, {}])
    assert float(hearing_loss(logits, told).detach()) == pytest.approx(np.log(2))
    nothing = hearing_loss(logits, told_attributes([{}, {}]))
    nothing.backward()
    assert float(nothing.detach()) == 0


def test_an_enlarged_window_shows_the_same_place_in_latents_and_picture() -> None:
    smooth = interpolate(
        torch.rand(1, 3, 5, 5, generator=torch.Generator().manual_seed(0)), size=(64, 64), mode="bicubic"
    )
    image = (smooth * 2 - 1).clamp(-1, 1)
    for factor, top, left in ((2.0, 0.0, 0.99), (1.5, 0.5, 0.5), (4.0, 0.99, 0.3)):
        part, target = enlarged_window(avg_pool2d(image, 4), image, factor, top, left)
        assert part.shape == (1, 3, 16, 16) and target.shape == image.shape
        inner = (avg_pool2d(target, 4) - part)[..., 2:-2, 2:-2]
        assert inner.abs().mean() < 0.03  # of a range of 2; another place is off by more than 0.2


def test_unused_channels_of_the_autoencoder_are_woken() -> None:
    vae = load_bundled("cpu").vae
    vae = vae.float()
    world = WORLDS["scene"]
    images = as_images(np.stack([picture("native", world, k)[0] for k in range(6)]))
    woken = wake_unused_channels(vae, images, torch.Generator().manual_seed(0))
    with torch.no_grad():
        posterior = vae.encode(images).latent_dist
    assert woken and (posterior.logvar.mul(0.5).exp().mean((0, 2, 3)) < 0.3).all()
    mean = posterior.mean[:, woken]
    assert mean.std() == pytest.approx(posterior.mean.std(), rel=0.5) and mean.mean().abs() < 0.2
    assert wake_unused_channels(vae, images, torch.Generator()) == []


def test_decibels_are_of_values_in_a_range_of_two() -> None:
    assert decibels(torch.tensor([0.004, 0.004])) == pytest.approx(30.0)


def test_half_the_timesteps_are_in_the_top_quarter_and_most_of_these_near_the_top() -> None:
    timestep = draw_timesteps(20_000, 1000, torch.Generator().manual_seed(0))
    share = SETTINGS["high_noise_share"]
    assert float((timestep >= 750).float().mean()) == pytest.approx(share + (1 - share) / 4, abs=0.02)
    top = float((timestep >= 937).float().mean())  # half of a squared uniform number is below 1/4
    assert top == pytest.approx(share / 2 + (1 - share) / 16, abs=0.02)
    assert timestep.max() <= 999 and timestep.min() >= 0


def test_the_loss_counts_less_where_there_is_little_noise_only() -> None:
    alphas = build_scheduler(CONFIG["scheduler"]).alphas_cumprod
    snr = alphas / (1 - alphas)
    weights = loss_weights(alphas, torch.arange(1000))
    gamma = SETTINGS["snr_gamma"]
    assert torch.allclose(weights[snr < gamma], torch.ones(()))
    # As min-SNR says for z_0, the error of v being that of z_0 times SNR + 1.
    assert torch.allclose((weights * (snr + 1))[snr > gamma], torch.tensor(gamma + 1), rtol=1e-3)


@pytest.fixture
def few_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Eight rendered pictures of each group and world; the latents of a picture are all its number."""
    sides = {"native": 16, "close-2x": 16, "close-4x": 16, "large-4x": 32}
    monkeypatch.setitem(CONFIG["pictures"], "shard", 4)
    monkeypatch.setitem(CONFIG["pictures"], "groups", {name: {**GROUPS[name], "count": 8} for name in sides})
    monkeypatch.setattr(pictures, "RUNS", tmp_path)
    monkeypatch.setattr(base_batches, "kind", lambda: "latents/own")
    for part in (1, 0):
        pictures.main(part, 2)
    for group, world, shard in shards(list(sides)):
        first = 4 * shard + (100 if world == "collage" else 0) + 500 * list(sides).index(group)
        values = np.arange(first, first + 4, dtype=np.float16)[:, None, None, None]
        latents = np.broadcast_to(values, (4, 20, sides[group], sides[group]))
        write_array(path_of("latents/own", group, world, shard, "npy"), latents)
    return sides


def test_a_batch_is_of_all_worlds_and_its_words_are_its_pictures_own(
    few_pictures: dict[str, int], tokenizer: CLIPTokenizer
) -> None:
    batches, dropped, told_pairs = Batches(tokenizer), 0, []
    said = {(group, world): load_said(group, world) for group in few_pictures for world in WORLDS}
    batch = batches.draw(Draw(0, 400, 0, torch.Generator().manual_seed(0)))
    again = batches.draw(Draw(0, 400, 0, torch.Generator().manual_seed(0)))
    assert all(torch.equal(a, b) for a, b in zip(batch, again, strict=True)) and batch.latents.shape == (
        400,
        20,
        16,
        16,
    )
    seen = set()
    for latents, ids, told in zip(*batch, strict=True):
        number = int(latents[0, 0, 0])
        group, world = list(few_pictures)[number // 500], list(WORLDS)[number % 500 // 100]
        row = said[group, world][number % 100]
        seen.add((group, world))
        if torch.equal(ids, batches.empty):
            dropped += 1
            assert (told == NOT_SAID).all()
            continue
        line = tokenizer.decode(ids, skip_special_tokens=True).replace(" ,", ",").strip()
        assert line.removeprefix(f"{world}, ") in row["captions"]
        assert torch.equal(told, told_attributes([row["truth"]])[0])
        if group == "native":
            told_pairs.append(row["truth"]["count"] == 2)
    assert seen == {(group, world) for group in few_pictures if group != "large-4x" for world in WORLDS}
    assert 20 <= dropped <= 65 and np.mean(told_pairs) == pytest.approx(SETTINGS["shares"]["pairs"], abs=0.12)


def test_every_eighth_step_sees_fewer_and_larger_windows(
    few_pictures: dict[str, int], tokenizer: CLIPTokenizer
) -> None:
    batch = Batches(tokenizer).draw(Draw(7, 8, 0, torch.Generator().manual_seed(0)))
    assert batch.latents.shape == (2, 20, 32, 32) and (batch.told == NOT_SAID).all()


def test_words_can_be_learnt_before_the_unet_sees_them(
    few_pictures: dict[str, int], tokenizer: CLIPTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = {"steps": 12, "decay": 4, "batch_size": 32, "warmup": 1, "checkpoint_every": 12}
    monkeypatch.setitem(CONFIG, "words", {**CONFIG["words"], **few})
    monkeypatch.setattr("common.RUNS", tmp_path)
    torch.manual_seed(0)
    base, batches = Base(tokenizer), Batches(tokenizer)
    batch = batches.draw(Draw(0, 64, 0, torch.Generator().manual_seed(5)))
    unet = {name: weight.clone() for name, weight in base.unet.state_dict().items()}

    def lost(model: Base) -> float:
        with torch.no_grad():
            return float(hearing_loss(model.hear(batch.ids)[1], batch.told))

    before = lost(base)
    assert learn_words(base, batches) and lost(base) < 0.8 * before
    assert all(torch.equal(weight, unet[name]) for name, weight in base.unet.state_dict().items())
    again = Base(tokenizer)
    assert learn_words(again, batches) and lost(again) == lost(base)  # a finished training is read
