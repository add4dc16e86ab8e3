"""Render the pages of a PDF in a process of its own, with limits: a hostile file costs that process only.

Run as a program: ``python pdf_pages.py FILE FOLDER`` writes 1.png, 2.png, ... and prints how many pages there are.
"""

import os
import subprocess
import sys
from pathlib import Path

MAX_PAGES = 50
MAX_SIDE = 2000  # pixels of a page's longer side
SECONDS = 60
MEMORY_BYTES = 2 * 2**30


def render_pdf(file: Path, folder: Path) -> list[Path]:
    """Pictures of the pages, in order.

    Args:
        file: the PDF.
        folder: an empty one, for the pictures.

    Raises:
        ImageError: it cannot be read, asks for a password, has more than 50 pages, or takes too much time or memory.
    """
    from mm.errors import ImageError

    command = [sys.executable, "-I", __file__, str(file), str(folder)]
    advice = f"Save its pages as pictures, or a part of it as a smaller PDF of at most {MAX_PAGES} pages."
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS + 10, env=_environment())
    except subprocess.TimeoutExpired as error:
        raise ImageError(f"the PDF {file.name} takes more than {SECONDS} s to render. {advice}") from error
    pages = sorted(folder.glob("*.png"), key=lambda path: int(path.stem))
    if done.returncode == 3:
        raise ImageError(f"the PDF {file.name} has {done.stdout.strip()} pages; at most {MAX_PAGES} are read. {advice}")
    if done.returncode != 0 or not pages:
        raise ImageError(f"the PDF {file.name} cannot be rendered: damaged, locked or too large. {advice}")
    return pages


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name in ("PATH", "SYSTEMROOT", "LANG", "TMPDIR")}


def _limit() -> None:
    """Less memory and time for this process, where the system can do that."""
    if sys.platform == "win32":
        return
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))


def _main(file: str, folder: str) -> int:
    _limit()
    import pypdfium2

    document = pypdfium2.PdfDocument(file)
    print(len(document))
    if len(document) > MAX_PAGES:
        return 3
    for number in range(len(document)):
        page = document[number]
        scale = min(2.5, MAX_SIDE / max(*page.get_size(), 1.0))  # 180 dots an inch for A4
        page.render(scale=scale).to_pil().convert("RGB").save(Path(folder) / f"{number + 1}.png")
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1], sys.argv[2]))
