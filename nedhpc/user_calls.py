"""Calls of the user's code: whatever it raises becomes an error that says what and where. Local."""

import traceback
from collections.abc import Callable
from typing import Any

import torch

from nedhpc.errors import NedError, UsageError


def called(what: str, function: Callable, /, *arguments: Any, **options: Any) -> Any:
    """function(*arguments, **options), and torch's gradient mode as it was before. Local.

    The gradient mode belongs to the whole process: if a problem file switched it off, each later
    gradient would be zero.

    Args:
        what: the code that is called, for messages, e.g. "term 'wall': its method".
        function: the user's function or class.
        *arguments, **options: its arguments.

    Raises:
        UsageError: the function raises, or it calls exit(), which must not end a command with
            exit code 0. A NedError keeps its text.
    """
    try:
        with torch.set_grad_enabled(torch.is_grad_enabled()):
            return function(*arguments, **options)
    except NedError:
        raise
    except MemoryError:
        raise
    except (Exception, SystemExit) as error:
        raise UsageError(f"{what} raises {described(error)}") from error


def described(error: BaseException) -> str:
    """An exception in a line, with file and line of the user's code that raised it. Local."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if _is_foreign(f.filename)]
    place = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    text = shortened(str(error))
    return f"{type(error).__name__}{': ' * bool(text)}{text}{place}"


def shortened(text: str, most: int = 500) -> str:
    """The text, cut if it is longer: a message is read by a human. Local."""
    return text if len(text) <= most else f"{text[:most]} ... ({len(text)} characters)"


def _is_foreign(file: str) -> bool:
    """True for a file that belongs neither to this package, nor to installed or built-in code."""
    own = __file__.rpartition("/")[0] + "/"
    installed = ("/site-packages/", "/lib/python", "<frozen ", "<string>")
    return not file.startswith(own) and not any(part in file for part in installed)
