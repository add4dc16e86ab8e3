"""A cluster of two nodes on this machine, a run on it, and the death of a node in the middle: SOURCE OUTPUT."""

import json
import os
import sys

import ray
from ray.cluster_utils import Cluster

from mm.captioning import Job, Progress, ray_engine, run
from tests.captioning.conftest import SHORT

STORE = 80 * 2**20
AT_ONCE = 24  # images in Ray's object store: the source is handed over in two parts
# A dead node is noticed in five seconds, not in thirty.
QUICK = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 1000, "health_check_failure_threshold": 5}


def main() -> None:
    """Print how it went, as JSON."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    head = {"num_cpus": 1, "object_store_memory": STORE, "include_dashboard": False, "_system_config": QUICK}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    node = cluster.add_node(num_cpus=1, object_store_memory=STORE)
    ray_engine._MOST_IMAGES = AT_ONCE
    told = {"done_when_killed": 0}

    def kill(progress: Progress) -> None:
        if not told["done_when_killed"]:
            told["done_when_killed"] = progress.done
            cluster.remove_node(node, allow_graceful=False)

    def count(progress: Progress) -> None:
        kill(progress)
        told["nodes_left"] = sum(entry["Alive"] for entry in ray.nodes())

    job = Job(
        *sys.argv[1:],
        sampling=SHORT,
        max_tiles=1,
        batch_size=2,
        workers=0,
        engine="ray",
        ray_address=cluster.address,
    )
    summary = run(job, on_progress=count)
    told |= {"done": summary.done, "quarantined": summary.quarantined}
    sys.stdout.write("\n" + json.dumps(told) + "\n")
    cluster.shutdown()


if __name__ == "__main__":
    main()
