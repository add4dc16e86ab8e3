"""A vision-language model, put together from built parts.

Letters: N views, P patches, W encoder width, M tokens a view, D hidden size, T prompt tokens, S pixels a side.
"""

import torch
from torch import Tensor, nn

from mm.contracts import Inputs, ViewMemory
from mm.devices import exact_convolutions
from mm.errors import TaskError
from mm.fusion import merge
from mm.generation.flow import FlowHead
from mm.generation.image_head import ImageHead
from mm.language.decoder import Decoder
from mm.view_cache import ViewCache

# Views that go through the encoder at once: enough to fill a GPU, few enough to bound the memory of a 50-page prompt.
VIEWS_PER_PASS = 32


class Blind(nn.Module):
    """The place of an encoder in a model that reads text only: no parameters, and nothing that could be run."""

    def forward(self, pixels: Tensor) -> Tensor:
        """Raise ``TaskError``."""
        raise TaskError("this model reads text only and takes no image")


class VisionLanguageModel(nn.Module):
    """Encoder, adaptor, the order of an image's tokens, and decoder; a family builds the parts.

    Args:
        vision: pixels (N, 3, S, S) -> features, (N, P, W) of one encoder.
        adaptor: features -> tokens (N, M, D).
        arrange: tokens (N, M, D) of all views and tile grids (num_images, 2) -> (K, D), in the order of the prompt's
            image positions; holds the vectors that stand between the views, where a family has such.
        decoder: the language model.
        image_head: the generation side, where there is one; ``mm.generation.image_head`` says how a loop uses it.
        flow_head: likewise of a model that draws by flow (``mm.generation.flow``).
    """

    def __init__(
        self,
        *,
        vision: nn.Module,
        adaptor: nn.Module,
        arrange: nn.Module,
        decoder: Decoder,
        image_head: ImageHead | None = None,
        flow_head: FlowHead | None = None,
    ) -> None:
        super().__init__()
        self.arrange = arrange
        self.vision = vision
        self.adaptor = adaptor
        self.decoder = decoder
        self.image_head = image_head
        self.flow_head = flow_head

    @property
    def device(self) -> torch.device:
        """Where the weights are; of a model on several devices the first one, where prompts come in and logits out."""
        return self.decoder.model.embed_tokens.weight.device

    @property
    def placement(self) -> tuple[torch.device, ...] | None:
        """Where each layer of the decoder is; None where all is on one device (``mm.transforms.split``)."""
        return self.decoder.placement

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights."""
        return self.decoder.lm_head.weight.dtype

    @property
    def image_newline(self) -> nn.Parameter:
        """DeepSeek-VL2's vector at the end of each row of an image, for training; other families have none."""
        vector: nn.Parameter = self.arrange.get_parameter("image_newline")
        return vector

    @property
    def view_separator(self) -> nn.Parameter:
        """DeepSeek-VL2's vector between the global view and the tiles, for training; other families have none."""
        vector: nn.Parameter = self.arrange.get_parameter("view_separator")
        return vector

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
        arranged: Tensor = self.arrange(tokens, tile_grids)
        return arranged

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
