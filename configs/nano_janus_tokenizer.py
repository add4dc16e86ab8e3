"""Makes the tokenizer of nano-janus: byte-level BPE of 512 tokens over prompts, captions and questions on scenes.

python configs/nano_janus_tokenizer.py configs/nano-janus
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from mm.families.janus import SYSTEM_PROMPT, TAGS, TEMPLATES
from mm.synthetic.drawing_scenes import render

SIZE = 512
SAMPLES = 4000
NAMED = {
    "bos_token": "<｜begin▁of▁sentence｜>",
    "eos_token": "<｜end▁of▁sentence｜>",
    "pad_token": TAGS.pad,
}


def texts() -> Iterator[str]:
    """What the model reads and writes."""
    rng = np.random.default_rng(0)
    for _ in range(SAMPLES):
        yield " " + render("drawing", rng, None).fields["prompt"]
        for turn in render("drawing_scene", rng, None, 0.0).turns:
            yield f" {turn.question}\n\n"
            yield f" {turn.answer}"
    yield from [f"{SYSTEM_PROMPT}\n\n"] * (SAMPLES // 8)


def main(folder: Path) -> None:
    """Writes tokenizer.json and the names of its special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tags = [TAGS.image, TAGS.image_start, TAGS.image_end, *TEMPLATES["deepseek"].names.values()]
    special = [*NAMED.values(), *tags]
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE,
        special_tokens=[AddedToken(text, normalized=False, special=True) for text in special],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(), trainer)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"add_bos_token": True, **NAMED, "model_max_length": 1536, "tokenizer_class": "LlamaTokenizerFast"}
    for name, values in (("tokenizer_config.json", config), ("special_tokens_map.json", NAMED)):
        text = json.dumps(values, ensure_ascii=False, indent=2)
        (folder / name).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
