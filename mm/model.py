"""A vision-language model, put together from built parts.

Letters: N views, P patches, W encoder width, M tokens a view, D hidden size, T prompt tokens, S pixels a side.
"""

import math

import torch
from torch import Tensor, nn

from mm.adaptors.tile_layout import layout
from mm.contracts import Inputs, ViewMemory
from mm.devices import exact_convolutions
from mm.fusion import merge
from mm.language.decoder import Decoder
from mm.view_cache import ViewCache

# Views that go through the encoder at once: enough to fill a GPU, few enough to bound the memory of a 50-page prompt.
VIEWS_PER_PASS = 32


class VisionLanguageModel(nn.Module):
    """Encoder, adaptor and decoder, with DeepSeek-VL2's newline and separator vectors between the views.

    Args:
        vision: pixels (N, 3, S, S) -> features (N, P, W).
        adaptor: features (N, P, W) -> tokens (N, M, D), M a square number.
        decoder: the language model.
    """

    def __init__(self, vision: nn.Module, adaptor: nn.Module, decoder: Decoder) -> None:
        super().__init__()
        self.vision = vision
        self.adaptor = adaptor
        self.decoder = decoder
        width = decoder.config.hidden_size
        self.image_newline = nn.Parameter(torch.randn(width) / math.sqrt(width))
        self.view_separator = nn.Parameter(torch.randn(width) / math.sqrt(width))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.image_newline.device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights."""
        return self.image_newline.dtype

    def encode_views(self, pixels: Tensor) -> Tensor:
        """Normalised views (N, 3, S, S), on any device -> tokens (N, M, D)."""
        parts = []
        with exact_convolutions(self.device, self.dtype):
            for views in pixels.split(VIEWS_PER_PASS):
                parts.append(self.adaptor(self.vision(views.to(self.device, self.dtype))))
        return torch.cat(parts)

    def image_embeddings(self, tokens: Tensor, tile_grids: Tensor) -> Tensor:
        """Tokens (N, M, D) of all views of some images -> (K, D) in the order of the prompt's image positions.

        Args:
            tokens: what ``encode_views`` returned: image after image, the global view first.
            tile_grids: (num_images, 2) int64, tiles across and down.
        """
        side = math.isqrt(tokens.shape[1])
        table = torch.cat((tokens.flatten(0, 1), self.image_newline[None], self.view_separator[None]))
        return table[layout(side, tile_grids).to(table.device)]

    def embed_inputs(self, inputs: list[Inputs], memory: ViewMemory | None = None) -> list[Tensor]:
        """Embeddings (T_i, D) of each conversation, image features in place; one encoder run over all new views.

        Args:
            inputs: conversations.
            memory: remembers views between calls; None encodes equal views of this call once and forgets them.

        Raises:
            InputError: a prompt's image positions do not match its views.
        """
        counts = [item.pixels.shape[0] for item in inputs]
        if sum(counts):
            views = torch.cat([item.pixels for item in inputs if item.pixels.shape[0]])
            per_row = (memory or ViewCache(0)).encode(views, self.encode_views).split(counts)
        rows = []
        for index, item in enumerate(inputs):
            embeds = self.decoder.embed(item.input_ids.to(self.device))
            if counts[index]:
                images = self.image_embeddings(per_row[index], item.tile_grids)
                embeds = merge(embeds, item.image_mask.to(self.device), images)
            rows.append(embeds)
        return rows
