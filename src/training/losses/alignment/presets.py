"""Named sets of options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

from torch import nn

from ..base import require_choice

__all__ = ["PresetMixin"]

Preset = TypeVar("Preset", bound="PresetMixin")


class PresetMixin(nn.Module):
    """A loss whose ``PRESETS`` name sets of constructor arguments; the defaults are none of them."""

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    @classmethod
    def preset(cls: type[Preset], name: str, **overrides: Any) -> Preset:
        """The loss with the options of a preset, changed by ``overrides``.

        Raises:
            ValueError: an unknown name.
        """
        require_choice("name", name, tuple(cls.PRESETS))
        return cls(**{**cls.PRESETS[name], **overrides})
