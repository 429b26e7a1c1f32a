"""API keys of the small server: kept in a dictionary, each with a secret that is told once."""

from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request


@dataclass
class Keys:
    """What the tests see of it, and what was sent."""

    keys: dict[str, dict[str, Any]] = field(default_factory=dict)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    graces: list[float] = field(default_factory=list)

    def add(self, body: dict[str, Any]) -> dict[str, Any]:
        id_ = f"{len(self.keys):04x}{'0' * 12}"
        life_s = body.get("expires_in_s")
        self.keys[id_] = {
            "id": id_,
            "object": "api_key",
            "tenant": body["tenant"],
            "scopes": body["scopes"],
            "label": body.get("label", ""),
            "ends_in": "cret",
            "created_at": 1_700_000_000,
            "expires_at": None if life_s is None else 1_700_000_000 + int(life_s),
            "revoked_at": None,
            "rotated_at": None,
            "old_secret_until": None,
        }
        return {**self.keys[id_], "secret": f"ovt_{id_}_secret"}


def add_keys(app: FastAPI, state: Any, missing: Any) -> None:
    """Add the routes; `missing` makes the error of what is not there."""

    @app.post("/v1/keys", status_code=201)
    async def create(request: Request) -> dict[str, Any]:
        state.keys.bodies.append(await request.json())
        return state.keys.add(state.keys.bodies[-1])

    @app.get("/v1/keys")
    async def page(
        limit: int, after: str | None = None, tenant: str | None = None
    ) -> dict[str, Any]:
        newest = [k for k in reversed(state.keys.keys.values()) if tenant in (None, k["tenant"])]
        start = next((i + 1 for i, one in enumerate(newest) if one["id"] == after), 0)
        data = newest[start : start + min(limit, 2)]
        return {"object": "list", "data": data, "has_more": start + len(data) < len(newest)}

    @app.get("/v1/keys/{id_}")
    async def show(id_: str) -> dict[str, Any]:
        return state.keys.keys.get(id_) or missing("API key", id_)

    @app.post("/v1/keys/{id_}/rotate")
    async def rotate(id_: str, grace_s: float = 0) -> dict[str, Any]:
        state.keys.graces.append(grace_s)
        key = state.keys.keys.get(id_) or missing("API key", id_)
        key["rotated_at"] = 1_700_000_100
        key["old_secret_until"] = 1_700_000_100 + int(grace_s) if grace_s else None
        return {**key, "secret": f"ovt_{id_}_newer"}

    @app.delete("/v1/keys/{id_}")
    async def revoke(id_: str) -> dict[str, Any]:
        key = state.keys.keys.get(id_) or missing("API key", id_)
        key["revoked_at"] = 1_700_000_200
        return key
