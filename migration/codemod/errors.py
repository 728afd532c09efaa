"""What goes wrong with one file, or with all of them."""


class FileError(Exception):
    """A file cannot be treated; ``code`` is the rule of the report."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class MissingExtra(Exception):
    """A library that is needed is not installed; the message names the extra that has it."""
