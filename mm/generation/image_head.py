"""Janus's generation side: image codes into the decoder, and the decoder's hidden states to logits over the codes.

What a loop over image tokens does with it (Janus, arXiv 2410.13848, section 3.1; ``mm.contracts.ImageHead``):

    hidden = decoder(decoder.embed(prompt_ids), cache=cache)            # prefill, one row a prompt
    logits = head.logits(hidden[:, -1])                                 # (B, K)
    codes = choose(guided(conditional_logits, unconditional_logits))    # u + scale * (c - u)
    hidden = decoder(head.embed(codes[:, None]), positions=..., cache=cache)
    pixels = head.vq.decode(all_codes, head.grid)

Letters: B rows, T codes, D hidden size, K codes of the codebook.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from mm.config import ImageHeadConfig
from mm.generation.vq import VQTokenizer


class ImageHead(nn.Module):
    """Embedding, aligner and head of image codes, and the tokenizer that makes pixels of them.

    Args:
        config: sizes.
        width: hidden size D of the decoder.
        aligner: code embeddings (..., C) -> (..., D).
        vq: the image tokenizer.
    """

    def __init__(self, config: ImageHeadConfig, *, width: int, aligner: nn.Module, vq: VQTokenizer) -> None:
        super().__init__()
        self.num_codes = config.vq.num_codes
        self.grid = (config.grid, config.grid)  # codes down and across of the pictures that the model was trained for
        self.size = (self.grid[0] * config.vq.downsampling, self.grid[1] * config.vq.downsampling)  # their pixels
        self.embedding = nn.Embedding(config.vq.num_codes, config.vq.code_width)
        self.aligner = aligner
        self.output_mlp_projector = nn.Linear(width, config.head_width)
        self.vision_head = nn.Linear(config.head_width, config.vq.num_codes)
        self.vq = vq

    def embed(self, codes: Tensor) -> Tensor:
        """(B, T) int64 -> (B, T, D). Codes out of range are not checked here: see ``mm.generation.vq.check_codes``."""
        out: Tensor = self.aligner(self.embedding(codes))
        return out

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., D) hidden states after the final norm -> (..., K) float32."""
        out: Tensor = self.vision_head(F.gelu(self.output_mlp_projector(hidden)))
        return out.float()
