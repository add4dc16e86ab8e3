"""DeepSeek-VL 1.3B and 7B: key map, template and build; config.json is read in ``deepseek_vl_config``."""

from collections.abc import Mapping
from pathlib import Path

from mm.adaptors.mlp import MLPAdaptor
from mm.adaptors.split import SplitMLPAdaptor
from mm.adaptors.tile_layout import ViewOrder
from mm.config import HybridVisionConfig, SplitMLPConfig
from mm.errors import ConfigError, WeightsError
from mm.families.deepseek_vl_config import DeepseekVLConfig, parse_config
from mm.families.family import Family, check_agreement, pooling_head_parameters
from mm.families.multi_modality import PLAIN_ROLES
from mm.language.decoder import Decoder
from mm.model import VisionLanguageModel
from mm.processing.vlm import VLMProcessor
from mm.processing.vlm_spec import PREPROCESSOR, PROCESSOR, Tags, VLMSpec
from mm.weights import Dropped, KeyMap, Part, Rename

HIGH = "vision_model.vision_tower_high.vision_tower."

KEY_MAP = KeyMap(
    renames=(
        Rename("vision_model.vision_tower.", "vision.tower."),
        Rename(HIGH, "vision.high.tower."),
        Rename("vision_model.vision_tower_low.vision_tower.", "vision.low.tower."),
        Rename("aligner.", "adaptor."),
        Rename("language_model.", "decoder."),
    ),
    parts=(Part(below=HIGH, published=".mlp.lin", model=".mlp.fc"),),
    dropped=(
        Dropped(
            r"vision_model\.(vision_tower|vision_tower_low\.vision_tower)\.attn_pool\..*",
            "SigLIP's pooling head, never used by the model",
        ),
        Dropped(
            r"vision_model\.(high|low)_layer_norm\..*",
            "norms of the two towers' features, which no forward pass of the published model applies",
        ),
    ),
)

# By ``sft_format``. Base and chat checkpoints are published with the same one.
TEMPLATES = {"deepseek": PLAIN_ROLES}
# Nothing stands around an image; rows are padded with the tokenizer's padding token, else its end token.
TAGS = Tags(image="<image_placeholder>", image_start=None, image_end=None, pad=None)


def build(config: DeepseekVLConfig) -> VisionLanguageModel:
    """The model on the current default device (use ``torch.device("meta")`` to build without memory)."""
    from mm.vision.hybrid import HybridEncoder, build_single  # timm is slow to import and not needed to read a config

    vision, adaptor = config.vision, config.adaptor
    return VisionLanguageModel(
        vision=HybridEncoder(vision) if isinstance(vision, HybridVisionConfig) else build_single(vision),
        adaptor=SplitMLPAdaptor(adaptor) if isinstance(adaptor, SplitMLPConfig) else MLPAdaptor(adaptor),
        arrange=ViewOrder(),
        decoder=Decoder(config.decoder),
    )


def restrict(config: DeepseekVLConfig, published: Mapping[str, tuple[int, ...]]) -> DeepseekVLConfig:
    """The config as it is, once a SAM tower in the files is of the resolution it names.

    Raises:
        WeightsError: SAM was trained at another resolution: its position tables have another size.
    """
    found = published.get(f"{HIGH}pos_embed")
    if isinstance(config.vision, HybridVisionConfig) and found is not None and len(found) == 4:
        high = config.vision.high
        if found[1:3] != (high.grid, high.grid):
            down, across = (side * high.patch_size for side in found[1:3])
            raise WeightsError(
                f"the SAM tower in the weight files was trained at {across} x {down} pixels (its position table has "
                f"{found[2]} x {found[1]} patches), but config.json says high_res_cfg.image_size {high.image_size} "
                f"({high.grid} x {high.grid} patches). Positions are not interpolated: use the weights that belong to "
                "this config.json, or the config.json of these weights."
            )
    return config


def read_spec(folder: Path) -> VLMSpec:
    """The processor's settings in a checkpoint folder."""
    return VLMSpec.from_folder(folder, tags=TAGS, formats=TEMPLATES.keys())


def build_processor(folder: Path, config: DeepseekVLConfig) -> VLMProcessor:
    """The processor of a checkpoint folder.

    Raises:
        ConfigError: its files disagree with config.json, or pixels would be normalised twice.
    """
    spec = read_spec(folder)
    size = ("image_size", spec.image_size, "the vision_config", config.vision.image_size)
    tokens = ("num_image_tokens", spec.num_image_tokens, "the encoder in config.json", config.low.grid**2)
    check_agreement(folder, (size,), file=PREPROCESSOR)
    check_agreement(folder, (tokens,), file=PROCESSOR)
    if spec.normalize and config.normalizes:
        raise ConfigError(
            f"{folder}: {PREPROCESSOR} has do_normalize true, and config.json has pixel_mean and pixel_std: pixels "
            "would be normalised twice. Set do_normalize to false, as published."
        )
    return VLMProcessor.from_folder(folder, spec, TEMPLATES[spec.sft_format])


def prompt_tokens(spec: VLMSpec) -> dict[str, str]:
    """Roles, and the token at every image position."""
    names = TEMPLATES[spec.sft_format].names
    return {"user": names["user"], "assistant": names["assistant"], "image": spec.tags.image}


def unused_elements(config: DeepseekVLConfig) -> int:
    """The pooling head, and the two norms of a hybrid tower."""
    pooling = pooling_head_parameters(config.low)
    if not isinstance(config.vision, HybridVisionConfig):
        return pooling
    return pooling + 2 * (config.low.width + config.vision.high.downsample_widths[-1])


FAMILY = Family(
    parse_config=parse_config,
    build=build,
    read_spec=read_spec,
    prompt_tokens=prompt_tokens,
    build_processor=build_processor,
    key_map=KEY_MAP,
    unused_elements=unused_elements,
    restrict=restrict,
)
