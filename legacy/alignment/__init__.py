"""Frozen twins of the video-alignment code (old roots ``utils`` and ``external_util``)."""
