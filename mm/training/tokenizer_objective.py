"""An image tokenizer as it is trained: reconstruction with weight on the objects, and a codebook that stays in use.

The codebook's rows have length 1, as in LlamaGen (arXiv 2406.06525, section 2.1); gradients pass straight through the
choice of a code (VQ-VAE, arXiv 1711.00937, section 3.2). Codes that no picture uses are moved to vectors of the latest
pictures.

Letters: B pictures, S pixels a side, h w codes down and across, C code width, K codes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mm.model import VisionLanguageModel
from mm.training.drawing_objective import image_head_of
from mm.training.objective import Losses, StepObjective, TrainingBatch
from mm.training.ranks import Ranks
from mm.training.recipe import TokenizerLossRecipe


@dataclass(frozen=True)
class TokenizerLosses(Losses):
    """Losses of pictures: ``row_loss`` is a picture's mean squared error, ``wrong`` (B, 1) a low PSNR."""

    reconstruction: Tensor  # () weighted absolute and squared error
    distance: Tensor  # () squared distance of vectors to their codes
    psnr: Tensor  # () mean over pictures, dB
    perplexity: Tensor  # () of the codes of the step
    used: Tensor  # () share of the codebook that the step uses


class TokenizerObjective(StepObjective):
    """Losses of pictures.

    Args:
        model: a Janus; all but its image tokenizer is frozen.
        recipe: weights.
    """

    reported = ("reconstruction", "distance", "psnr", "perplexity", "used")
    counts: Tensor
    latest: Tensor

    def __init__(self, model: VisionLanguageModel, recipe: TokenizerLossRecipe) -> None:
        super().__init__(model)
        self.recipe = recipe
        self.vq = [image_head_of(model).vq]  # in a list: its parameters are the model's
        model.requires_grad_(False)
        self.vq[0].requires_grad_(True)
        shape = self.vq[0].get_parameter("quantize.embedding.weight").shape
        self.register_buffer("counts", torch.zeros(shape[0]), persistent=False)  # uses since the codes were last moved
        self.register_buffer("latest", torch.zeros(shape), persistent=False)  # some vectors of the latest pictures

    def weight(self, done: float) -> float:
        """0 while pictures are painted from vectors, so that codes begin where these are; then 1."""
        return float(done >= self.recipe.free_until)

    def pictured(self) -> tuple[nn.Module, ...]:
        """Both halves of the tokenizer."""
        return self.vq[0].networks()

    def forward(self, batch: TrainingBatch, coded: float | Tensor) -> TokenizerLosses:
        """All losses of a batch; ``total = reconstruction + distance``. ``coded``: see ``weight``."""
        vq = self.vq[0]
        pixels = batch.views[:, 0].permute(0, 3, 1, 2).float() / 127.5 - 1  # (B, 3, S, S)
        vectors = vq.latents(pixels)  # (B, h, w, C)
        with torch.autocast(pixels.device.type, enabled=False):
            vectors = vectors.float()
            codes = vq.nearest(vectors.detach())  # (B, h, w)
            rows = F.embedding(codes, vq.codebook())  # (B, h, w, C)
            away = (rows - vectors.detach()).square().sum(dim=-1).mean()
            back = (rows.detach() - vectors).square().sum(dim=-1).mean()
        painted = vq.paint(vectors + coded * (rows - vectors).detach()).float()
        error = painted - pixels
        weights = self._weights(batch.characters[:, 0], pixels.shape[-1])  # (B, 1, S, S)
        loss = ((error.abs() + self.recipe.squared * error.square()) * weights).sum() / (3 * weights.sum())
        distance = away + self.recipe.commitment * coded * back
        with torch.no_grad():
            squared = error.square().flatten(1).mean(dim=1)  # (B,)
            decibels = 10 * torch.log10(4 / squared.clamp(min=1e-10))
            used = self._count(codes, vectors)
            shares = used / used.sum()
        return TokenizerLosses(
            total=loss + distance,
            reconstruction=loss.detach(),
            distance=distance.detach(),
            psnr=decibels.mean(),
            perplexity=(-(shares * shares.clamp(min=1e-12).log()).sum()).exp(),
            used=(used > 0).float().mean(),
            row_loss=squared,
            row_tokens=torch.ones_like(codes[:, 0, 0]),
            wrong=decibels[:, None] < self.recipe.right_decibels,
        )

    @torch.no_grad()
    def after_step(self, step: int, done: float, ranks: Ranks) -> None:
        """Every ``reseed_steps`` steps: moves the codes that no rank used to vectors of the first rank's pictures."""
        if step % self.recipe.reseed_steps or done > self.recipe.reseed_until:
            return
        order = torch.randperm(len(self.latest), device=self.latest.device)
        vectors = self.latest[order] * float(ranks.is_main)
        ranks.sum_(vectors)
        ranks.sum_(self.counts)
        book = self.vq[0].get_parameter("quantize.embedding.weight")
        book.copy_(torch.where((self.counts == 0)[:, None], vectors, book))
        self.counts.zero_()

    def _weights(self, objects: Tensor, side: int) -> Tensor:
        """(B, G, G, 2) classes -> (B, 1, S, S) weight of every pixel."""
        near = (objects[..., 0] != 0)[:, None].float()
        weights: Tensor = 1 + (self.recipe.foreground - 1) * F.interpolate(near, size=(side, side), mode="nearest")
        return weights

    def _count(self, codes: Tensor, vectors: Tensor) -> Tensor:
        """Uses (K,) of each code in this step; remembers them, and vectors from all over the step's pictures."""
        used = torch.zeros_like(self.counts).index_add_(0, codes.flatten(), torch.ones_like(vectors[..., 0]).flatten())
        if self.training:
            self.counts += used
            flat = vectors.flatten(0, 2)
            places = torch.arange(len(self.latest), device=flat.device) * max(1, len(flat) // len(self.latest))
            self.latest.copy_(flat[places % len(flat)])
        return used
