"""DeepSeek-VL2: key map and build; its config.json is read in ``deepseek_vl2_config``."""

from pathlib import Path

from mm.adaptors.pixel_shuffle import PixelShuffleAdaptor
from mm.adaptors.tile_layout import TileLayout
from mm.chat import CHAT_TEMPLATES
from mm.families.deepseek_vl2_config import DeepseekVL2Config, parse_config
from mm.families.family import Family, check_agreement, pooling_head_parameters
from mm.language.decoder import Decoder
from mm.model import VisionLanguageModel
from mm.processing.vl2 import VL2Processor
from mm.processing.vl2_spec import VL2Spec
from mm.weights import Dropped, KeyMap, Rename, Stack

KEY_MAP = KeyMap(
    renames=(
        Rename("projector.", "adaptor."),
        Rename("image_newline", "arrange.image_newline"),
        Rename("view_seperator", "arrange.view_separator"),  # the published spelling
        Rename("language.", "decoder."),
    ),
    stacks=(Stack("{prefix}.experts.{index}.{projection}.weight", "{prefix}.experts.{projection}"),),
    dropped=(Dropped(r"vision\.attn_pool\..*", "SigLIP's pooling head, never used by the model"),),
)


def build(config: DeepseekVL2Config) -> VisionLanguageModel:
    """The model on the current default device (use ``torch.device("meta")`` to build without memory)."""
    from mm.vision.encoder import build_siglip  # timm is slow to import and not needed to read a config

    return VisionLanguageModel(
        vision=build_siglip(config.vision),
        adaptor=PixelShuffleAdaptor(config.adaptor),
        arrange=TileLayout(config.decoder.hidden_size),
        decoder=Decoder(config.decoder),
    )


def build_processor(folder: Path, config: DeepseekVL2Config) -> VL2Processor:
    """The processor of a checkpoint folder."""
    processor = VL2Processor.from_folder(folder)
    spec, vision = processor.spec, config.vision
    check_agreement(
        folder,
        (
            ("tile", spec.image_size, "config.json", vision.image_size),
            ("patch_size", spec.patch_size, "vision_config", vision.patch_size),
            ("downsample_ratio", spec.downsample_ratio, "projector_config", config.adaptor.ratio),
        ),
    )
    return processor


def prompt_tokens(spec: VL2Spec) -> dict[str, str]:
    """Roles, and the token at every image position."""
    names = CHAT_TEMPLATES[spec.sft_format].names
    return {"user": names["user"], "assistant": names["assistant"], "image": spec.image_token, "pad": spec.pad_token}


FAMILY = Family(
    parse_config=parse_config,
    build=build,
    read_spec=VL2Spec.from_folder,
    prompt_tokens=prompt_tokens,
    build_processor=build_processor,
    key_map=KEY_MAP,
    unused_elements=lambda config: pooling_head_parameters(config.vision),
)
