"""Read specs as typed, ``NAME:option=value,option=value``, and make objects of them."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from isoprobe.errors import OptionError, PluginError, nearest

T = TypeVar("T")
_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})


def parse_spec(spec: str) -> tuple[str, dict[str, str]]:
    """Return ``name:k=v,k=v``, split into the name and its options as text.

    Raises:
        OptionError: for an option without a value, or one given twice.
    """
    name, _, text = spec.partition(":")
    return name.strip(), parse_options(filter(None, text.split(",")), of=f"'{spec}'")


def parse_options(pairs: typing.Iterable[str], of: str = "") -> dict[str, str]:
    """Return ``k=v`` texts as a mapping.

    Raises:
        OptionError: for one without ``=``, or one given twice.
    """
    options: dict[str, str] = {}
    where = f" in {of}" if of else ""
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise OptionError(f"an option is written key=value; found '{pair}'{where}")
        if key.strip() in options:
            raise OptionError(f"option '{key.strip()}' is given twice{where}; give it once")
        options[key.strip()] = value.strip()
    return options


def options_paths(pairs: typing.Iterable[str]) -> list[str]:
    """Return the values of ``k=v`` texts: any of them may name a file that is read."""
    return [pair.partition("=")[2].strip() for pair in pairs]


@dataclass(frozen=True)
class NoOptions:
    """Options of a checkpoint that says everything: there is nothing to set."""


def construct(cls: Callable[..., T], options: Mapping[str, str], what: str) -> T:
    """Call a plugin's constructor with options given as text.

    Args:
        cls: class whose constructor's annotated parameters are the options.
        options: option names and values as typed.
        what: the plugin in words, such as ``metric 'bce'``.

    Returns:
        The instance.

    Raises:
        OptionError: for an option that is unknown, missing, or of a wrong type or value.
        PluginError: when the constructor's annotations cannot be read.
    """
    parameters = _parameters(cls, what)
    unknown = [name for name in options if name not in parameters]
    if unknown:
        hint = nearest(unknown[0], list(parameters)) or ";"
        raise OptionError(f"{what} has no option '{unknown[0]}'{hint} {_accepted(parameters)}")
    missing = [n for n, p in parameters.items() if p.default is p.empty and n not in options]
    if missing:
        raise OptionError(
            f"{what} needs option '{missing[0]}', which is not given; {_accepted(parameters)}"
        )
    values = {
        name: coerce(text, parameters[name].annotation, f"option '{name}' of {what}")
        for name, text in options.items()
    }
    try:
        return cls(**values)
    except (TypeError, ValueError) as error:
        raise OptionError(f"{what} cannot take {_as_typed(options)}: {error}") from error


def coerce(text: str, annotation: Any, what: str) -> Any:
    """Turn the text of an option into what its annotation asks for.

    Args:
        text: as typed.
        annotation: ``str``, ``bool``, ``int``, ``float``, a ``Literal``, or a union with ``None``.
        what: the option in words.

    Returns:
        The value.

    Raises:
        OptionError: when the text is no such value.
    """
    if annotation in (inspect.Parameter.empty, str, Any):
        return text
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return _coerce_union(text, arguments, what)
    if origin is typing.Literal:
        matching = [choice for choice in arguments if str(choice) == text]
        if not matching:
            choices = [str(choice) for choice in arguments]
            raise OptionError(
                f"{what} is one of {', '.join(choices)}; found '{text}'{nearest(text, choices)}"
            )
        return matching[0]
    if annotation is bool:
        if text.lower() not in _TRUE | _FALSE:
            raise OptionError(f"{what} is true or false; found '{text}'")
        return text.lower() in _TRUE
    try:
        return annotation(text)
    except (TypeError, ValueError) as error:
        raise OptionError(f"{what} needs {_in_words(annotation)}; found '{text}'") from error


def _coerce_union(text: str, choices: tuple[Any, ...], what: str) -> Any:
    if type(None) in choices and text.lower() == "none":
        return None
    candidates = [choice for choice in choices if choice is not type(None)]
    # a text fits str always, so str comes last
    for choice in sorted(candidates, key=lambda choice: choice is str):
        try:
            return coerce(text, choice, what)
        except OptionError:
            continue
    words = " or ".join(_in_words(choice) for choice in choices)
    raise OptionError(f"{what} needs {words}; found '{text}'")


def _parameters(cls: Callable[..., Any], what: str) -> dict[str, inspect.Parameter]:
    if inspect.isclass(cls) and cls.__init__ is object.__init__:
        return {}
    try:
        signature = inspect.signature(cls, eval_str=True)
    except (NameError, ValueError, TypeError) as error:
        raise PluginError(
            f"the constructor of {what} has annotations that cannot be read: {error}"
        ) from error
    keywords = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {name: p for name, p in signature.parameters.items() if p.kind in keywords}


def _accepted(parameters: Mapping[str, inspect.Parameter]) -> str:
    if not parameters:
        return "it takes no options"
    return f"it takes {', '.join(_described(name, p) for name, p in parameters.items())}"


def _described(name: str, parameter: inspect.Parameter) -> str:
    default = "" if parameter.default is parameter.empty else f", default {parameter.default}"
    return f"{name} ({_in_words(parameter.annotation)}{default})"


def _in_words(annotation: Any) -> str:
    words = {
        float: "a number",
        int: "a whole number",
        bool: "true or false",
        str: "text",
        type(None): "none",
    }
    if annotation is inspect.Parameter.empty:
        return "text"
    return words.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _as_typed(options: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in options.items()) or "its defaults"
