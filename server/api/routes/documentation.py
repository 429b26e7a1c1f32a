"""The OpenAPI document, and a page that shows it and tries requests, without any other host."""

import gzip
from pathlib import Path

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse, JSONResponse

from server.api.openapi import document

router = APIRouter(include_in_schema=False)

_SWAGGER = Path(__file__).parent.parent.parent / "swagger"
#: Only what this server sends is run, and it talks to this server only.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_SAFE = {"Content-Security-Policy": _POLICY, "X-Content-Type-Options": "nosniff"}
#: They change with the program only, which a browser asks about by their ETag.
_ASSETS = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css"}


@router.get("/openapi.json")
async def openapi(request: Request) -> JSONResponse:
    """Return the document; it is made once."""
    app = request.app
    if app.openapi_schema is None:
        app.openapi_schema = document(app)
    return JSONResponse(app.openapi_schema)


@router.get("/docs")
async def page() -> FileResponse:
    """Return the page."""
    return FileResponse(_SWAGGER / "index.html", media_type="text/html", headers=_SAFE)


@router.get("/docs/start.js")
async def start() -> FileResponse:
    """Return what starts the page."""
    return FileResponse(_SWAGGER / "start.js", media_type="text/javascript", headers=_SAFE)


@router.get("/docs/swagger-ui-bundle.js")
async def script(request: Request) -> Response:
    """Return Swagger UI."""
    return _compressed(request, "swagger-ui-bundle.js")


@router.get("/docs/swagger-ui.css")
async def style(request: Request) -> Response:
    """Return Swagger UI's style sheet."""
    return _compressed(request, "swagger-ui.css")


def _compressed(request: Request, name: str) -> Response:
    """Return a shipped file as it is stored, or unpacked for a caller that cannot unpack it."""
    path, headers = _SWAGGER / f"{name}.gz", _SAFE | {"Vary": "Accept-Encoding"}
    if "gzip" not in request.headers.get("accept-encoding", ""):
        return Response(gzip.decompress(path.read_bytes()), 200, headers, _ASSETS[name])
    headers["Content-Encoding"] = "gzip"
    return FileResponse(path, media_type=_ASSETS[name], headers=headers)
