"""Rewrites code that uses the old losses: scan -> decide -> rewrite -> report.

``cli`` is the entry point. ``walk`` finds files, ``text`` holds a source with its offsets, ``scopes`` knows which
binding a name has, ``rules`` turns the catalog into look-ups, ``decide`` finds every use of an old symbol in one file,
``calls`` converts arguments, ``imports`` rewrites import statements, ``project`` takes the decisions that concern all
files, ``documents`` and ``configs`` treat files that are no Python modules, ``files`` writes. Nothing here imports or
executes the code under migration.
"""
