"""One table: domain error -> HTTP status. The sentence is the error's own."""

from __future__ import annotations

from models import errors

#: The first match along an error's class hierarchy counts.
STATUS: dict[type[BaseException], int] = {
    errors.BodyTooLarge: 413,
    errors.UnsupportedEncoding: 415,
    errors.InvalidRequest: 400,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.MethodNotAllowed: 405,
    errors.IllegalTransition: 409,
    errors.RouteConflict: 409,
    errors.Overloaded: 429,
    errors.NotSupported: 501,
    errors.BadModel: 503,
    errors.NotReady: 503,
    errors.DeadlineExceeded: 504,
    errors.ModelFault: 500,
}


def status_of(error: BaseException) -> int:
    """The HTTP status of an error; 500 for what nobody foresaw."""
    return next((STATUS[cls] for cls in type(error).__mro__ if cls in STATUS), 500)


def sentence_of(error: BaseException) -> str:
    """What the caller is told. Surprises are told without their details, which go to the log."""
    if isinstance(error, errors.SlipstreamError):
        return str(error)
    return "the gateway failed on this request; its log has the details"
