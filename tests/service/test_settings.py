"""service.settings and service.errors: two tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from models import errors
from service.errors import sentence_of, status_of
from service.settings import Settings


def test_every_default_is_the_default() -> None:
    """An empty environment gives what the class says."""
    assert Settings.from_environment({}) == Settings()


def test_the_environment_is_read() -> None:
    """The home moves the repository with it, unless that is named too."""
    settings = Settings.from_environment({"SLIPSTREAM_HOME": "/h", "SLIPSTREAM_SAMPLE": "0.1"})
    assert (settings.repository, settings.sample) == (Path("/h/repository"), 0.1)
    both = {"SLIPSTREAM_HOME": "/h", "SLIPSTREAM_REPOSITORY": "/r"}
    assert Settings.from_environment(both).repository == Path("/r")


def test_what_cannot_be_read_is_named() -> None:
    """The variable and what stood in it."""
    with pytest.raises(ValueError, match="SLIPSTREAM_WORKERS='two'"):
        Settings.from_environment({"SLIPSTREAM_WORKERS": "two"})


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.InvalidRequest(""), 400),
        (errors.UnknownModel("m", []), 404),
        (errors.UnknownVersion("m", 1, []), 404),
        (errors.MethodNotAllowed(""), 405),
        (errors.RouteConflict(""), 409),
        (errors.IllegalTransition(""), 409),
        (errors.BodyTooLarge(""), 413),
        (errors.UnsupportedEncoding(""), 415),
        (errors.Overloaded(""), 429),
        (errors.ModelFault(""), 500),
        (errors.NotSupported(""), 501),
        (errors.NotReady(""), 503),
        (errors.BadModel(""), 503),
        (errors.DeadlineExceeded(""), 504),
        (KeyError("secret"), 500),
    ],
)
def test_each_error_has_its_status(error: Exception, status: int) -> None:
    """A subclass goes before its parent; a surprise is a 500 that keeps its details to itself."""
    assert status_of(error) == status
    assert "secret" not in sentence_of(error)
