"""What is compared in a recorded DeepSeek-VL case, of one tower or two."""

from collections.abc import Callable, Iterator

from mm.evaluation.compare import Row
from mm.evaluation.recorded_run import Run
from mm.evaluation.recording import Recording
from mm.evaluation.understanding import batch_rows, conversation_rows, tokenizer_rows
from mm.evaluation.whole_prompt import TABLES, tokenizer_facts
from mm.families.deepseek_vl import build_processor
from mm.families.deepseek_vl_config import parse_config
from mm.families.table import load_model, read_json


def verify_vl(recording: Recording, device: str, progress: Callable[[str], None]) -> Iterator[Row]:
    """Every row of a ``deepseek_vl`` case, in the order of the file.

    Raises:
        CheckpointError: the checkpoint of the case cannot be loaded.
        InputError: an entry is not of the recorded form.
    """
    folder = recording.folder / "checkpoint"
    processor = build_processor(folder, parse_config(read_json(folder / "config.json")))
    yield from tokenizer_rows(recording, processor, tokenizer_facts(processor))
    entries = recording.entries
    progress("loading the model")
    model = load_model(folder, device=device, dtype="float32")
    for entry in entries:
        progress(entry["id"])
        if entry.get("batch"):
            yield from batch_rows(recording, entry, model, processor, TABLES)
        else:
            yield from conversation_rows(Run(recording, entry, model, processor), TABLES)
