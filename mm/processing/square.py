"""Images as DeepSeek-VL and Janus see them: scaled to fit a square, with bars of one colour, as floats."""

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from mm.errors import ImageError
from mm.processing.base import Colour

Bytes = npt.NDArray[np.uint8]


class SquareImages:
    """The published image processor.

    Args:
        size: pixels a side of the square.
        min_size: pixels that the shorter side of a scaled image has at least.
        background: colour of the bars.
        rescale_factor: bytes times this are 0..1.
        mean, std: of values in 0..1, a channel each; None leaves the values in 0..1.
    """

    def __init__(
        self,
        *,
        size: int,
        min_size: int,
        background: tuple[int, int, int],
        rescale_factor: float,
        mean_std: tuple[Colour, Colour] | None,
    ) -> None:
        self.size = size
        self.min_size = min_size
        self.background = background
        # Rescaled in float64, then normalised in float32.
        rescaled = (np.arange(256) * rescale_factor).astype(np.float32)
        mean, std = mean_std or ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
        self._values = [(rescaled - np.float32(m)) / np.float32(s) for m, s in zip(mean, std, strict=True)]

    def place(self, width: int, height: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Size of an image scaled to fit, and its top left corner in the square."""
        longest = max(width, height)
        across, down = (max(int(side / longest * self.size), self.min_size) for side in (width, height))
        return (across, down), ((self.size - across) // 2, (self.size - down) // 2)

    def view(self, image: Image.Image) -> Bytes:
        """(S, S, 3): the image scaled (bicubic) and centred.

        Raises:
            ImageError: the image is not RGB.
        """
        if image.mode != "RGB":
            raise ImageError(f"expected an RGB image, got mode {image.mode}. Open it with mm.images.open_image")
        scaled, corner = self.place(*image.size)
        resized = image.resize(scaled, resample=Image.Resampling.BICUBIC)
        if scaled == (self.size, self.size):
            return np.asarray(resized)
        out = Image.new("RGB", (self.size, self.size), self.background)
        out.paste(resized, corner)
        return np.asarray(out)

    def normalize(self, views: Bytes) -> Tensor:
        """(n, S, S, 3) -> (n, 3, S, S) float32."""
        channels = [values[views[..., channel]] for channel, values in enumerate(self._values)]
        return torch.from_numpy(np.stack(channels, axis=1))  # (n, 3, S, S)
