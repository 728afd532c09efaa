"""What a call with an unknown keyword is told: the class that was called, the close match, the new name of an old one.

Nothing here runs unless a call has failed.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Literal, ParamSpec, TypeVar

from . import compat

P = ParamSpec("P")
R = TypeVar("R")

Call = Literal["constructor", "forward"]


class UnexpectedKeywordError(TypeError):
    """A keyword that a loss does not take."""


def explained(init: Callable[P, R]) -> Callable[P, R]:
    """``init``, whose complaint about an unknown keyword names the class that was called.

    It takes ``results_like``, a keyword of the base class that no other constructor has to know.
    """
    knows = "results_like" in inspect.signature(init).parameters

    @wraps(init)
    def constructor(*args: P.args, **kwargs: P.kwargs) -> R:
        like = None if knows else kwargs.pop("results_like", None)
        try:
            made = init(*args, **kwargs)
        except TypeError as error:
            explanation = unexpected_keyword(error, type(args[0]), "constructor")
            if explanation is None:
                raise
            raise explanation from None
        if like is not None:
            compat.require_results(type(args[0]), str(like))
            vars(args[0])["results_like"] = like
        return made

    return constructor


def unexpected_keyword(error: TypeError, loss: type, call: Call) -> UnexpectedKeywordError | None:
    """What to raise in place of ``error``, if it is about a keyword that ``loss`` does not take."""
    found = re.search(r"unexpected keyword argument '(\w+)'", str(error))
    if isinstance(error, UnexpectedKeywordError) or found is None:
        return None
    name, known = found.group(1), accepted(loss, call)
    if name in known:  # the complaint of something that is called inside
        return None
    method = "()" if call == "constructor" else ".forward()"
    hint = compat.old_keyword(loss, name, call) or _close(name, known)
    return UnexpectedKeywordError(f"{loss.__name__}{method} got an unexpected keyword argument {name!r}{hint}")


def accepted(loss: type, call: Call) -> list[str]:
    """The keywords of a constructor (``**kwargs`` go on to the next one among the bases) or of ``forward``."""
    method = "__init__" if call == "constructor" else "forward"
    names: dict[str, None] = {}
    for base in loss.__mro__:
        if method not in vars(base):
            continue
        own = list(inspect.signature(vars(base)[method]).parameters.values())[1:]
        named = [p.name for p in own if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        names |= dict.fromkeys(named)
        if not any(p.kind is p.VAR_KEYWORD for p in own):
            break
    return list(names)


def _close(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f" (known: {', '.join(known)})"
