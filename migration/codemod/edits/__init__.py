"""The edits of Python source."""
