"""Texts for many images. ``run(Job(source, output))`` is the whole face, so it stands here (the one package whose
face is not a module of its own)."""

from mm.captioning.job import Job as Job
from mm.captioning.job import Progress as Progress
from mm.captioning.job import Summary as Summary
from mm.captioning.job import run as run
from mm.captioning.tasks import Task as Task
