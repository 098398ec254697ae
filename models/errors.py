"""What can go wrong, as a tree. No status codes here: `service.errors` maps these to HTTP.

SlipstreamError
├── InvalidRequest          the caller sent something that cannot be answered
│   ├── BodyTooLarge
│   └── UnsupportedEncoding
├── NotFound
│   ├── UnknownModel
│   └── UnknownVersion
├── Forbidden               a token is missing or wrong
├── MethodNotAllowed        the path exists, this method on it does not
├── RouteConflict           somebody else changed the route first
├── GatesNotPassed          evidence stands against this step of a rollout, or lacks
├── IllegalTransition       this change of route makes no sense from here
├── Overloaded              more work in flight than the bound allows
├── DeadlineExceeded
├── NotReady                loading or draining
├── ModelFault              the model itself failed on a well-formed request
├── NotSupported            the protocol has it, this server has not
└── RepositoryError         a file, manifest or profile that cannot be used
    ├── BadModel
    └── VersionExists
"""

from __future__ import annotations

from collections.abc import Iterable


class SlipstreamError(Exception):
    """Root of every error that carries a sentence for a person."""


class InvalidRequest(SlipstreamError):
    """The request cannot be answered as it stands."""


class BodyTooLarge(InvalidRequest):
    """The body is longer than the limit."""


class UnsupportedEncoding(InvalidRequest):
    """The body is compressed in a way that this server does not read."""


class NotFound(SlipstreamError):
    """There is no such thing."""


class UnknownModel(NotFound):
    """No model of this name is served."""

    def __init__(self, model: str, known: Iterable[str]) -> None:
        names = sorted(known)
        super().__init__(f"no model '{model}'; known: {', '.join(names[:20]) or 'none yet'}")


class UnknownVersion(NotFound):
    """The model has no such version."""

    def __init__(self, model: str, version: str | int, known: Iterable[int]) -> None:
        numbers = ", ".join(str(v) for v in sorted(known)) or "none"
        super().__init__(f"no version {version} of {model}; known: {numbers}")


class Forbidden(SlipstreamError):
    """This needs a token that was not given."""


class MethodNotAllowed(SlipstreamError):
    """The path exists, this method on it does not."""


class RouteConflict(SlipstreamError):
    """The route changed between reading and writing it."""


class GatesNotPassed(SlipstreamError):
    """The gates of a rollout fail (`failed`), or have not enough evidence yet."""

    def __init__(self, sentence: str, failed: bool) -> None:
        super().__init__(sentence)
        self.failed = failed


class IllegalTransition(SlipstreamError):
    """The route cannot go from here to there; the sentence lists what is legal."""


class Overloaded(SlipstreamError):
    """Too much work in flight; try again shortly."""


class DeadlineExceeded(SlipstreamError):
    """The answer was not ready in time."""


class NotReady(SlipstreamError):
    """The version is loading or draining."""


class ModelFault(SlipstreamError):
    """The model failed on a well-formed request."""


class NotSupported(SlipstreamError):
    """The protocol knows this call; this server does not offer it."""


class RepositoryError(SlipstreamError):
    """Something in the model repository cannot be used."""


class BadModel(RepositoryError):
    """This ONNX file cannot be served."""


class VersionExists(RepositoryError):
    """The version is there already, with other contents. Versions never change."""
