"""Errors that a user can act on."""

from __future__ import annotations


class RllcError(Exception):
    """A user's mistake or a machine's limit, told as a sentence with a remedy; the CLI prints it and exits with code 2.

    Args:
        problem: what was given and what was expected instead, as a sentence.
        remedy: what to do about it, as a sentence.
    """

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem} {remedy}".strip())
        self.problem = problem
        self.remedy = remedy

    def __reduce__(self) -> tuple[type[RllcError], tuple[str, str]]:
        return type(self), (self.problem, self.remedy)
