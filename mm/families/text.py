"""The language models that the multimodal ones grew from; config.json is read in ``text_config``."""

import re
from pathlib import Path

import torch

from mm.devices import resolve_device, resolve_dtype
from mm.errors import TaskError
from mm.families.family import Family
from mm.families.text_config import TextConfig, parse_config
from mm.language.decoder import Decoder
from mm.language.prediction import Predictor
from mm.model import Blind, VisionLanguageModel
from mm.processing.base import read_settings
from mm.processing.text import TextProcessor, TextSpec
from mm.text_templates import TEXT_TEMPLATES
from mm.weights import Dropped, KeyMap, Rename, Stack, load_weights

KEY_MAP = KeyMap(
    renames=(Rename("model.", "decoder.model."), Rename("lm_head.", "decoder.lm_head.")),
    stacks=(Stack("{prefix}.experts.{index}.{projection}.weight", "{prefix}.experts.{projection}"),),
    dropped=(Dropped(r".*\.rotary_emb\.inv_freq", "RoPE's frequencies, which follow from config.json"),),
)


def key_map_of(config: TextConfig) -> KeyMap:
    """The key map, with the layers behind the last one as dropped where config.json announces some."""
    first, count = config.decoder.num_layers, config.num_predict_layers
    if not count:
        return KEY_MAP
    numbers = "|".join(str(first + index) for index in range(count))
    predicting = Dropped(rf"model\.layers\.({numbers})\..*", "multi-token prediction, which answers do not use")
    return KeyMap(renames=KEY_MAP.renames, stacks=KEY_MAP.stacks, dropped=(*KEY_MAP.dropped, predicting))


def predictor_map(config: TextConfig) -> KeyMap:
    """The key map of the first layer behind the last one alone; what the model itself has is dropped."""
    place = f"model.layers.{config.decoder.num_layers}."
    own = {
        "embed_tokens.": "decoder.model.embed_tokens.",
        "shared_head.head.": "decoder.lm_head.",
        "shared_head.norm.": "decoder.model.norm.",
        "enorm.": "enorm.",
        "hnorm.": "hnorm.",
        "eh_proj.": "eh_proj.",
        "": "decoder.model.layers.0.",
    }
    return KeyMap(
        renames=tuple(Rename(place + published, model) for published, model in own.items()),
        stacks=KEY_MAP.stacks,
        dropped=(Dropped(rf"(?!{re.escape(place)}).*", "the model, which is loaded apart"),),
    )


def load_predictor(
    folder: Path, *, device: str | torch.device = "auto", dtype: str | torch.dtype = "auto"
) -> Predictor:
    """The layer behind the last one of a checkpoint folder, in evaluation mode, without gradients.

    Raises:
        CheckpointError: the folder is not a complete checkpoint of a language model.
        TaskError: it has no such layer.
    """
    config = parse_config(read_settings(folder / "config.json"))
    if not config.num_predict_layers:
        raise TaskError(
            f"{folder} has no layer that predicts further tokens: its config.json says no num_nextn_predict_layers. "
            "DeepSeek-V3 and R1 have one"
        )
    with torch.device("meta"):
        predictor = Predictor(config.decoder)
    place = resolve_device(device)
    load_weights(
        predictor,
        folder,
        predictor_map(config),
        device=place,
        dtype=resolve_dtype(dtype, place),
        scale_block=config.scale_block,
    )
    return predictor.eval().requires_grad_(False)


def build(config: TextConfig) -> VisionLanguageModel:
    """The model on the current default device (use ``torch.device("meta")`` to build without memory)."""
    return VisionLanguageModel(vision=Blind(), adaptor=Blind(), arrange=Blind(), decoder=Decoder(config.decoder))


def build_processor(folder: Path, config: TextConfig) -> TextProcessor:
    """The processor of a checkpoint folder.

    Raises:
        ConfigError: the tokenizer files are missing or wrong.
    """
    return TextProcessor.from_folder(folder, TextSpec.from_folder(folder))


def prompt_tokens(spec: TextSpec) -> dict[str, str]:
    """What stands before questions and answers; nothing for a model without a known chat template."""
    if spec.template is None:
        return {}
    template = TEXT_TEMPLATES[spec.template]
    return {"user": template.before_question.strip(), "assistant": template.opening.strip()}


def unused_elements(config: TextConfig) -> int:
    """Numbers of the layers that predict further tokens."""
    with torch.device("meta"):
        predictors = [Predictor(config.decoder) for _ in range(config.num_predict_layers)]
    return sum(parameter.numel() for predictor in predictors for parameter in predictor.parameters())


def published_bytes(config: TextConfig) -> int:
    """Bytes of a published file with FP8 weights, the layers behind the last one included."""
    with torch.device("meta"):
        parts = [Decoder(config.decoder), *(Predictor(config.decoder) for _ in range(config.num_predict_layers))]
    return sum(_stored(config, name, weight) for part in parts for name, weight in part.named_parameters())


def _stored(config: TextConfig, name: str, weight: torch.Tensor) -> int:
    """Bytes of a parameter in such a file: projections within layers take one a number and four a block, the routers'
    correction four a number, everything else two."""
    if name.endswith("e_score_correction_bias"):
        return 4 * weight.numel()
    if config.scale_block is None or weight.ndim < 2 or "layers." not in name or "_proj" not in name:
        return 2 * weight.numel()
    rows, columns = weight.shape[-2:]
    down, across = config.scale_block
    return weight.numel() + 4 * -(-rows // down) * -(-columns // across) * (weight.numel() // (rows * columns))


FAMILY = Family(
    parse_config=parse_config,
    build=build,
    read_spec=TextSpec.from_folder,
    prompt_tokens=prompt_tokens,
    build_processor=build_processor,
    key_map=KEY_MAP,
    unused_elements=unused_elements,
    sees=False,
    key_map_of=key_map_of,
    scale_block=lambda config: config.scale_block,
    published_bytes=published_bytes,
)
