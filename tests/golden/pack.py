"""Pack recorded cases and manifests for this repository: python tests/golden/pack.py GOLDEN_FOLDER MANIFEST_FOLDER.

One ``<case>.tar.xz`` per case with sorted names, zero times and no owner, so that packing the same files again gives
the same bytes. ``MANIFEST.sha256`` keeps the recorded sha256 of every packed file; the test fixture checks it on
unpacking. A weight manifest is reduced to ``{name: shape}`` and its totals.
"""

import io
import json
import lzma
import sys
import tarfile
from pathlib import Path

HERE = Path(__file__).parent
CASES = (
    "deepseek_vl_",
    "deepseek_vl2_",
    "janus_pro",
    "janusflow",
    "preprocess_",
)  # name prefixes
MANIFESTS = (
    "deepseek-vl-1.3b",
    "deepseek-vl-7b",
    "deepseek-vl2-tiny",
    "deepseek-vl2-small",
    "deepseek-vl2",
    "janus-1.3b",
    "janus-pro-1b",
    "janus-pro-7b",
    "janusflow-1.3b",
)
XZ_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 16 << 20}]


def pack_folder(folder: Path, archive: Path) -> None:
    """Write every file below ``folder`` to ``archive`` under the folder's own name."""
    with lzma.open(archive, "wb", filters=XZ_FILTERS) as stream, tarfile.open(fileobj=stream, mode="w") as tar:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            entry = tarfile.TarInfo(f"{folder.name}/{path.relative_to(folder).as_posix()}")
            data = path.read_bytes()
            entry.size, entry.mode = len(data), 0o644
            tar.addfile(entry, io.BytesIO(data))


def main(golden: Path, manifests: Path) -> None:
    """Pack the chosen cases and manifests."""
    kept = []
    for folder in sorted(p for p in golden.iterdir() if p.is_dir() and p.name.startswith(CASES)):
        archive = HERE / f"{folder.name}.tar.xz"
        pack_folder(folder, archive)
        print(f"{archive.name}: {archive.stat().st_size:,} bytes")
    for line in (golden / "MANIFEST.sha256").read_text().splitlines():
        digest, name = line.split(maxsplit=1)
        name = name.removeprefix("./")
        if name.startswith(CASES):
            kept.append(f"{digest}  {name}\n")
    (HERE / "MANIFEST.sha256").write_text("".join(kept))
    (HERE / "README.md").write_bytes((golden / "README.md").read_bytes())
    for name in MANIFESTS:
        source = json.loads((manifests / f"{name}.json").read_text())
        reduced = {
            "num_tensors": source["num_tensors"],
            "total_elements": source["total_elements"],
            "tensors": {key: value["shape"] for key, value in source["tensors"].items()},
        }
        data = json.dumps(reduced, separators=(",", ":"), sort_keys=True).encode()
        target = HERE.parent / "manifests" / f"{name}.json.xz"
        target.write_bytes(lzma.compress(data, filters=XZ_FILTERS))
        print(f"{target.name}: {target.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
