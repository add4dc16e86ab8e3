"""What a recipe trains: reading, drawing or an image tokenizer. The training loop knows no more than this."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mm.errors import ConfigError
from mm.families.janus_config import JanusConfig
from mm.families.table import load_config, load_model, load_processor
from mm.model import VisionLanguageModel
from mm.processing.vl2 import VL2Processor
from mm.processing.vlm import VLMProcessor
from mm.training.data import Encoding, SampleEncoder
from mm.training.drawing_data import PairEncoder, PictureEncoder
from mm.training.drawing_objective import DrawingObjective, image_head_of
from mm.training.evaluate import evaluate
from mm.training.feed import to_device
from mm.training.objective import Objective, StepObjective
from mm.training.recipe import DrawingLossRecipe, LossRecipe, Recipe, TokenizerLossRecipe
from mm.training.ring import Ring
from mm.training.session import model_folder
from mm.training.tokenizer_objective import TokenizerObjective

Scores = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Subject:
    """The parts of a run that depend on what is trained.

    Attributes:
        encoder: makes of a rendered sample what the rings hold.
        build: the objective around a model.
        begin: changes the weights of an objective after a warm start and before any step; a resumed run skips it.
        evaluate: scores of the samples in the evaluation rings; each has a ``token_error``, lower is better.
    """

    encoder: Encoding
    build: Callable[[VisionLanguageModel], StepObjective]
    begin: Callable[[StepObjective], None]
    evaluate: Callable[..., Scores]


def subject_of(recipe: Recipe, folder: Path) -> Subject:
    """What a recipe trains, by its ``loss``.

    Raises:
        ConfigError: the model folder is wrong, or of a family that the loss is not for.
    """
    match recipe.loss:
        case LossRecipe():
            return _reading(recipe, recipe.loss, folder)
        case DrawingLossRecipe():
            return _drawing(recipe, recipe.loss, folder)
        case TokenizerLossRecipe():
            return _tokenizer(recipe, recipe.loss, folder)


def _reading(recipe: Recipe, loss: LossRecipe, folder: Path) -> Subject:
    processor = VL2Processor.from_folder(folder)

    def build(model: VisionLanguageModel) -> StepObjective:
        return Objective(
            model,
            image_mean=processor.spec.image_mean,
            image_std=processor.spec.image_std,
            char_map_blank=loss.char_map_blank,
            length_power=loss.length_power,
            char_map_weights=(loss.char_map_start, loss.char_map_end),
        )

    return Subject(SampleEncoder(processor, recipe.data.buckets), build, _nothing, evaluate)


def _drawing(recipe: Recipe, loss: DrawingLossRecipe, folder: Path) -> Subject:
    config, processor = _janus(folder), load_processor(folder)
    assert config.image_head is not None and isinstance(processor, VLMProcessor)
    encoder = PairEncoder(
        processor,
        grid=config.vision.grid,
        num_codes=config.image_head.grid**2,
        drawn_length=loss.drawn_length,
        condition_dropout=loss.condition_dropout,
        buckets=recipe.data.buckets,
    )
    spec = processor.spec

    def build(model: VisionLanguageModel) -> StepObjective:
        return DrawingObjective(model, loss, image_mean=spec.image_mean, image_std=spec.image_std)

    @torch.no_grad()
    def begin(objective: StepObjective) -> None:
        if loss.codes_from_tokenizer:
            head = image_head_of(objective.model)
            head.embedding.weight.copy_(head.vq.codebook())
        if loss.vision_from is not None:
            take_vision(objective.model, loss.vision_from)

    return Subject(encoder, build, begin, evaluate_means)


def _tokenizer(recipe: Recipe, loss: TokenizerLossRecipe, folder: Path) -> Subject:
    config = _janus(folder)
    encoder = PictureEncoder(config.vision.image_size, config.vision.grid, recipe.data.buckets)

    def build(model: VisionLanguageModel) -> StepObjective:
        return TokenizerObjective(model, loss)

    return Subject(encoder, build, _nothing, evaluate_means)


def _janus(folder: Path) -> JanusConfig:
    config = load_config(folder)
    if not isinstance(config, JanusConfig) or config.image_head is None:
        raise ConfigError(f"{folder} is no model that draws, but the recipe's loss is for one. Name a Janus folder.")
    return config


def _nothing(objective: StepObjective) -> None:
    """Fresh weights stay."""


def take_vision(model: VisionLanguageModel, name: str) -> None:
    """Takes over an encoder: its first blocks, and its position embedding at this model's size.

    Args:
        model: receives the weights.
        name: a bundled model or a folder.

    Raises:
        ConfigError: the encoders differ in width or patch, or the other has fewer blocks.
    """
    theirs = load_model(model_folder(name), device="cpu", dtype=torch.float32).vision.state_dict()
    ours = model.vision.state_dict()
    place = theirs["pos_embed"]  # (1, G * G, W)
    side, wanted = (int(round(one["pos_embed"].shape[1] ** 0.5)) for one in (theirs, ours))
    grid = place.unflatten(1, (side, side)).permute(0, 3, 1, 2)  # (1, W, G, G)
    # The middle of the larger grid: neighbours stay as far apart as they were.
    skip = (side - wanted) // 2
    if skip < 0:
        raise ConfigError(f"the encoder of {name} sees {side} patches a side, fewer than {wanted}.")
    cut = grid[:, :, skip : skip + wanted, skip : skip + wanted]
    theirs["pos_embed"] = cut.permute(0, 2, 3, 1).flatten(1, 2)
    wrong = [key for key, value in ours.items() if key not in theirs or theirs[key].shape != value.shape]
    if wrong:
        raise ConfigError(f"the encoder of {name} does not fit this model's: {', '.join(wrong[:3])} differ.")
    model.vision.load_state_dict({key: theirs[key] for key in ours})


@torch.no_grad()
def evaluate_means(
    objective: StepObjective, rings: list[Ring], kinds: tuple[str, ...], *, device: torch.device, autocast: bool
) -> Scores:
    """Means of what an objective reports over all samples in the rings, and the share of wrong tokens by kind."""
    objective.eval()
    sums: dict[str, list[float]] = {}
    means: list[list[float]] = []
    with torch.compiler.set_stance("force_eager"):
        for ring in rings:
            for first in range(0, ring.num_written, ring.bucket.rows):
                rows = ring.read(np.arange(first, min(first + ring.bucket.rows, ring.num_written)))
                batch, _ = to_device(rows, device)
                with torch.autocast(device.type, dtype=torch.bfloat16, enabled=autocast):
                    losses = objective(batch, objective.weight(1.0))
                count = len(rows.kinds)
                means.append([count, *(count * float(getattr(losses, name)) for name in objective.reported)])
                columns = (losses.row_tokens, losses.wrong.flatten(1).sum(dim=1), losses.row_loss)
                for kind, *values in zip(rows.kinds, *(column.tolist() for column in columns), strict=True):
                    known = sums.setdefault(kinds[int(kind)], [0.0, 0.0, 0.0, 0.0])
                    sums[kinds[int(kind)]] = [a + b for a, b in zip(known, (1, *values), strict=True)]
    objective.train()
    totals = np.array(means).sum(axis=0)
    scores = {
        kind: {"rows": rows, "token_error": wrong / max(tokens, 1), "loss": loss / rows}
        for kind, (rows, tokens, wrong, loss) in sorted(sums.items())
    }
    overall = dict(zip(objective.reported, (totals[1:] / totals[0]).tolist(), strict=True))
    return {kind: {**score, **(overall if len(scores) == 1 else {})} for kind, score in scores.items()}
