"""Which device and number type a model runs on."""

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

import torch
from torch import Tensor

from mm.errors import OptionError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_SHORT = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}

# CUDA and MPS; torch's CPU allocator; cuBLAS, whose handle or workspace found no room.
_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "CUBLAS_STATUS_ALLOC_FAILED")

_precision = threading.Lock()  # torch's settings belong to the process
_steady, _cudnn_before = 0, True  # threads inside steady_attention, and the setting before the first
_exact: ContextVar[bool] = ContextVar("_exact", default=False)


def resolve_device(name: str | torch.device = "auto") -> torch.device:
    """A usable device; "auto" takes CUDA, then Apple's MPS, then the CPU.

    Raises:
        OptionError: an unknown name, or a device that this machine or this build of torch lacks.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise OptionError(f"device {str(name)!r} is unknown; use auto, cpu, cuda, cuda:1 or mps.") from error
    if isinstance(name, str) and str(device) != name:  # torch takes cuda:300 for cuda:44
        raise OptionError(f"device {name!r} is unknown; use auto, cpu, cuda, cuda:1 or mps.")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise OptionError(
            f"device {str(name)!r} was asked for, but torch {torch.__version__} sees no GPU. Use --device auto or cpu, "
            "or install a GPU driver that fits this torch."
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise OptionError(f"device {str(name)!r} was asked for, but there are {torch.cuda.device_count()} GPUs.")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise OptionError(
            "device 'mps' was asked for, but this machine has no usable Apple GPU. Use --device auto or cpu."
        )
    if device.type not in ("cpu", "cuda", "mps"):
        raise OptionError(f"device {str(name)!r} is not supported; use auto, cpu, cuda, cuda:1 or mps.")
    return device


def resolve_dtype(name: str | torch.dtype, device: torch.device) -> torch.dtype:
    """The type of weights and activations; "auto" is bf16 where an accelerator has it, else fp16; float32 on the CPU.

    Raises:
        OptionError: an unknown name.
    """
    if isinstance(name, torch.dtype):
        name = str(name).removeprefix("torch.")
    if name == "auto":
        if device.type == "cpu":
            return torch.float32
        if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
            return torch.float16
        return torch.bfloat16
    known = DTYPES.get(_SHORT.get(name, name))
    if known is None:
        raise OptionError(f"dtype {name!r} is unknown; use auto, {', '.join(DTYPES)} (or {', '.join(_SHORT)}).")
    return known


def on_device(given: Tensor) -> AbstractContextManager[object]:
    """The device of a CUDA tensor is the current one inside the block: Triton launches there, wherever tensors are."""
    return torch.cuda.device(given.device) if given.is_cuda else nullcontext()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation has failed, on any device."""
    if isinstance(error, RuntimeError):
        return any(sign in str(error) for sign in _NO_MEMORY)
    return isinstance(error, MemoryError)


@contextmanager
def exact_convolutions(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Float32 convolutions in float32 inside the block, also on a GPU, where cuDNN rounds their inputs to TF32 (10 bits
    of fraction) unless told otherwise. Matrix products need nothing: torch leaves them exact by default.
    """
    if device.type != "cuda" or dtype != torch.float32:
        yield
        return
    settings = torch.backends.cudnn.conv  # type: ignore[attr-defined]  # put there when torch is imported
    with _precision:
        before = settings.fp32_precision
        settings.fp32_precision = "ieee"
        try:
            yield
        finally:
            settings.fp32_precision = before


@contextmanager
def steady_attention(device: torch.device) -> Iterator[None]:
    """Attention without cuDNN inside the block, on CUDA: it prepares a plan for each new length, which takes some 50 ms
    each (H200, torch 2.11), and lengths of prompts are new most of the time. Threads may enter at the same time.
    """
    global _steady, _cudnn_before
    if device.type != "cuda":
        yield
        return
    with _precision:
        _steady += 1
        if _steady == 1:
            _cudnn_before = torch.backends.cuda.cudnn_sdp_enabled()
            torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        yield
    finally:
        with _precision:
            _steady -= 1
            if _steady == 0:
                torch.backends.cuda.enable_cudnn_sdp(_cudnn_before)


@contextmanager
def exact_inputs() -> Iterator[None]:
    """No product inside the block, in this thread, rounds its inputs to a narrower type (``mm.language.packing``):
    whether one does depends on its number of rows, and these may be of several answers, which must not depend on each
    other."""
    token = _exact.set(True)
    try:
        yield
    finally:
        _exact.reset(token)


def inputs_are_exact() -> bool:
    """Whether this thread is inside ``exact_inputs``."""
    return _exact.get()
