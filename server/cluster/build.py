"""From a plan to Ray Serve's application: one ingress, and for each base replicas and workers."""

import re
from typing import Any

from ray import serve
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy

from server.cluster.ingress import Ingress
from server.cluster.plan import Base, Plan, Replicas
from server.cluster.queue_time import QueueTimePolicy
from server.cluster.replica import Replica
from server.cluster.worker import Worker

#: Requests at a replica for each that runs there: the engine fills a batch from a short queue.
_ONGOING = 2
#: The ingress holds open requests and nothing else; what is too much, replicas refuse.
_MOST_OPEN = 100_000
_SPARE_S = 15.0
_QUIET = {"enable_access_log": False}


def application(plan: Plan) -> serve.Application:
    """Return the application.

    Args:
        plan: Ray Serve makes it of the configuration's `args`.
    """
    workers = [_workers(n, base) for n, base in enumerate(plan.bases) if base.workers.number]
    return (
        serve.deployment(Ingress)
        .options(
            name="ingress",
            num_replicas=plan.ingresses,
            max_ongoing_requests=_MOST_OPEN,
            logging_config=_QUIET,
            ray_actor_options={"num_cpus": 0},
        )
        .bind(
            {base.name: _replicas(n, base) for n, base in enumerate(plan.bases)},
            plan.affinity,
            workers,
        )
    )


def _replicas(number: int, base: Base) -> serve.Application:
    settings = base.read
    return (
        serve.deployment(Replica)
        .options(
            name=_name("replica", number, base),
            **_count(base.replicas),
            max_ongoing_requests=_ONGOING * settings.max_running,
            max_queued_requests=settings.max_waiting,
            graceful_shutdown_timeout_s=settings.grace_s + _SPARE_S,
            logging_config=_QUIET,
            ray_actor_options=base.actor,
        )
        .bind(base.settings)
    )


def _workers(number: int, base: Base) -> serve.Application:
    return (
        serve.deployment(Worker)
        .options(
            name=_name("worker", number, base),
            num_replicas=base.workers.number,
            graceful_shutdown_timeout_s=base.read.grace_s + _SPARE_S,
            ray_actor_options=base.workers.actor,
        )
        .bind(base.settings)
    )


def _count(replicas: Replicas) -> dict[str, Any]:
    """Return a fixed number, or scaling by queue time."""
    if replicas.most is None:
        return {"num_replicas": replicas.least}
    policy = f"{QueueTimePolicy.__module__}:{QueueTimePolicy.__qualname__}"
    scaling = AutoscalingConfig(
        min_replicas=replicas.least,
        max_replicas=replicas.most,
        upscale_delay_s=replicas.add_after_s,
        downscale_delay_s=replicas.remove_after_s,
        policy=AutoscalingPolicy(
            policy_function=policy, policy_kwargs={"target_s": replicas.queue_s}
        ),
    )
    return {"autoscaling_config": scaling}


def _name(kind: str, number: int, base: Base) -> str:
    """Return a deployment's name, which has not all the characters of a base's."""
    return f"{kind}-{number}-{re.sub(r'[^A-Za-z0-9_.-]', '-', base.name)}"
