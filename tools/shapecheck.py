"""Check the shapes in the library's signatures (`ddpm_lib.shapes`) at every call, in this process.

A hook on the import decorates each function of a module or class whose signature names a shape. jaxtyping has such a
hook too; what it does not do is needed here:

- Only shapes are checked. beartype cannot look at the library's Protocols, and a check of every argument costs more.
- Generators are left as they are: torch.no_grad would not know one in its wrapper, and no more be on in its body.
- Functions within functions are not decorated: that happens again at each call of the outer one, a millisecond each.
- An argument of a wrong shape is first given to the function. One that refuses it with an error of its own is right,
  and tests ask for just that; it fails here if it goes on.

Processes that a test starts are without the hook, such as that of the pretend device, which counts operations.
"""

import ast
import inspect
import re
import sys
import types
from functools import wraps
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder, SourceFileLoader
from typing import get_args

NAMES = re.compile(r"\b(Bool|Float|Int|PerSignal|Real|Shaped|Time)\b")
"""What a signature with a shape in it names: `ddpm_lib.shapes.__all__`."""


def available():
    """Whether both packages are there; the tests run without them too, and check no shapes then."""
    try:
        import beartype  # noqa: F401
        import jaxtyping  # noqa: F401
    except ImportError:
        return False
    return True


def install():
    """Check what is imported of the library from now on."""
    if any(name.partition(".")[0] == "ddpm_lib" for name in sys.modules):
        raise RuntimeError("The library is imported already: its functions are not checked.")
    sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] != "ddpm_lib":
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


class _Loader(SourceFileLoader):
    def get_code(self, name):
        """Compile the source afresh: what Python keeps in ``__pycache__`` has no decorators."""
        tree = ast.parse(self.get_data(self.path), self.path)
        body = [*tree.body]
        while body:
            node = body.pop()
            if isinstance(node, ast.ClassDef):
                body += node.body
            elif isinstance(node, ast.FunctionDef) and _names_a_shape(node):
                decorator = ast.parse("__import__('shapecheck').checked", mode="eval").body
                node.decorator_list.append(decorator)  # the innermost one
                for part in ast.walk(decorator):
                    ast.copy_location(part, node)
        return compile(tree, self.path, "exec", dont_inherit=True)


def _names_a_shape(node):
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
    hints = [node.returns, *(argument.annotation for argument in arguments if argument)]
    return any(NAMES.search(ast.unparse(hint)) for hint in hints if hint)


def checked(function):
    """Check the shapes of a function's arguments and of what it returns."""
    from jaxtyping import TypeCheckError, jaxtyped

    if inspect.isgeneratorfunction(function):
        return function
    strict, typechecker = None, only_shapes
    refused = f"checking the parameters of {function.__module__}.{function.__qualname__}."

    def call(*args, **kwargs):
        nonlocal strict
        if strict is None:  # now, when all that its hints name is defined
            strict = jaxtyped(function, typechecker=typechecker)
        try:
            return strict(*args, **kwargs)
        except TypeCheckError as error:
            if refused in str(error).partition("\n")[0]:
                function(*args, **kwargs)
            raise

    # with the globals of its module, by which doctest knows what belongs to a module
    made = types.FunctionType(call.__code__, function.__globals__, call.__name__, None, call.__closure__)
    return wraps(function)(made)


def only_shapes(stub):
    """Have beartype check the hints of a function that hold a shape; whole numbers are numbers."""
    from beartype import BeartypeConf, beartype

    hints = stub.__annotations__.items()
    stub.__annotations__ = {name: hint for name, hint in hints if _holds_a_shape(hint) and not _holds_a_protocol(hint)}
    return beartype(stub, conf=BeartypeConf(is_pep484_tower=True))


def _holds_a_shape(hint):
    from jaxtyping import AbstractArray

    return (isinstance(hint, type) and issubclass(hint, AbstractArray)) or any(map(_holds_a_shape, get_args(hint)))


def _holds_a_protocol(hint):
    return getattr(hint, "_is_protocol", False) or any(map(_holds_a_protocol, get_args(hint)))
