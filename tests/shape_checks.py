"""Shapes and types are checked at every call, but a check whose answer is known is not made again.

Whether a call satisfies its annotations depends on the types, dtypes and shapes of what went in and came out: on its kind. To look at one takes
jaxtyping a tenth of a millisecond, and to decorate a function takes it milliseconds, for functions within functions each time that one is
defined; together this was more than half of the time of all tests. So a function is decorated once, whatever it encloses, when it is first
called, and each kind of call is looked at once.
"""

from __future__ import annotations

import builtins
import dataclasses
import functools
import inspect
from collections.abc import Callable, Hashable, Mapping
from itertools import islice
from types import FunctionType
from typing import Any

import jaxtyping

NAMES = ("Bool", "Complex", "Float", "Inexact", "Int", "Integer", "Num", "Shaped", "UInt")
_MEMBERS = 4  # of a container enter its kind: beartype looks at one, of a mapping at the first
_jaxtyped: Any = jaxtyping.jaxtyped


def check_shapes(modules: list[str]) -> None:
    """Check the shapes and types of the calls in `modules`, which must not be imported yet.

    The package imports jaxtyping under TYPE_CHECKING only, so that users need not have it; here the names of its types are found among the builtins.
    """
    for name in NAMES:
        setattr(builtins, name, getattr(jaxtyping, name))
    jaxtyping.jaxtyped = jaxtyped  # by this name the import hook decorates
    if modules:
        jaxtyping.install_import_hook(modules, "beartype.beartype")


def jaxtyped(*args: Any, **kwargs: Any) -> Any:
    """`jaxtyping.jaxtyped` that remembers; other uses of it than the import hook's are left alone."""
    if args or set(kwargs) != {"typechecker"} or kwargs["typechecker"] is None:
        return _jaxtyped(*args, **kwargs)
    return functools.partial(_decorated, typechecker=kwargs["typechecker"])


def _decorated(fn: Any, typechecker: Any) -> Any:
    if not inspect.isclass(fn):
        return _remembering(fn, typechecker)
    if dataclasses.is_dataclass(fn) and not hasattr(fn.__init__, "remembers"):
        fn.__init__ = _remembering(fn.__init__, typechecker)
    return fn


def _remembering(fn: FunctionType, typechecker: Any) -> Callable[..., Any]:
    check = _check_of(fn, typechecker)

    @functools.wraps(fn)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        try:
            result = fn(*args, **kwargs)
        except Exception:
            check.arguments(args, kwargs)  # which may be what was wrong
            raise
        seen: Hashable = (tuple(map(kind, args)), kind(result))
        if kwargs:
            seen = (seen, *((name, kind(value)) for name, value in kwargs.items()))
        if seen not in check.passed:
            check.whole(args, kwargs, result)
            if not check.by_value:
                check.passed.add(seen)
        return result

    wrapped.remembers = True  # type: ignore[attr-defined]
    return wrapped


class _Check:
    """The checks of one function, and the kinds of calls that passed them."""

    def __init__(self, fn: FunctionType, typechecker: Any) -> None:
        self._fn, self._typechecker = fn, typechecker
        self._results: list[Any] = []
        self.passed: set[Hashable] = set()
        self.by_value = any("{" in str(hint) for hint in fn.__annotations__.values())  # as in Float[Tensor, "{length} D"]

    def arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._without_result(*args, **kwargs)

    def whole(self, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        self._results.append(result)
        try:
            self._like_itself(*args, **kwargs)
        finally:
            self._results.pop()

    @functools.cached_property
    def _like_itself(self) -> Callable[..., Any]:
        return self._stub(inspect.signature(self._fn))

    @functools.cached_property
    def _without_result(self) -> Callable[..., Any]:
        return self._stub(inspect.signature(self._fn).replace(return_annotation=inspect.Signature.empty))

    def _stub(self, signature: inspect.Signature) -> Callable[..., Any]:
        """A checked function of the real one's name and that signature, which returns what the real one did."""
        results = self._results

        def stub(*_: Any, **__: Any) -> Any:
            return results[-1] if results else None

        like = FunctionType(stub.__code__, self._fn.__globals__, self._fn.__name__, closure=stub.__closure__)
        like.__qualname__, like.__module__ = self._fn.__qualname__, self._fn.__module__
        like.__signature__ = signature  # type: ignore[attr-defined]
        return _jaxtyped(like, typechecker=self._typechecker)


_checks: dict[Hashable, _Check] = {}


def _check_of(fn: FunctionType, typechecker: Any) -> _Check:
    key = (fn.__module__, fn.__qualname__, fn.__code__)
    if key not in _checks:
        _checks[key] = _Check(fn, typechecker)
    return _checks[key]


def kind(value: Any) -> Hashable:
    """All that a check can depend on."""
    cls = type(value)
    return (_kinds.get(cls) or _kind_of(cls))(value)


def _kind_of(cls: type) -> Callable[[Any], Hashable]:
    def of_array(value: Any) -> Hashable:
        return cls, value.dtype, value.shape

    def of_name(value: Any) -> Hashable:  # one that a Literal may hold, or a class
        return cls, value

    def of_mapping(value: Any) -> Hashable:
        return cls, tuple(map(kind, islice(value.items(), _MEMBERS)))

    def of_collection(value: Any) -> Hashable:
        return cls, tuple(map(kind, islice(value, _MEMBERS)))

    def of_another(value: Any) -> Hashable:
        return cls

    if hasattr(cls, "shape") and hasattr(cls, "dtype"):
        found = of_array
    elif issubclass(cls, str | type):
        found = of_name
    elif issubclass(cls, Mapping):
        found = of_mapping
    elif issubclass(cls, tuple | list | set | frozenset):
        found = of_collection
    else:
        found = of_another
    _kinds[cls] = found
    return found


_kinds: dict[type, Callable[[Any], Hashable]] = {}
