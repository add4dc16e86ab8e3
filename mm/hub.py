"""From the name of a model to a folder of files.

A name is one of three things, tried in this order:

1. the name of a bundled model (``nano-vl2``): a folder inside the package;
2. a folder in the published layout (write ``./nano-vl2`` for a folder that is called like a bundled model);
3. a hub id, ``organisation/name``: the Hugging Face cache, or the network. ``HF_HOME``, ``HF_HUB_CACHE``,
   ``HF_TOKEN``, ``HF_HUB_OFFLINE`` and ``HF_ENDPOINT`` mean what they mean everywhere.

Bundled and local models never touch the network; huggingface_hub is imported only for the third kind.
"""

import difflib
import errno
import json
import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from mm.errors import CheckpointNotFoundError, MMError, OptionError, ResourceError

# Published checkpoints whose configurations ship with the package (mm/families/configs), so that they can be planned
# for without a network. The organisation is the one that published them.
PUBLISHED_ORGANISATION = "deepseek-ai"

# The autoencoder that models which draw by flow were trained with; their own files do not hold it.
AUTOENCODER = "stabilityai/sdxl-vae"
AUTOENCODER_BYTES = 4 * 83_653_863  # of its weights, which are published in float32
AUTOENCODER_FILES = ["config.json", "diffusion_pytorch_model.safetensors"]

_CONFIG_FILES = ["*.json", "*.txt", "*.model", "*.jinja"]
_FIRST = "nano-vl2"
# How many known names a message lists.
LISTED = 13
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True)
class Checkpoint:
    """Files of a model on this machine."""

    name: str  # as the user wrote it
    folder: Path
    source: Literal["bundled", "local", "hub", "published config"]
    revision: str | None  # the commit of a hub snapshot, else None


def _package_folders(*parts: str) -> dict[str, Path]:
    """{name: folder} of the folders with a config.json under a folder of the package, sorted by name."""
    root = Path(str(files("mm"))).joinpath(*parts)
    return {path.parent.name: path.parent for path in sorted(root.glob("*/config.json"))}


def bundled_models() -> dict[str, Path]:
    """{name: folder} of the models inside the package, the one that commands take first where none is named first."""
    folders = _package_folders("nano")
    return {name: folders[name] for name in sorted(folders, key=lambda name: (name != _FIRST, name))}


def published_configs() -> dict[str, Path]:
    """{hub id: folder with config.json and the processor's settings} of the published checkpoints that are known."""
    folders = _package_folders("families", "configs")
    # Models that see first: the language models, without a processor's file, are many.
    names = sorted(folders, key=lambda name: (not (folders[name] / "processor_config.json").is_file(), name))
    return {f"{PUBLISHED_ORGANISATION}/{name}": folders[name] for name in names}


def known_names() -> list[str]:
    """Names that `find_checkpoint` knows without a network: bundled models, then published hub ids."""
    return [*bundled_models(), *published_configs()]


def find_checkpoint(name: str, revision: str | None = None) -> Checkpoint:
    """Find (and for a hub id: download when it is not cached) all files of a model.

    Args:
        name: bundled name, folder or hub id.
        revision: branch, tag or commit of a hub id.

    Raises:
        CheckpointNotFoundError: the name leads nowhere, or is not cached and cannot be downloaded.
        OptionError: a revision of something that has none.
        ResourceError: the disk is full or cannot be written.
    """
    local = _find_local(name, revision)
    if local is not None:
        return local
    folder = _download(name, revision, [*_CONFIG_FILES, "*.safetensors"])
    if not any(folder.glob("*.safetensors")):  # pickles only where nothing better is published
        folder = _download(name, revision, [*_CONFIG_FILES, "*.bin"])
    return Checkpoint(name, folder, "hub", folder.name)


def find_config(name: str, revision: str | None = None) -> Checkpoint:
    """Like `find_checkpoint`, for config.json and processor_config.json only: no weights are downloaded.

    The configurations of published checkpoints are part of the package, so they need no network unless a revision is
    asked for.
    """
    local = _find_local(name, revision)
    if local is not None:
        return local
    published = published_configs().get(name)
    if published is not None and revision is None:
        return Checkpoint(name, published, "published config", None)
    patterns = ["config.json", "generation_config.json", "*processor_config.json", "tokenizer_config.json", "*.jinja"]
    folder = _download(name, revision, patterns)
    return Checkpoint(name, folder, "hub", folder.name)


def find_autoencoder(name: str | None, model_folder: Path | None) -> Path:
    """The folder of the autoencoder that a model which draws by flow needs, downloaded when it is not cached.

    Args:
        name: a folder or a hub id; None: the folder ``vae`` in the model's folder, else the published one.
        model_folder: of the model, if it came from files.

    Raises:
        CheckpointNotFoundError: it is neither here nor to be had.
        ResourceError: the disk is full or cannot be written.
    """
    beside = None if model_folder is None else model_folder / "vae"
    if name is None and beside is not None and (beside / "config.json").is_file():
        name = str(beside)
    found = AUTOENCODER if name is None else name
    files = " and ".join(AUTOENCODER_FILES)
    places = f"a folder with {files}, such as a copy of {AUTOENCODER}, or a hub id, with --vae (vae= in Python)"
    folder = Path(found).expanduser()
    if not folder.is_dir():
        if not _HUB_ID.fullmatch(found):
            raise CheckpointNotFoundError(f"there is no folder {found!r} with an autoencoder. Name {places}")
        try:
            folder = _download(found, None, AUTOENCODER_FILES)
        except CheckpointNotFoundError as error:
            cause = str(error).partition(". ")[0]
            raise CheckpointNotFoundError(
                f"this model draws through an autoencoder (335 MB, downloaded apart), which is not to be had: {cause}. "
                f"Fetch {found} once with the network, or name {places}"
            ) from error
    missing = [file for file in AUTOENCODER_FILES if not (folder / file).is_file()]
    if missing:
        raise CheckpointNotFoundError(f"{str(folder)!r} has no {missing[0]}, so it is no autoencoder. Name {places}")
    return folder


@dataclass(frozen=True)
class CachedModel:
    """A model in the Hugging Face cache, which every program of this user shares."""

    name: str  # hub id
    num_bytes: int  # on disk
    config: dict[str, Any] | None  # its config.json; None when there is none that can be read


def cached_models() -> list[CachedModel]:
    """What is in the Hugging Face cache, whatever its family, sorted by name; empty without a cache."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repos = [repo for repo in scan_cache_dir().repos if repo.repo_type == "model"]
    except CacheNotFound:
        return []
    except PermissionError as error:
        raise ResourceError(
            f"cannot read the cache {error.filename}: {error.strerror}. Mend its permissions, or set HF_HOME elsewhere"
        ) from error
    found = []
    for repo in sorted(repos, key=lambda repo: repo.repo_id):
        configs = [file.file_path for rev in repo.revisions for file in rev.files if file.file_name == "config.json"]
        found.append(CachedModel(repo.repo_id, repo.size_on_disk, _read_object(configs[0]) if configs else None))
    return found


def _read_object(config: Path) -> dict[str, Any] | None:
    try:
        values = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None  # another program's file
    return values if isinstance(values, dict) else None


def _find_local(name: str, revision: str | None) -> Checkpoint | None:
    """The bundled or local checkpoint of this name; None for a hub id."""
    if not name.strip():
        raise CheckpointNotFoundError(f"the model name is empty. {_known()}")
    bundled = bundled_models().get(name)
    if bundled is not None:
        _refuse_revision(revision, f"{name!r} is bundled")
        return Checkpoint(name, bundled, "bundled", None)
    try:
        path = Path(name).expanduser()
        is_dir, exists = path.is_dir(), path.exists()
        has_config = is_dir and (path / "config.json").is_file()
    except PermissionError as error:
        raise CheckpointNotFoundError(
            f"the folder {name!r} cannot be read: {error.strerror}. Check its permissions"
        ) from error
    except (OSError, RuntimeError) as error:  # a name longer than names of files are; the home of nobody
        raise CheckpointNotFoundError(f"{_shortened(name)} is no model and no folder ({error}). {_known()}") from error
    if is_dir:
        _refuse_revision(revision, f"{name!r} is a folder")
        if not has_config:
            raise CheckpointNotFoundError(
                f"the folder {name!r} has no config.json. A model folder holds config.json, processor_config.json, "
                "tokenizer.json and *.safetensors or *.bin files, as published"
            )
        return Checkpoint(name, path, "local", None)
    if exists:
        raise CheckpointNotFoundError(f"{name!r} is a file. Name the folder that holds it, with its config.json")
    if not _HUB_ID.fullmatch(name):
        kind = "there is no folder" if re.search(r"^[.~]|[/\\]", name) else "there is no model or folder"
        raise CheckpointNotFoundError(f"{kind} {name!r}.{_closest(name)} {_known()}")
    return None


def _shortened(name: str) -> str:
    return repr(name if len(name) <= 80 else name[:77] + "...")


def _refuse_revision(revision: str | None, why: str) -> None:
    if revision is not None:
        raise OptionError(f"{why}, so it has no revision {revision!r}: revisions belong to hub ids. Leave it out")


def _known() -> str:
    names = known_names()
    more = f" and {len(names) - LISTED} more ('mm models' lists them)" if len(names) > LISTED else ""
    return f"Known: {', '.join(names[:LISTED])}{more}; or name a folder, or any hub id 'organisation/name'"


def _closest(name: str) -> str:
    """`" Did you mean ...?"` when a known name is close, compared with and without its organisation."""
    spellings = {known.split("/")[-1].lower(): known for known in known_names() if known != name}
    close = difflib.get_close_matches(name.split("/")[-1].lower(), spellings, n=1, cutoff=0.6)
    return f" Did you mean {spellings[close[0]]!r}?" if close else ""


def _other_case(name: str) -> str:
    """`" Did you mean ...?"` when a known name differs in capital letters alone; not where the name is known itself."""
    same = [known for known in known_names() if known.lower() == name.lower()]
    return f" Did you mean {same[0]!r}?" if same and name not in same else ""


def _download(name: str, revision: str | None, patterns: list[str]) -> Path:
    """The snapshot folder of a hub id with the files that match, from the cache when there is no network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    # The base class of the HTTP library's errors (httpx; the name of its module changes with the version).
    transport_error: type[Exception] = HfHubHTTPError.__mro__[1]
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns, ignore_patterns=["*/*"]))
    except (OSError, transport_error, HFValidationError) as error:
        raise _explain(error, name, revision) from error


def _explain(error: Exception, name: str, revision: str | None) -> MMError:
    """What a failed download means for the user."""
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    what = name if revision is None else f"{name} at revision {revision!r}"
    cache, endpoint = constants.HF_HUB_CACHE, constants.ENDPOINT
    first_line = (str(error).splitlines() or [type(error).__name__])[0]
    match error:
        case HFValidationError():
            return CheckpointNotFoundError(f"{name!r} is not a hub id: {first_line}. {_known()}")
        case GatedRepoError():
            return CheckpointNotFoundError(
                f"{name} asks for acceptance of its terms. Accept them on its page, then set HF_TOKEN of that account"
            )
        case RepositoryNotFoundError():
            return CheckpointNotFoundError(
                f"{endpoint} has no model {name!r}, or it is private.{_closest(name)} Check the spelling; "
                f"a private model needs HF_TOKEN. {_known()}"
            )
        case RevisionNotFoundError():
            return CheckpointNotFoundError(
                f"{name} has no revision {revision!r}. Name one of its branches, tags or commits"
            )
        case LocalEntryNotFoundError():
            if constants.HF_HUB_OFFLINE:
                cause, step = "HF_HUB_OFFLINE is set", "unset HF_HUB_OFFLINE"
            else:
                cause, step = f"{endpoint} cannot be reached", "check the network, the proxy settings and HF_ENDPOINT"
            return CheckpointNotFoundError(
                f"{what} is not (completely) in the cache {cache}, and {cause}.{_other_case(name)} Either {step}; or "
                f"copy the model to this machine and name its folder; or use a bundled model: "
                f"{', '.join(bundled_models())}"
            )
        case OSError(errno=errno.ENOSPC):
            return ResourceError(
                f"the disk is full: {what} does not fit in {cache}. Free some space, or set HF_HOME to a folder on a "
                "larger disk; what has arrived is kept"
            )
        case PermissionError() | NotADirectoryError() | FileExistsError() | OSError(errno=errno.EROFS):
            return ResourceError(
                f"cannot write to the cache {cache}: {first_line}. Mend its permissions, or set HF_HOME elsewhere"
            )
        case _:
            return CheckpointNotFoundError(
                f"the download of {what} from {endpoint} failed: {first_line}. Check the network and try again; "
                "what has arrived is kept"
            )
