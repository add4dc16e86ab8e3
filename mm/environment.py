"""What a bug report needs to know about a machine, and how much memory it has. No secrets: tokens are never read."""

import os
import platform
import sys
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from mm import __version__
from mm.hub import bundled_models

# Distributions whose version decides what the code does, in the order they are shown.
PACKAGES = (
    "torch", "torchvision", "timm", "tokenizers", "safetensors", "huggingface_hub", "pillow", "numpy", "einops",
    "diffusers", "open-clip-torch", "gradio", "typer", "rich", "pyarrow", "pypdfium2", "pyyaml",
    "peft", "accelerate", "matplotlib", "ray", "transformers",
)  # fmt: skip

# Variables that change what mm does and hold no secret. A token is reported as set or not set, never shown.
VARIABLES = (
    "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_ENDPOINT", "OMP_NUM_THREADS",
    "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF", "NO_COLOR",
)  # fmt: skip


@dataclass(frozen=True)
class Memory:
    """Bytes of main or device memory."""

    total: int
    available: int


@dataclass(frozen=True)
class Device:
    """Something a model can run on."""

    name: str  # as --device takes it
    hardware: str
    memory: Memory
    dtypes: tuple[str, ...]
    default_dtype: str  # what dtype="auto" means there


@dataclass(frozen=True)
class Environment:
    """A machine and an installation, for `mm env`."""

    mm: str
    python: str
    platform: str
    cpu: str
    num_cores: int
    num_threads: int  # of torch
    devices: tuple[Device, ...]
    packages: dict[str, str | None]  # None: not installed
    package_folder: str
    cache_folder: str
    hf_token: bool  # whether HF_TOKEN is set
    variables: dict[str, str]
    bundled_models: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def host_memory() -> Memory:
    """Main memory of this machine, or of the control group (container) this process runs in when that has less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    available = _meminfo_available()
    if available is None:
        available = total  # not Linux: how much is free is not told without another dependency
    limit, used = (_cgroup_bytes(name) for name in ("memory.max", "memory.current"))
    if limit is not None and used is not None and limit < total:
        total, available = limit, min(available, limit - used)
    return Memory(total, available)


def device_memory(device: str) -> Memory:
    """Memory of a device as ``torch.device`` spells it; main memory for the CPU and for devices that share it."""
    import torch

    if torch.device(device).type == "cuda":
        free, total = torch.cuda.mem_get_info(torch.device(device))
        return Memory(total, free)
    return host_memory()


def read_environment() -> Environment:
    """The machine as it is now. Imports torch."""
    import torch

    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    return Environment(
        mm=__version__,
        python=sys.version.split()[0],
        platform=platform.platform(),
        cpu=_cpu_name(),
        num_cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        num_threads=torch.get_num_threads(),
        devices=_devices(),
        packages={name: _version(name) for name in PACKAGES},
        package_folder=str(Path(__file__).parent),
        cache_folder=os.environ.get("HF_HUB_CACHE", str(home / "hub")),
        hf_token=bool(os.environ.get("HF_TOKEN")),
        variables={name: os.environ[name] for name in VARIABLES if name in os.environ},
        bundled_models=tuple(bundled_models()),
    )


def _devices() -> tuple[Device, ...]:
    import torch

    found = []
    for index in range(torch.cuda.device_count()):
        bf16 = torch.cuda.get_device_capability(index) >= (8, 0)
        dtypes = ("bfloat16", "float16", "float32") if bf16 else ("float16", "float32")
        name = f"cuda:{index}"
        found.append(Device(name, torch.cuda.get_device_name(index), device_memory(name), dtypes, dtypes[0]))
    if torch.backends.mps.is_available():
        found.append(Device("mps", "Apple GPU", host_memory(), ("bfloat16", "float16", "float32"), "bfloat16"))
    found.append(Device("cpu", _cpu_name(), host_memory(), ("float32", "bfloat16"), "float32"))
    return tuple(found)


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.lower().startswith(("model name", "hardware")):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _meminfo_available() -> int | None:
    info = Path("/proc/meminfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024  # the file counts in kB of 1024 bytes
    return None


def _cgroup_bytes(name: str) -> int | None:
    file = Path("/sys/fs/cgroup") / name
    text = file.read_text().strip() if file.is_file() else "max"
    return int(text) if text.isdigit() else None
