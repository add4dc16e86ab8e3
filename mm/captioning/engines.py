"""What answers: one process, a process for each device, or a Ray cluster."""

from collections.abc import Generator
from typing import TYPE_CHECKING, Literal, Protocol

from mm.captioning.rows import Outcome
from mm.captioning.supply import Supply
from mm.devices import resolve_device
from mm.errors import OptionError

if TYPE_CHECKING:
    from mm.captioning.job import Job
    from mm.pipeline import Pipeline

EngineName = Literal["local", "ray"]
ENGINES: tuple[EngineName, ...] = ("local", "ray")


class AnswerEngine(Protocol):
    """Something that answers about the images of a run."""

    @property
    def busy(self) -> float:
        """Share of the time in which its models computed."""
        ...

    def answer(self, supply: Supply) -> Generator[Outcome | None]:
        """What becomes of each image, in any order, each once; None now and then, so that the run can save."""
        ...

    def close(self) -> None:
        """Give back all that it holds."""
        ...


def check_engine(job: "Job", pipe: "Pipeline | None") -> None:
    """Refuse what no engine can follow before anything is made.

    Raises:
        OptionError: an unknown device, or one that this machine lacks; a loaded model for other processes.
    """
    elsewhere = "several devices" if job.devices else "the engine 'ray'" if job.engine == "ray" else None
    if elsewhere and pipe is not None:
        raise OptionError(f"{elsewhere} load the model in processes of their own. Leave pipe out, and name job.model")
    if pipe is None and job.engine == "local":  # a cluster has devices of its own
        for device in job.devices or (job.device,):
            resolve_device(device)


def open_engine(job: "Job", pipe: "Pipeline | None", num_images: int) -> AnswerEngine:
    """What a job asks for, its model loaded.

    Args:
        job: what to do.
        pipe: a loaded model, for an engine of this process.
        num_images: that it will be asked about.

    Raises:
        CheckpointError: the model cannot be loaded.
        ResourceError: it does not fit, or the cluster cannot be reached.
        MissingExtraError: Ray is not installed.
    """
    if job.engine == "ray":
        from mm.captioning.ray_engine import RayEngine

        return RayEngine(job, num_images)
    if job.devices:
        from mm.captioning.fleet import Fleet

        return Fleet(job, num_images)
    from mm.captioning.local import LocalEngine

    return LocalEngine(job, pipe=pipe, num_images=num_images)
