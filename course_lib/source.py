"""Show the library's own code inside a lesson, so that there is no second copy to go stale."""

import inspect
from typing import Any


def show_source(obj: Any) -> Any:
    """Display the source of a function or class of the course, with its file's name above.

    Returns an IPython Markdown object. Raises ValueError for what has no Python source (a builtin, a number).
    """
    from IPython.display import Markdown

    try:
        code, module = inspect.getsource(obj), inspect.getmodule(obj)
    except (TypeError, OSError) as error:
        raise ValueError(f"obj={obj!r} has no Python source to show; give a function or a class") from error
    home = f"`{module.__name__.replace('.', '/')}.py`" if module else ""
    return Markdown(f"{home}\n\n```python\n{code}```")
