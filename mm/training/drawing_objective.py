"""A Janus as it is trained: the codes of a picture after its prompt, and answers about another picture, in one step.

Both kinds stand in every row, so that each step has gradients for every part of the model. Codes come from the frozen
image tokenizer, in the step.

Letters: B rows, T tokens of a part, N codes of a picture, P encoder tokens of a picture, S pixels a side, D hidden
size, K codes of the codebook.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mm.errors import ConfigError
from mm.generation.image_head import ImageHead
from mm.model import VisionLanguageModel
from mm.synthetic.shapes import COLOURS, SHAPES
from mm.training.drawing_data import FIRST_CODE_LABEL, FIRST_ID
from mm.training.objective import Losses, StepObjective, TrainingBatch
from mm.training.recipe import DrawingLossRecipe
from mm.training.ring import IGNORED_CHARACTER


@dataclass(frozen=True)
class DrawingLosses(Losses):
    """Losses of both parts. Rows count their codes and answer tokens together; ``wrong`` is (B, N + T - 1)."""

    codes: Tensor  # () cross-entropy of the codes, nats
    answer: Tensor  # () weighted cross-entropy of the answer tokens, nats
    answer_error: Tensor  # () share of answer tokens that are not the most likely one
    patches: Tensor  # () cross-entropy of shape and colour of the patches, nats
    patch_accuracy: Tensor  # () share of patches with an object whose shape and colour are right


def image_head_of(model: VisionLanguageModel) -> ImageHead:
    """The generation side.

    Raises:
        ConfigError: the model has none.
    """
    if model.image_head is None:
        raise ConfigError("this recipe trains a model that draws, but its config.json has no generation side.")
    return model.image_head


class DrawingObjective(StepObjective):
    """Losses of rows of two parts, see ``mm.training.drawing_data``.

    Args:
        model: a Janus; its image tokenizer is frozen.
        recipe: lengths and weights.
        pad_id: of the unconditional prompt and of padding.
        image_mean, image_std: the processor's normalisation, in units of 0..1.
    """

    reported = ("codes", "answer", "answer_error", "patches", "patch_accuracy")
    stacks = ("vision.blocks", "decoder.model.layers")
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: VisionLanguageModel,
        recipe: DrawingLossRecipe,
        *,
        image_mean: tuple[float, ...],
        image_std: tuple[float, ...],
    ) -> None:
        super().__init__(model)
        self.recipe = recipe
        self.head = [image_head_of(model)]  # in a list: its parameters are the model's
        self.head[0].vq.requires_grad_(False)
        width = int(model.vision.embed_dim)  # type: ignore[arg-type]
        self.patch_head = nn.Linear(width, 2 + len(SHAPES) + len(COLOURS))
        self.register_buffer("mean", torch.tensor(image_mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(image_std).view(3, 1, 1), persistent=False)

    def weight(self, done: float) -> float:
        """Of the patches, linear from start to end."""
        return self.recipe.patch_start + (self.recipe.patch_end - self.recipe.patch_start) * done

    def pictured(self) -> tuple[nn.Module, ...]:
        """The half of the tokenizer that makes the codes."""
        return self.head[0].vq.networks()[:1]

    def forward(self, batch: TrainingBatch, patch_weight: float | Tensor) -> DrawingLosses:
        """All losses of a batch; ``total = codes + text * answer + patch_weight * patches``."""
        cut = self.recipe.drawn_length
        pixels = batch.views.permute(0, 1, 4, 2, 3).float() / 255  # (B, 2, 3, S, S)
        code_entropy, code_taken, code_wrong = self._codes(pixels[:, 0], batch.source[:, :cut], batch.labels[:, :cut])
        features = self.model.vision((pixels[:, 1] - self.mean) / self.std)  # (B, P, W)
        entropy, taken, wrong = self._answers(features, batch.source[:, cut:], batch.labels[:, cut:])
        tokens = taken.sum(dim=1)
        weights = tokens.clamp(min=1).float().pow(self.recipe.length_power)  # (B,)
        answer = (entropy.sum(dim=1) * weights).sum() / (tokens * weights).sum().clamp(min=1e-6)
        codes = code_entropy.sum() / code_taken.sum().clamp(min=1)
        patches, accuracy = self._patches(features, batch.characters[:, 1])
        row_tokens = tokens + code_taken.sum(dim=1)
        return DrawingLosses(
            total=codes + self.recipe.text * answer + patch_weight * patches,
            codes=codes.detach(),
            answer=answer.detach(),
            answer_error=wrong.sum() / tokens.sum().clamp(min=1),
            patches=patches.detach(),
            patch_accuracy=accuracy,
            row_loss=(entropy.sum(dim=1) + code_entropy.sum(dim=1)).detach() / row_tokens.clamp(min=1),
            row_tokens=row_tokens,
            wrong=torch.cat((code_wrong, wrong), dim=1),
        )

    @torch.no_grad()
    def tokenize(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, S, S) in 0..1 -> codes (B, N), the nearest found in float32."""
        vq = self.head[0].vq
        vectors = vq.latents(pixels * 2 - 1)  # (B, h, w, C)
        with torch.autocast(pixels.device.type, enabled=False):
            return vq.nearest(vectors.float()).flatten(1)

    def _codes(self, pixels: Tensor, source: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Cross-entropy (B, N) of every code, which ones are learned, and which are wrong."""
        head, codes = self.head[0], self.tokenize(pixels)  # (B, N)
        hidden = self.model.decoder(self._embeds(head.embed(codes), source, skip=self._num_tokens(source)))
        # The codes of a row stand together; hidden state t - 1 predicts what stands at t.
        first = (labels <= FIRST_CODE_LABEL).int().argmax(dim=1, keepdim=True)  # (B, 1)
        places = first + torch.arange(codes.shape[1], device=codes.device)  # (B, N)
        places = places.clamp(1, labels.shape[1] - 1)
        taken = labels.gather(1, places) <= FIRST_CODE_LABEL
        before = (places - 1).unsqueeze(2).expand(-1, -1, hidden.shape[2])
        logits = head.logits(hidden.gather(1, before))  # (B, N, K)
        entropy = F.cross_entropy(logits.flatten(0, 1), codes.flatten(), reduction="none").view_as(codes) * taken
        with torch.no_grad():
            wrong = (logits.argmax(dim=-1) != codes) & taken
        return entropy, taken, wrong

    def _answers(self, features: Tensor, source: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Cross-entropy (B, T - 1) of every token, which ones are learned, and which are wrong."""
        hidden = self.model.decoder(self._embeds(self.model.adaptor(features), source, skip=0))
        logits = self.model.decoder.logits(hidden)[:, :-1]  # (B, T - 1, vocabulary)
        labels = labels[:, 1:].long()
        taken = labels >= 0
        entropy = F.cross_entropy(
            logits.flatten(0, 1), labels.clamp(min=-1).flatten(), ignore_index=-1, reduction="none"
        )
        with torch.no_grad():
            wrong = (logits.argmax(dim=-1) != labels) & taken
        return entropy.view_as(labels), taken, wrong

    def _num_tokens(self, source: Tensor) -> int:
        grid = self.model.vision.patch_embed.grid_size  # type: ignore[union-attr]
        return int(grid[0] * grid[1])  # type: ignore[index]

    def _embeds(self, own: Tensor, source: Tensor, *, skip: int) -> Tensor:
        """Input embeddings (B, T, D): the row's own vectors (B, M, D), counted from ``skip``, or those of ids."""
        vocabulary = self.model.decoder.model.embed_tokens.weight
        table = torch.cat((own.flatten(0, 1).to(vocabulary.dtype), vocabulary))
        source = source.long()
        first = torch.arange(own.shape[0], device=own.device).unsqueeze(1) * own.shape[1]
        return F.embedding(
            torch.where(source >= 0, source - skip + first, own.shape[0] * own.shape[1] + FIRST_ID - source), table
        )

    def _patches(self, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """(B, P, W) features and (B, G, G, 2) classes -> cross-entropy, and accuracy on objects."""
        logits = self.patch_head(features).float().flatten(0, 1)  # (B * P, classes)
        classes = labels.flatten(0, 2).long()  # (B * P, 2)
        known = classes[:, 0] != IGNORED_CHARACTER
        weights = torch.where(classes[:, 0] == 0, self.recipe.patch_blank, 1.0) * known
        classes = classes.where(known[:, None], 0)
        shapes, colours = logits.split((1 + len(SHAPES), 1 + len(COLOURS)), dim=1)
        entropy = F.cross_entropy(shapes, classes[:, 0], reduction="none")
        entropy = entropy + F.cross_entropy(colours, classes[:, 1], reduction="none")
        with torch.no_grad():
            there = (classes[:, 0] != 0) & known
            right = (shapes.argmax(dim=1) == classes[:, 0]) & (colours.argmax(dim=1) == classes[:, 1]) & there
        return (entropy * weights).sum() / weights.sum().clamp(min=1.0), right.sum() / there.sum().clamp(min=1)
