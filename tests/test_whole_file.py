"""Files that are replaced whole or not at all."""

import os
import resource
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from mm.errors import ResourceError
from mm.whole_file import check_writable, replacing, write_whole


def test_a_file_takes_the_place_of_another_when_it_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, fresh = tmp_path / "state", tmp_path / "fresh"
    path.write_bytes(b"old")
    calls = []
    for name in ("fsync", "replace"):
        call = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *given, call=call, name=name: (calls.append((name, *given)), call(*given)))
    with replacing(path, fresh) as file:
        number = file.fileno()
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert calls == [("fsync", number), ("replace", fresh, path)]
    assert path.read_bytes() == b"new" and os.listdir(tmp_path) == ["state"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_block_that_fails_replaces_nothing(error: type[BaseException], tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_bytes(b"old")
    with pytest.raises(error), replacing(path, tmp_path / "fresh") as file:
        file.write(b"half")
        raise error
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["state"]


def test_an_old_file_stays_where_the_new_one_does_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "star.png"
    path.write_bytes(b"old")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limit[1]))  # as a full disk; Python ignores the signal
    try:
        with pytest.raises(ResourceError, match="cannot write .*star.png': File too large"):
            write_whole(path, b"x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["star.png"]


def test_a_file_is_replaced_with_its_rights_and_by_what_a_link_leads_to(tmp_path: Path) -> None:
    path, link = tmp_path / "star.png", tmp_path / "link.png"
    path.write_bytes(b"old")
    path.chmod(0o640)
    link.symlink_to("star.png")
    write_whole(link, b"new")
    assert link.is_symlink() and path.read_bytes() == b"new" and path.stat().st_mode & 0o777 == 0o640
    mask = os.umask(0o027)
    try:
        write_whole(tmp_path / "fresh.png", b"x")
    finally:
        os.umask(mask)
    assert (tmp_path / "fresh.png").stat().st_mode & 0o777 == 0o640
    longest = tmp_path / ("a" * 251 + ".png")
    for data in (b"one", b"two"):
        write_whole(longest, data)
        assert longest.read_bytes() == data
    assert len(os.listdir(tmp_path)) == 4


def test_a_pipe_stays_a_pipe(tmp_path: Path) -> None:
    pipe, found = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: found.append(pipe.read_bytes()))
    check_writable(pipe)  # waits for nobody
    reader.start()
    check_writable(pipe)  # and tells the reader nothing
    write_whole(pipe, b"through")
    reader.join(timeout=10)
    assert found == [b"through"] and pipe.is_fifo()


@pytest.mark.skipif(not Path("/dev/stdout").exists(), reason="no /dev/stdout")
def test_standard_output_goes_on_after_it(tmp_path: Path) -> None:
    code = (
        "import os\n"
        "from pathlib import Path\n"
        "from mm.whole_file import write_whole\n"
        "write_whole(Path('/dev/stdout'), b'codes')\n"
        "os.write(1, b'later')\n"
    )
    words = [sys.executable, "-c", code]
    assert subprocess.run(words, capture_output=True, check=True).stdout == b"codeslater"
    with open(tmp_path / "out", "ab") as file:
        subprocess.run(words, stdout=file, check=True)
    assert (tmp_path / "out").read_bytes() == b"codeslater" and os.listdir(tmp_path) == ["out"]


_AS_NOBODY = """
import os
from pathlib import Path
from mm.whole_file import write_whole
from mm.errors import ResourceError

def is_refused(name, data):
    try:
        write_whole(Path(name), data)
    except ResourceError as error:
        return "Permission denied" in str(error)

if os.geteuid() == 0:  # root may write everything
    for place in (".", "star.png"):
        os.chown(place, 65534, 65534)
    os.setuid(65534)
os.chmod("star.png", 0o444)
assert is_refused("star.png", b"new")
os.chmod("star.png", 0o644)
os.chmod(".", 0o555)
write_whole(Path("star.png"), b"new")  # the folder takes no other file
assert is_refused("fresh.png", b"x")
os.chmod(".", 0o755)
"""


def test_rights_are_kept_to() -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    with tempfile.TemporaryDirectory() as folder:  # tmp_path lies in one that nobody else may enter
        path = Path(folder, "star.png")
        path.write_bytes(b"old")
        words = [sys.executable, "-c", _AS_NOBODY]
        found = subprocess.run(words, cwd=folder, env=environment, capture_output=True)
        assert found.returncode == 0, found.stderr.decode()
        assert path.read_bytes() == b"new" and os.listdir(folder) == ["star.png"]
