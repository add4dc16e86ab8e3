"""The model as it is trained to read: the very modules of inference, a character-map head, and the losses.

Letters: B rows, N views a row, V views of the step, P patches a view, G patches a side, M tokens a view, T tokens,
D hidden size.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mm.model import VisionLanguageModel
from mm.training.charmap import NUM_CHARACTERS
from mm.training.ranks import Ranks
from mm.training.ring import IGNORED_CHARACTER


@dataclass(frozen=True)
class TrainingBatch:
    """One step's rows on the device; see ``mm.training.ring.EncodedSample`` for ``source`` and ``labels``."""

    views: Tensor  # (B, N, S, S, 3) uint8
    characters: Tensor  # (B, N, G, G, 2) uint8
    source: Tensor  # (B, T) int16
    labels: Tensor  # (B, T) int16


@dataclass(frozen=True)
class Losses:
    """Means over the step and per row; only ``total`` carries a gradient. An objective adds what it reports."""

    total: Tensor  # ()
    row_loss: Tensor  # (B,) mean cross-entropy of the row's learned tokens; 0 for a row without any
    row_tokens: Tensor  # (B,) learned tokens
    wrong: Tensor  # (B, ...) bool, learned tokens that are not the most likely one


@dataclass(frozen=True)
class ReadingLosses(Losses):
    """Losses of answers and of the character map; ``wrong`` is (B, T - 1)."""

    answer: Tensor  # () weighted cross-entropy of the answer tokens, nats
    character: Tensor  # () cross-entropy of the character map, nats
    character_accuracy: Tensor  # () share of patch halves with text that are right


class StepObjective(nn.Module):
    """What the training loop knows of an objective: a model, its losses, and what it does beside the gradient.

    Attributes:
        reported: names of the losses in each line of the log; the first one tells whether training diverged.
        stacks: names in ``model`` of the module lists whose members are compiled and keep a bfloat16 residual stream.
    """

    reported: tuple[str, ...]
    stacks: tuple[str, ...] = ()

    def __init__(self, model: VisionLanguageModel) -> None:
        super().__init__()
        self.model = model

    def weight(self, done: float) -> float:
        """The second argument of ``forward`` when a share ``done`` (0..1) of the schedule is over."""
        return 1.0

    def pictured(self) -> tuple[nn.Module, ...]:
        """Convolutional networks that see one shape only; each is compiled as a whole."""
        return ()

    def after_step(self, step: int, done: float, ranks: Ranks) -> None:
        """What changes the model other than by its gradient; the same on all ranks."""


class Objective(StepObjective):
    """Losses of a batch of pictures with questions.

    Args:
        model: built from the published-layout config; its modules run unchanged.
        image_mean, image_std: the processor's normalisation, in units of 0..1.
        char_map_blank: weight of patches without text in the character map.
        length_power: every answer token of a row with n of them weighs ``n ** length_power``.
        char_map_weights: the weight of the character map at the start and at the end of the schedule.
    """

    reported = ("answer", "character", "character_accuracy")
    stacks = ("vision.blocks", "decoder.model.layers")
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: VisionLanguageModel,
        *,
        image_mean: tuple[float, ...],
        image_std: tuple[float, ...],
        char_map_blank: float,
        length_power: float,
        char_map_weights: tuple[float, float] = (0.5, 0.1),
    ) -> None:
        super().__init__(model)
        self.char_map_weights = char_map_weights
        width = int(model.vision.embed_dim)  # type: ignore[arg-type]
        self.char_head = nn.Linear(width, 2 * NUM_CHARACTERS)
        self.char_map_blank = char_map_blank
        self.length_power = length_power
        self.register_buffer("mean", torch.tensor(image_mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(image_std).view(3, 1, 1), persistent=False)

    def weight(self, done: float) -> float:
        """Of the character map, linear from start to end."""
        start, end = self.char_map_weights
        return start + (end - start) * done

    def forward(self, batch: TrainingBatch, char_map_weight: float | Tensor) -> ReadingLosses:
        """All losses of a batch; ``total = answer + char_map_weight * character``."""
        features = self.model.vision(self.pixels(batch.views))  # (V, P, W)
        hidden = self.model.decoder(self.embeds(features, batch.source))  # (B, T, D)
        logits = self.model.decoder.logits(hidden)  # (B, T, vocabulary)
        labels = batch.labels[:, 1:].long()
        taken = labels >= 0
        entropy = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels.flatten(), ignore_index=-1, reduction="none")
        entropy = entropy.view_as(labels)
        row_tokens = taken.sum(dim=1)
        weights = row_tokens.clamp(min=1).float().pow(self.length_power)  # (B,)
        row_sums = entropy.sum(dim=1)
        answer = (row_sums * weights).sum() / (row_tokens * weights).sum().clamp(min=1e-6)
        character, accuracy = self._character_loss(features, batch.characters.flatten(0, 1))
        with torch.no_grad():
            wrong = (logits[:, :-1].argmax(dim=-1) != labels) & taken
        return ReadingLosses(
            total=answer + char_map_weight * character,
            answer=answer.detach(),
            character=character.detach(),
            character_accuracy=accuracy,
            row_loss=row_sums.detach() / row_tokens.clamp(min=1),
            row_tokens=row_tokens,
            wrong=wrong,
        )

    def pixels(self, views: Tensor) -> Tensor:
        """(B, N, S, S, 3) uint8 -> normalised (V, 3, S, S) float32, as the processor normalises."""
        wide = views.flatten(0, 1).permute(0, 3, 1, 2).to(torch.float32) / 255  # (V, 3, S, S)
        return (wide - self.mean) / self.std

    def embeds(self, features: Tensor, source: Tensor) -> Tensor:
        """Input embeddings (B, T, D): one lookup in view tokens, newline, separator and the vocabulary together."""
        model = self.model
        tokens = model.adaptor(features)  # (V, M, D)
        rows = source.shape[0]
        count = tokens.shape[0] * tokens.shape[1]
        vocabulary = model.decoder.model.embed_tokens.weight
        table = torch.cat(
            (
                tokens.flatten(0, 1).to(vocabulary.dtype),
                model.image_newline[None],
                model.view_separator[None],
                vocabulary,
            )
        )
        source = source.long()
        first = torch.arange(rows, device=source.device).unsqueeze(1) * (count // rows)
        return F.embedding(torch.where(source >= 0, source + first, count - 1 - source), table)

    def _character_loss(self, features: Tensor, characters: Tensor) -> tuple[Tensor, Tensor]:
        """(V, P, W) features and (V, G, G, 2) classes -> cross-entropy and accuracy on text."""
        logits = self.char_head(features).unflatten(-1, (2, NUM_CHARACTERS)).flatten(0, 2).float()
        classes = characters.flatten().long()
        weights = torch.where(classes == 0, self.char_map_blank, 1.0) * (classes != IGNORED_CHARACTER)
        entropy = F.cross_entropy(logits, classes, reduction="none")
        loss = (entropy * weights).sum() / weights.sum().clamp(min=1.0)
        with torch.no_grad():
            text = (classes != 0) & (classes != IGNORED_CHARACTER)
            right = ((logits.argmax(dim=-1) == classes) & text).sum() / text.sum().clamp(min=1)
        return loss, right


def initialize(model: nn.Module, generator: torch.Generator) -> None:
    """Fresh weights: N(0, 1 / fan_in) for matrices, zero for biases and for what writes to a residual stream.

    An image tokenizer keeps the weights that it was made with.
    """
    writes_to_residual = ("o_proj.weight", "down_proj.weight", "down_proj", "attn.proj.weight", "mlp.fc2.weight")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "image_head.vq." in name:
                continue
            if name.endswith(("norm.weight", "norm1.weight", "norm2.weight", "layernorm.weight")):
                parameter.fill_(1.0)
            elif name.endswith((".bias", "e_score_correction_bias", *writes_to_residual)):
                parameter.zero_()
            elif name.endswith(("_head.weight", "pos_embed")):
                parameter.normal_(std=0.02, generator=generator)
            elif name.endswith("embed_tokens.weight") or parameter.ndim == 1:
                parameter.normal_(std=0.3, generator=generator)
            else:
                fan_in = parameter.shape[-1] if parameter.ndim < 4 else parameter[0].numel()
                parameter.normal_(std=fan_in**-0.5, generator=generator)
