"""What the edge itself answers instead of an engine, in the shape that clients of the OpenAI API read. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class ApiError:
    """One answer.

    Args:
        status: of HTTP.
        code: for programs.
        message: for people.
        kind: `type` in the body.
        retry_after: seconds until it is worth another try; 0 where it is not.
    """

    status: int
    code: str
    message: str
    kind: str = "invalid_request_error"
    retry_after: int = 0

    @property
    def body(self) -> str:
        """The body, as JSON in one line."""
        error = {"message": self.message, "type": self.kind, "param": None, "code": self.code}
        return json.dumps({"error": error})


BUSY = "rate_limit_error"
_SERVER = "server_error"

REFUSED: Mapping[str, ApiError] = {
    "path": ApiError(404, "unknown_url", "This address is none of the API that is served here."),
    "key": ApiError(401, "invalid_api_key", "No valid API key: send Authorization: Bearer <key>."),
    "expired": ApiError(401, "expired_api_key", "This API key has expired."),
    "size": ApiError(413, "request_too_large", "The request body is larger than this service takes."),
    "no_model": ApiError(400, "missing_model", "The request body is no JSON object that names a model."),
    "unknown_model": ApiError(404, "model_not_found", "This model is not served here: GET /v1/models lists those."),
    "model": ApiError(403, "model_not_allowed", "This API key may not use this model."),
    "rate": ApiError(429, "rate_limit_exceeded", "This API key has used its requests of this minute.", BUSY),
    "concurrent": ApiError(429, "too_many_requests", "This API key has its number of requests in flight.", BUSY, 1),
    "connections": ApiError(429, "overloaded", "As many connections are open as may be: try again later.", BUSY, 5),
    "queue": ApiError(429, "overloaded", "As many requests wait as may: try again later.", BUSY, 5),
}
"""What is refused -> the answer, from the configuration's own rules."""

FAILED: tuple[ApiError, ...] = (
    ApiError(400, "bad_request", "The request is no HTTP that is understood here."),
    ApiError(408, "request_timeout", "The request did not arrive whole in time."),
    ApiError(413, "request_too_large", "The request is larger than this service takes."),
    ApiError(429, "too_many_requests", "Too many requests: try again later.", BUSY, 5),
    ApiError(500, "internal_error", "The edge failed.", _SERVER, 1),
    ApiError(502, "engine_failed", "The engine ended before it had answered.", _SERVER, 1),
    ApiError(503, "no_engine", "No engine of this model is ready, or free in time: try again later.", _SERVER, 5),
    ApiError(504, "engine_silent", "The engine has not answered in time.", _SERVER, 5),
)
"""What HAProxy answers by itself, by status."""
