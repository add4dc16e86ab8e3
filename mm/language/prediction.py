"""The layer behind the last one of DeepSeek-V3, which predicts the token after the next (multi-token prediction, MTP;
arXiv 2412.19437, section 2.2).

Letters: B rows, T tokens of the call, D hidden size, V vocabulary.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from mm.config import DecoderConfig
from mm.language.cache import StaticCache
from mm.language.decoder import Decoder
from mm.language.layers import RMSNorm


class Predictor(nn.Module):
    """From the hidden state after a token, and the token that follows it, to what follows that one.

    It is a decoder of one layer whose input is put together of the two. Published files repeat the model's embedding
    and head in it.

    Args:
        config: of the model that it belongs to.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        width = config.hidden_size
        moe = None if config.moe is None else replace(config.moe, first_moe_layer=0)
        self.enorm = RMSNorm(width, eps=config.rms_norm_eps)
        self.hnorm = RMSNorm(width, eps=config.rms_norm_eps)
        self.eh_proj = nn.Linear(2 * width, width, bias=False)
        self.decoder = Decoder(replace(config, num_layers=1, moe=moe))

    def forward(
        self,
        tokens: Tensor,
        hidden: Tensor,
        *,
        positions: Tensor | None = None,
        cache: StaticCache | None = None,
        visible: int | None = None,
    ) -> Tensor:
        """(B, T, D) hidden states, for ``logits``; the other arguments as in ``mm.contracts.Decoder``.

        Args:
            tokens: (B, T) int64; token i is what follows position i.
            hidden: (B, T, D), the model's after its final norm, at position i.
            positions: (B, T) int64, the i; also the cache slots.
            cache: of ``new_cache``.
            visible: cache slots that are read.
        """
        both = torch.cat((self.enorm(self.decoder.embed(tokens)), self.hnorm(hidden)), dim=-1)  # (B, T, 2 D)
        return self.decoder(self.eh_proj(both), positions=positions, cache=cache, visible=visible)  # type: ignore[no-any-return]

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., D) -> (..., V) float32."""
        return self.decoder.logits(hidden)

    def new_cache(self, num_rows: int, length: int) -> StaticCache:
        """An empty cache of its one layer."""
        return self.decoder.new_cache(num_rows, length)
