"""The console: static files that use the public API only, sent without any other host."""

import asyncio

from fastapi import APIRouter, Request, Response

from server.api.console_files import PAGE, console_file, console_names
from server.errors import NotFound

router = APIRouter(include_in_schema=False)

#: Only this server's files are run, no script or style stands in a page, and only this server is
#: asked. Pictures are drawn, or read from a file that was dropped.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_SAFE = {
    "Content-Security-Policy": _POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@router.get("/")
async def page(request: Request) -> Response:
    """Return the page."""
    return await _sent(request, PAGE)


@router.get("/console/{name:path}")
async def part(request: Request, name: str) -> Response:
    """Return a script, a style sheet, a licence."""
    if name not in console_names():
        raise NotFound(f"the console has no file {name[:80]!r}")
    return await _sent(request, name)


async def _sent(request: Request, name: str) -> Response:
    """Return a file, or 304 to a browser that has it: it asks each time, so none is outdated."""
    file = await asyncio.to_thread(console_file, name)
    headers = {**_SAFE, "Cache-Control": "no-cache", "ETag": file.etag, "Vary": "Accept-Encoding"}
    known = request.headers.get("if-none-match", "").replace("W/", "").split(",")
    if file.etag in (one.strip() for one in known):
        return Response(None, 304, headers)
    if file.packed is None or "gzip" not in request.headers.get("accept-encoding", ""):
        return Response(file.body, 200, headers, file.media_type)
    return Response(file.packed, 200, headers | {"Content-Encoding": "gzip"}, file.media_type)
