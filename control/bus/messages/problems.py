"""Why a part failed finally."""

from __future__ import annotations

from control.bus.messages.base import Message
from control.errors import AfterliveError


class Problem(Message):
    """Why a part failed finally."""

    code: str
    detail: str

    @classmethod
    def of(cls, error: BaseException) -> Problem:
        """As a person may see it; of an error that is not one of ours, nothing but its kind."""
        if isinstance(error, AfterliveError):
            return cls(code=error.code, detail=error.detail)
        return cls(code=AfterliveError.code, detail=f"An unexpected {type(error).__name__}; the log says more.")


class PartProblem(Problem):
    """As it is told to the part's replay: with what the plan may have to do without."""

    encoder: str | None = None
    """The encoder that could not be had, where it failed for that."""
    node: str | None = None
    """The media worker that could not have it."""
    rungs: tuple[str, ...] = ()
    """Names of the rungs a chunk was to make: they tell which plan it is of."""
