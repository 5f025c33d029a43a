"""The chat page and the API's documentation: static files, without anything from elsewhere."""

from __future__ import annotations

import os
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.routing import Mount
from starlette.types import Scope

WEB = Path(__file__).parent / "web"
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


class WebFiles(StaticFiles):
    """Files of the page; `no-cache` makes browsers ask whether they changed."""

    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        """Adds the headers."""
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers.update(_HEADERS)
        return response


def page_router() -> APIRouter:
    """`/` is the chat, `/docs` the API's documentation."""
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    async def chat_page() -> FileResponse:
        """The chat page."""
        return FileResponse(WEB / "index.html", headers=_HEADERS)

    @router.get("/docs")
    async def docs_page() -> FileResponse:
        """The API, from /openapi.json."""
        return FileResponse(WEB / "docs.html", headers=_HEADERS)

    return router


def web_files() -> Mount:
    """Everything that the pages load."""
    return Mount("/web", WebFiles(directory=WEB), name="web")
