"""What goes wrong with one file."""


class FileError(Exception):
    """A file cannot be treated; ``code`` is the rule of the report."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
