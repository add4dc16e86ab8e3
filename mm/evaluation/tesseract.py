"""Tesseract beside the model, where the program is installed: an open OCR program that everybody can compare with."""

import io
import os
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

from mm.errors import ResourceError

_TIMEOUT = 120  # seconds a picture


def tesseract_version() -> str | None:
    """Such as "tesseract 5.3.0", or None where the program is not installed."""
    if shutil.which("tesseract") is None:
        return None
    done = subprocess.run(["tesseract", "--version"], capture_output=True, text=True, check=True, timeout=_TIMEOUT)
    return (done.stdout or done.stderr).splitlines()[0].strip()


def missing_tesseract() -> ResourceError:
    """What to do where the program is not installed."""
    return ResourceError("tesseract is not installed. On Debian or Ubuntu: apt install tesseract-ocr")


def read_with_tesseract(images: Sequence[Image.Image]) -> list[str]:
    """Transcriptions by Tesseract: English, page mode 6 (one block of rows, so that columns stay in their row).

    Raises:
        ResourceError: the program is missing or fails.
    """
    if shutil.which("tesseract") is None:
        raise missing_tesseract()
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        return list(pool.map(_read, images))


def _read(image: Image.Image) -> str:
    packed = io.BytesIO()
    image.save(packed, "PNG")
    done = subprocess.run(
        ["tesseract", "-", "-", "-l", "eng", "--psm", "6"],
        input=packed.getvalue(),
        capture_output=True,
        timeout=_TIMEOUT,
        env={**os.environ, "OMP_THREAD_LIMIT": "1"},  # one picture a core is faster than all cores on one
        check=False,
    )
    if done.returncode != 0:
        raise ResourceError(f"tesseract failed: {done.stderr.decode('utf-8', 'replace').strip()}")
    return done.stdout.decode("utf-8", "replace")
