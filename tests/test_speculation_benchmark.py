"""The measurement of speculation runs and tells what it compares."""

from collections.abc import Callable
from pathlib import Path

from PIL import Image

from benchmarks import speculation
from mm import Pipeline
from tests.test_cli import FORM

PROMPTS = ["a red circle"]


def test_pictures_of_both_ways(tiny_janus: Path, tmp_path: Path) -> None:
    pipe = Pipeline.from_pretrained(tiny_janus, device="cpu", dtype="float32")
    single, greedy, together = speculation.measure_pictures(pipe, [4], 1, PROMPTS)
    for measured, pictures in ((single, 1), (greedy, 1), (together, 4)):
        assert measured.plain.tokens == measured.ahead.tokens == pictures * 15
        assert measured.ahead.accepted <= measured.ahead.drafted
        assert measured.plain.seconds > 0 and measured.ahead.seconds > 0
    assert (single.plain.passes, single.plain.drafted) == (15, 0)
    assert (greedy.equal, single.equal) == (1, None)
    assert greedy.row.startswith("| 1 picture, greedy, window 4 | 15 | 15 | ")
    assert greedy.row.endswith(" | 1 of 1 |")
    speculation.draw_sheet(pipe, 4, tmp_path / "sheet.png", PROMPTS)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (8 * 68, 68)


def test_second_turns(golden: Callable[[str], Path]) -> None:
    pipe = Pipeline.from_pretrained(golden("deepseek_vl2_tiny") / "checkpoint", device="cpu")
    with Image.open(FORM) as image:
        jobs = speculation.chat_jobs(pipe, [image.convert("RGB")], "Read.", "Again.", max_new_tokens=12)
    found = speculation.measure(pipe, "again", jobs, {"speculation": "prompt-lookup"}, 1, same=True)
    assert (found.jobs, found.equal) == (1, 1)
    assert found.plain.tokens == found.plain.passes <= 11
