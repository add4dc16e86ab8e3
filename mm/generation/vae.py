"""Latents to pixels with an autoencoder of diffusers' layout, which is downloaded apart from the model that flows."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mm.devices import exact_convolutions
from mm.errors import CheckpointNotFoundError, ConfigError, WeightsError

CONFIG = "config.json"
WEIGHTS = "diffusion_pytorch_model.safetensors"
_SILENT = 100  # above every level of Python's logging


class Autoencoder:
    """diffusers' AutoencoderKL, of which pictures need the decoder.

    Args:
        network: an AutoencoderKL.
    """

    def __init__(self, network: Any) -> None:
        self._network = network.eval().requires_grad_(False)
        self._scale: float = network.config.scaling_factor

    @classmethod
    def load(
        cls, folder: Path, *, channels: int, pixels: int, device: torch.device, dtype: torch.dtype
    ) -> "Autoencoder":
        """Read a folder with config.json and diffusion_pytorch_model.safetensors.

        Args:
            folder: see above.
            channels: C of the latents that it must take.
            pixels: a side of what one latent must stand for.
            device: where its weights go.
            dtype: their type. In float16 SDXL's autoencoder overflows; then it is float32.

        Raises:
            CheckpointNotFoundError: a file is missing.
            ConfigError: it is another kind of model, or its latents are of another form.
            WeightsError: its weights are not complete or cannot be read.
        """
        check_folder(folder, channels=channels, pixels=pixels)
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

        try:
            with _quietly():
                network, report = AutoencoderKL.from_pretrained(
                    folder,
                    local_files_only=True,
                    use_safetensors=True,
                    low_cpu_mem_usage=False,
                    output_loading_info=True,
                    torch_dtype=torch.float32 if dtype == torch.float16 else dtype,
                )
        except (OSError, RuntimeError, ValueError, TypeError) as error:
            first = (str(error).splitlines() or [type(error).__name__])[0].rstrip(". ")
            raise WeightsError(
                f"the autoencoder in {folder} cannot be loaded: {first}. Download its config.json and {WEIGHTS} again"
            ) from error
        wrong = {kind: report[f"{kind}_keys"] for kind in ("missing", "unexpected") if report[f"{kind}_keys"]}
        if wrong:
            counts = ", ".join(f"{len(names)} {kind} ({names[0]}, ...)" for kind, names in wrong.items())
            raise WeightsError(f"{folder / WEIGHTS} does not belong to its config.json: {counts}. Download both again")
        return cls(network.to(device))

    def decode(self, latents: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, 3, H, W) float32, about -1..1; picture by picture, so that none depends on the others."""
        device, dtype = self._network.device, self._network.dtype
        with torch.no_grad(), exact_convolutions(device, dtype):
            scaled = latents.to(device, torch.float32) / self._scale
            rows = [self._network.decode(row.to(dtype)).sample.float() for row in scaled.split(1)]
        return torch.cat(rows)


@contextmanager
def _quietly() -> Iterator[None]:
    """Without what diffusers logs: errors say it, and in our words."""
    from diffusers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity(_SILENT)
    try:
        yield
    finally:
        logging.set_verbosity(before)


def check_folder(folder: Path, *, channels: int, pixels: int) -> None:
    """What can be said of a folder without loading it; arguments and errors as of ``Autoencoder.load``."""
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise CheckpointNotFoundError(
                f"{str(folder)!r} has no {name}, so it is no autoencoder. Name a folder with {CONFIG} and {WEIGHTS} in "
                "diffusers' layout, such as a copy of stabilityai/sdxl-vae"
            )
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder / CONFIG} cannot be read as JSON ({error}). Download it again") from error
    kind = config.get("_class_name") if isinstance(config, dict) else None
    if kind != "AutoencoderKL":
        raise ConfigError(
            f"{folder / CONFIG} describes {kind!r}; expected an AutoencoderKL such as stabilityai/sdxl-vae"
        )
    levels = config.get("block_out_channels")
    found = (config.get("latent_channels"), 2 ** (len(levels) - 1) if isinstance(levels, list) else None)
    if found != (channels, pixels):
        raise ConfigError(
            f"the autoencoder in {folder} has latents of {found[0]} channels for {found[1]} pixels a side; this model "
            f"draws latents of {channels} channels for {pixels} pixels. Use stabilityai/sdxl-vae"
        )
    if config.get("shift_factor") is not None or not isinstance(config.get("scaling_factor"), float):
        raise ConfigError(
            f"{folder / CONFIG} has scaling_factor {config.get('scaling_factor')!r} and shift_factor "
            f"{config.get('shift_factor')!r}; expected a number and none. Use stabilityai/sdxl-vae"
        )
