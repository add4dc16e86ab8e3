"""Devices and number types by name."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from mm.devices import exact_convolutions, on_device, resolve_device, resolve_dtype
from mm.errors import OptionError


def test_auto_on_the_cpu_is_float32() -> None:
    assert resolve_dtype("auto", torch.device("cpu")) == torch.float32
    assert resolve_dtype("bf16", torch.device("cpu")) == torch.bfloat16
    assert resolve_dtype(torch.float16, torch.device("cpu")) == torch.float16
    assert resolve_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["tpu9", "cuda:x", "xla", "meta", "cuda:300", "cuda:-1"])
def test_unknown_device(name: str) -> None:
    with pytest.raises(
        OptionError, match=f"device '{name}' is (unknown|not supported); use auto, cpu, cuda, cuda:1 or mps"
    ):
        resolve_device(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there() -> None:
    with pytest.raises(
        OptionError, match=r"device 'cuda' was asked for, but torch .* sees no GPU. Use --device auto or cpu"
    ):
        resolve_device("cuda")


def test_unknown_dtype() -> None:
    with pytest.raises(OptionError, match="dtype 'int7' is unknown; use auto, float32, bfloat16, float16"):
        resolve_dtype("int7", torch.device("cpu"))


def test_the_device_of_a_tensor_is_the_current_one_only_where_there_is_such_a_thing() -> None:
    with on_device(torch.zeros(2)):
        pass
    with FakeTensorMode():  # of a GPU that need not be there
        given = torch.empty(2, device="cuda:3")
    place = on_device(given)
    assert isinstance(place, torch.cuda.device) and place.idx == 3


def test_float32_convolutions_on_a_gpu_are_not_rounded_to_tf32() -> None:
    settings = torch.backends.cudnn.conv
    before = settings.fp32_precision
    assert before != "ieee"  # torch's default, which the block must lift and put back
    with exact_convolutions(torch.device("cuda"), torch.float32):
        assert settings.fp32_precision == "ieee"
    assert settings.fp32_precision == before
    with pytest.raises(KeyError), exact_convolutions(torch.device("cuda"), torch.float32):
        raise KeyError
    assert settings.fp32_precision == before
    for device, dtype in (("cpu", torch.float32), ("cuda", torch.bfloat16)):
        with exact_convolutions(torch.device(device), dtype):
            assert settings.fp32_precision == before
