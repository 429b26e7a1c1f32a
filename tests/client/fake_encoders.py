"""Encoders of the small server: what they answer follows from a text's length alone."""

from typing import Any

from fastapi import FastAPI, Request


def _add_pairs(app: FastAPI, state: Any) -> None:
    @app.post("/v1/rerank")
    async def rerank(request: Request) -> dict[str, Any]:
        body = await request.json()
        state.bodies.append(body)
        found = [(len(text), index, text) for index, text in enumerate(body["documents"])]
        results = [
            {"index": index, "relevance_score": score / 10, "document": {"text": text}}
            for score, index, text in sorted(found, reverse=True)[: body.get("top_n")]
        ]
        return {"id": "rerank-1", "results": results, **_about(body["model"])}

    @app.post("/v1/score")
    async def score(request: Request) -> dict[str, Any]:
        body = await request.json()
        state.bodies.append(body)
        others = [body["text_2"]] if isinstance(body["text_2"], str) else body["text_2"]
        data = [{"index": i, "score": len(text) / 10} for i, text in enumerate(others)]
        return {
            "id": "score-1",
            "object": "list",
            "data": _given(state, data),
            **_about(body["model"]),
        }


def _add_texts(app: FastAPI, state: Any) -> None:
    @app.post("/v1/classify")
    async def classify(request: Request) -> dict[str, Any]:
        body = await request.json()
        labels = ["short" if len(text) < 5 else "long" for text in body["input"]]
        data = [{"label": one, "score": 0.75, "scores": []} for one in labels]
        return {"data": _given(state, data), **_about(body["model"])}

    @app.post("/v1/embeddings")
    async def embed(request: Request) -> dict[str, Any]:
        body = await request.json()
        data = [{"embedding": [len(text), 0.5]} for text in body["input"]]
        return {"data": _given(state, data), **_about(body["model"])}

    @app.post("/tokenize")
    async def tokenize(request: Request) -> dict[str, Any]:
        body = await request.json()
        words = body["prompt"].split()
        ids = list(map(len, words))
        return {"tokens": ids, "token_strs": _given(state, words), "max_model_len": 64}


def _given(state: Any, answers: list[Any]) -> list[Any]:
    return answers[: len(answers) - state.left_out]


def _about(model: str) -> dict[str, Any]:
    return {
        "model": model,
        "usage": {"prompt_tokens": 3, "total_tokens": 3},
        "overtone": {"adapter": model, "version": 1, "digest": "sha256:0", "mode": "factored"},
    }


def add_encoders(app: FastAPI, state: Any) -> None:
    """Add the routes."""
    _add_pairs(app, state)
    _add_texts(app, state)
