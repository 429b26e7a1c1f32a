"""Batches of the small server: a batch goes one step on at each look."""

from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request

STEPS = ("validating", "in_progress", "finalizing", "completed")


@dataclass
class Batches:
    """What the tests set, and what was sent."""

    batches: dict[str, dict[str, Any]] = field(default_factory=dict)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    ending: str = "completed"
    faults: list[dict[str, Any]] = field(default_factory=list)
    lines: dict[str, bytes] = field(default_factory=dict)  # "output" and "error"

    def add(self, body: dict[str, Any], **more: Any) -> dict[str, Any]:
        id_ = f"batch_{len(self.batches):024x}"
        counts = {"total": 4, "completed": 0, "failed": 0}
        self.batches[id_] = {
            "id": id_,
            "object": "batch",
            "endpoint": body["endpoint"],
            "input_file_id": body["input_file_id"],
            "completion_window": body["completion_window"],
            "status": "validating",
            "output_file_id": None,
            "error_file_id": None,
            "errors": None,
            "created_at": 1_700_000_000,
            "request_counts": counts,
            "metadata": body.get("metadata") or {},
            **more,
        }
        return self.batches[id_]

    def step(self, batch: dict[str, Any], training: Any) -> None:
        """Let a batch go one state on; at its end it has its files."""
        if batch["status"] not in STEPS[:3]:
            return
        batch["status"] = STEPS[STEPS.index(batch["status"]) + 1]
        batch["request_counts"]["completed"] += 1
        if batch["status"] == "completed":
            batch["status"] = self.ending
            batch["errors"] = {"object": "list", "data": self.faults} if self.faults else None
            for kind, content in self.lines.items():
                file = training.add_file(f"{kind}.jsonl", content, "batch_output")
                batch[f"{kind}_file_id"] = file["id"]


def add_batches(app: FastAPI, state: Any, missing: Any) -> None:
    """Add the routes; `missing` makes the error of what is not there."""

    @app.post("/v1/batches")
    async def create(request: Request) -> dict[str, Any]:
        state.batches.bodies.append(await request.json())
        return state.batches.add(state.batches.bodies[-1])

    @app.get("/v1/batches")
    async def page(limit: int, after: str | None = None) -> dict[str, Any]:
        newest = list(reversed(state.batches.batches.values()))
        start = next((i + 1 for i, one in enumerate(newest) if one["id"] == after), 0)
        data = newest[start : start + min(limit, 2)]
        return {"object": "list", "data": data, "has_more": start + len(data) < len(newest)}

    @app.get("/v1/batches/{id_}")
    async def show(id_: str) -> dict[str, Any]:
        batch = state.batches.batches.get(id_) or missing("batch", id_)
        state.batches.step(batch, state.training)
        return batch

    @app.post("/v1/batches/{id_}/cancel")
    async def cancel(id_: str) -> dict[str, Any]:
        batch = state.batches.batches[id_]
        batch["status"] = "cancelled"
        return batch
