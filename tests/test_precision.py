"""Which devices are said to compute in bfloat16, and what evaluation does with the answer."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from selfcascade.base_models import precision
from selfcascade.evaluation.make_samples import reduced_precision


@pytest.mark.skipif(sys.platform != "linux", reason="reads the processor's flags from the system")
def test_a_processor_has_bfloat16_if_its_flags_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    flags = Path("/proc/cpuinfo").read_text().split()
    if precision.platform.machine() != "x86_64":
        pytest.skip("another processor's flags have other names")
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)  # also said of emulation
    assert precision.has_bfloat16("cpu") == ("avx512_bf16" in flags)


@pytest.mark.parametrize(("machine", "found"), [("x86_64", False), ("AMD64", False), ("aarch64", True)])
def test_emulation_does_not_count(machine: str, found: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision.platform, "machine", lambda: machine)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    assert precision.has_bfloat16("cpu") is found
    assert not precision.has_bfloat16("meta")


@torch.no_grad()
@pytest.mark.parametrize("native", [False, True])
def test_samples_of_an_evaluation_are_reduced_where_it_helps(
    native: bool, bundled_pipe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selfcascade.evaluation.make_samples.has_bfloat16", lambda device: native)
    unet, generator = bundled_pipe.unet, torch.Generator().manual_seed(0)
    z, states = torch.randn(1, 20, 16, 16, generator=generator), torch.randn(1, 32, 128, generator=generator)
    whole = unet(z, 500, states).sample
    with reduced_precision(bundled_pipe):
        reduced = unet(z, 500, states).sample
    if native:
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(reduced, unet(z, 500, states).sample)
    else:
        assert torch.equal(reduced, whole)
    assert torch.equal(unet(z, 500, states).sample, whole)  # the context leaves nothing behind
