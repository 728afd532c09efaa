"""The last line of the report."""


def closing(scanned: int, matched: int, changed: int, wrote: bool, left: int = 0, errors: int = 0) -> str:
    """How many files were read and changed, and what is left."""
    verb = "rewritten" if wrote else "would be rewritten"
    line = f"{scanned} files read, {matched} mention old names, {changed} {verb}"
    line += f", {left} places left for you" if left else ""
    line += f", {errors} errors" if errors else ""
    return f"{line}.\n"
