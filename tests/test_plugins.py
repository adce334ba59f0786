"""A LoRA, a ControlNet and an IP-Adapter go on working inside a cascade."""

from typing import Any

import numpy as np
import torch
from PIL import Image

from cascade_runs import SD, run
from tiny import add_tiny_ip_adapter, add_tiny_lora, tiny_controlnet


def test_a_lora_goes_on_working() -> None:
    plain = run(SD.shared())
    pipe: Any = add_tiny_lora(SD.build())
    tuned = run(pipe)
    assert not torch.equal(plain.stages[1].latents, tuned.stages[1].latents)
    pipe.unet.disable_adapters()
    # The wrapped layers' products may be summed in another order; four steps of a random network magnify that.
    torch.testing.assert_close(run(pipe).stages[1].latents, plain.stages[1].latents, rtol=1e-3, atol=1e-3)


def test_a_controlnet_goes_on_working_at_the_stages_size() -> None:
    pipe: Any = tiny_controlnet(SD.build())
    noise = np.random.default_rng(0).integers(0, 255, (128, 128, 3), dtype=np.uint8)
    control = Image.fromarray(noise)
    sizes = []
    hook = pipe.controlnet.register_forward_pre_hook(
        lambda module, args, kwargs: sizes.append(tuple(kwargs["controlnet_cond"].shape[-2:])), with_kwargs=True
    )
    controlled = run(pipe, image=control)
    hook.remove()
    assert set(sizes) == {(128, 128), (256, 256)}
    other = run(pipe, image=Image.new("RGB", (128, 128), "red"))
    assert not torch.equal(controlled.stages[1].latents, other.stages[1].latents)


def test_an_ip_adapter_goes_on_working() -> None:
    pipe: Any = SD.build()
    inputs = add_tiny_ip_adapter(pipe)
    pipe.set_ip_adapter_scale(1.0)
    strong = run(pipe, **inputs)
    pipe.set_ip_adapter_scale(0.0)
    weak = run(pipe, **inputs)
    assert not torch.equal(strong.stages[1].latents, weak.stages[1].latents)
    assert torch.equal(weak.stages[1].latents, run(pipe, **inputs).stages[1].latents)
