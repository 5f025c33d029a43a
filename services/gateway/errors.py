"""Every error of the gateway in one shape, OpenAI's: `{"error": {"message", "type", "param", "code"}}`.

`code` is the error's stable reason in lower case, `param` the input that was wrong, and a message says how to mend it.
429 and 503 carry `Retry-After` in whole seconds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.types import Scope

from services.shared.domain.errors import Busy, InvalidInput, NotFound, ThumbloopError, Unavailable
from services.shared.domain.feedback import FeedbackKind
from services.shared.rpc.statuses import status_of
from services.shared.telemetry.log import get_logger

DEFAULT_RETRY_AFTER_S = 1.0
UNMATCHED = "unmatched"
"""In place of a route, where none matched."""
MAX_PARAM_CHARS = 200
_VARIANTS = frozenset(str(kind) for kind in FeedbackKind)
"""How pydantic names the alternatives of a body in the place of a mistake."""
_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
}
_INTERNAL = "Something went wrong inside Thumbloop. Try again; if it stays, tell the operator."


class ErrorDetail(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """Body of every error."""

    error: ErrorDetail


def error_body(error: ThumbloopError) -> dict[str, Any]:
    """The error object of an error; it also stands in streams that fail midway."""
    status = status_of(error).http_status
    return _body(error.message, status, param=_param(error.field), code=error.reason.lower())


def error_response(error: ThumbloopError) -> JSONResponse:
    """The whole answer."""
    status = status_of(error).http_status
    retry_after = error.retry_after
    if retry_after is None and isinstance(error, (Busy, Unavailable)):
        retry_after = DEFAULT_RETRY_AFTER_S
    headers = {} if retry_after is None else {"Retry-After": str(max(1, math.ceil(retry_after)))}
    if status == 401:
        headers["WWW-Authenticate"] = _challenge(error)
    return JSONResponse(error_body(error), status_code=status, headers=headers)


def route_of(scope: Scope) -> str:
    """The template of a request's route, for logs and metrics: a path may name a person, or be anything at all."""
    return str(getattr(scope.get("route"), "path", UNMATCHED))


def unexpected_response(error: Exception, *, method: str, path: str) -> JSONResponse:
    """The answer to what no code foresaw: the log gets all of it, the client none. `path` is the route's template."""
    get_logger().error("request_failed", method=method, path=path, exc_info=error)
    return JSONResponse(_body(_INTERNAL, 500, code="internal"), status_code=500)


def _challenge(error: ThumbloopError) -> str:
    """How to prove oneself (RFC 9110, RFC 6750): by a feedback token, or by an API key."""
    if error.reason.startswith("FEEDBACK_TOKEN"):
        return "Feedback"
    presented = error.reason != "API_KEY_MISSING"
    return 'Bearer realm="thumbloop"' + (', error="invalid_token"' if presented else "")


def install_error_handlers(app: FastAPI) -> None:
    """Answers every failure of an app in the shape above."""

    @app.exception_handler(ThumbloopError)
    async def on_known(_: Request, error: ThumbloopError) -> JSONResponse:
        return error_response(error)

    @app.exception_handler(RequestValidationError)
    async def on_invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        return error_response(_invalid(error.errors()))

    @app.exception_handler(HTTPException)
    async def on_http(request: Request, error: HTTPException) -> JSONResponse:
        if error.status_code == 404:
            return error_response(NotFound(f"No route {request.method} {request.url.path[:200]!a}. See /docs."))
        body = _body(f"{error.detail}. See /docs.", error.status_code, code=None)
        return JSONResponse(body, status_code=error.status_code, headers=error.headers)

    @app.exception_handler(Exception)
    async def on_unknown(request: Request, error: Exception) -> JSONResponse:
        return unexpected_response(error, method=request.method, path=route_of(request.scope))


def _body(message: str, status: int, *, param: str | None = None, code: str | None) -> dict[str, Any]:
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    shown = None if param is None else _printable(param)[:MAX_PARAM_CHARS]
    return {"error": {"message": _printable(message), "type": kind, "param": shown, "code": code}}


def _printable(text: str) -> str:
    """A client's own words may hold half a surrogate pair, which no answer can carry."""
    return text.encode("utf-8", "backslashreplace").decode()


def _param(field: str) -> str | None:
    """A field as the client spelled it: the generator's `sampling.seed` is `seed` here."""
    return field.removeprefix("sampling.") or None


def _invalid(mistakes: Sequence[Any]) -> InvalidInput:
    """The first mistake that pydantic found, in words."""
    mistake = mistakes[0]
    location = [part for part in mistake["loc"] if part not in ("body", "query", "path", "header")]
    if mistake["type"] == "json_invalid":
        why = mistake.get("ctx", {}).get("error", "")
        return InvalidInput(
            f"The body is no JSON ({why} at character {mistake['loc'][-1]}). Send one JSON object.", reason="BAD_JSON"
        )
    if mistake["type"] in _TAG_MISTAKES:
        return _wrong_variant(mistake)
    if len(location) > 1 and location[0] in _VARIANTS:
        location = location[1:]
    elif not location or location[0] in _VARIANTS:
        return InvalidInput(
            "The body must be a JSON object. Send one, with the header Content-Type: application/json.",
            reason="BAD_BODY",
        )
    field = _spelled(location)
    if mistake["type"] == "missing":
        return InvalidInput(f"{field!r} is missing. Add it; /docs shows an example.", reason="MISSING", field=field)
    if mistake["type"] == "extra_forbidden":
        return InvalidInput(f"{field!r} is not known here. Leave it out; /docs shows what there is.", field=field)
    reason = "BAD_VALUE" if mistake["type"] == "bad_value" else None
    return InvalidInput(f"{field!r}: {mistake['msg']}.", reason=reason, field=field)


_TAG_MISTAKES = ("union_tag_invalid", "union_tag_not_found")


def _wrong_variant(mistake: Any) -> InvalidInput:
    """A body whose discriminator names no alternative, or that has none."""
    context = mistake["ctx"]
    field = context["discriminator"].strip("'")
    if mistake["type"] == "union_tag_not_found":
        return InvalidInput(f"{field!r} is missing. Add it; /docs shows an example.", reason="MISSING", field=field)
    return InvalidInput(
        f"{context['tag'][:64]!a} is no {field} that is known here. Use one of: {context['expected_tags']}.",
        reason=f"UNKNOWN_{field.upper()}",
        field=field,
    )


def _spelled(location: Sequence[str | int]) -> str:
    """`("messages", 0, "role")` as `messages[0].role`; names of alternatives (`str`, `list[...]`) are left out."""
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part in ("str", "constrained-str") or "[" in part:
            continue
        else:
            text += f".{part}" if text else part
    return text
