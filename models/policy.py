"""What a rollout must show before its version may overtake. Read from TOML, kept with the rollout.

Two come along: `equivalent` for a version that is meant to say the same (a refactor, a
quantisation), `improvement` for one that is meant to differ (a retrained or a new model).
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from models.errors import InvalidRequest

FOLDER = Path(__file__).parent / "policies"


class Evidence(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Least requests of the candidate at each step, and least labelled pairs where they count.

    `seconds`: least time at each step. `coverage`: share of the requests to be shadowed that were.
    """

    requests: int = 300
    labels: int = 100
    seconds: float = 10.0
    coverage: float = 0.8


class Errors(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The candidate may fail `margin` more often than the champion; `alpha`: risk of error."""

    margin: float = 0.01
    alpha: float = 0.03
    blocks: bool = True


class Latency(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Quantiles may grow to `ratio` times the champion's, or by `slack_ms`, whichever is more."""

    quantiles: tuple[float, ...] = (0.5, 0.95)
    ratio: float = 1.25
    slack_ms: float = 2.0
    alpha: float = 0.001
    blocks: bool = True


class Agreement(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Least share of rows on which both say the same class."""

    least: float = 0.97
    alpha: float = 0.05
    blocks: bool = True


class Outputs(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Largest PSI between what the two say on the same rows."""

    psi: float = 0.1
    blocks: bool = True


class Accuracy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The candidate's accuracy may be `margin` lower at most, on the same labelled rows."""

    margin: float = 0.01
    alpha: float = 0.05
    blocks: bool = True


class Resources(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The candidate may hold `memory` times the champion's memory, or `memory_mb` more, whichever
    is more, and take `load_seconds` until it is ready."""

    memory: float = 2.0
    memory_mb: float = 256.0
    load_seconds: float = 60.0
    blocks: bool = True


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The gates of a rollout. A gate that does not block only tells.

    `approval`: a person promotes; the monitor goes no further than the last canary.
    """

    name: str
    approval: bool = False
    evidence: Evidence = Evidence()
    errors: Errors = Errors()
    latency: Latency = Latency()
    agreement: Agreement = Agreement()
    outputs: Outputs = Outputs()
    accuracy: Accuracy = Accuracy()
    resources: Resources = Resources()


def named() -> list[str]:
    """The policies that come along."""
    return sorted(file.stem for file in FOLDER.glob("*.toml"))


def read_policy(which: str) -> Policy:
    """A policy that comes along, by name, or one in a file. Raises InvalidRequest."""
    file = FOLDER / f"{which}.toml" if which in named() else Path(which)
    try:
        return msgspec.toml.decode(file.read_bytes(), type=Policy)
    except FileNotFoundError:
        raise InvalidRequest(
            f"no policy '{which}'; there are: {', '.join(named())}, or the path of a TOML file"
        ) from None
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the policy {which} cannot be read: {error}") from None


IMPROVEMENT = Policy(
    name="improvement", agreement=Agreement(blocks=False), outputs=Outputs(blocks=False)
)
