"""Every public name says what it is: docstrings, stubs, the type marker."""

import inspect
import pkgutil
from pathlib import Path
from types import UnionType
from typing import Any

import pytest
import tandem


def public_modules():
    yield tandem
    for info in pkgutil.iter_modules(tandem.__path__):
        if not info.name.startswith("_") and info.name != "torch_group":
            yield __import__(f"tandem.{info.name}", fromlist=["x"])


def public_names():
    for module in public_modules():
        yield module.__name__, module
        for name in getattr(module, "__all__", []):
            thing = getattr(module, name)
            if isinstance(thing, (str, UnionType)) or thing is Any:
                continue  # an alias cannot carry a docstring
            yield f"{module.__name__}.{name}", thing
            if inspect.isclass(thing):
                inherited = [vars(base) for base in reversed(thing.__mro__) if base.__module__.startswith("tandem")]
                for member, value in {name: value for names in inherited for name, value in names.items()}.items():
                    own = not member.startswith("_") or member in ("__call__", "__init__")
                    documented = (
                        callable(value) or isinstance(value, (property, staticmethod, classmethod)) or type(value).__name__ == "nb_method"
                    )
                    if own and documented and not (member == "__init__" and "Mesh" in name):
                        yield f"{module.__name__}.{name}.{member}", value


NAMES = dict(public_names())


def test_there_are_many():
    assert len(NAMES) > 700
    inherited = {"tandem.Network.matmul", "tandem.tensorrt.IShuffleLayer.get_output"}
    assert inherited | {"tandem.Engine.save", "tandem.Model.__call__"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_docstring(name):
    thing = NAMES[name]
    text = inspect.getdoc(getattr(thing, "__func__", thing)) or ""
    if inspect.isroutine(thing) or type(thing).__name__ == "nb_method":
        text = text.split(") -> ", 1)[-1].split("\n\n", 1)[-1] if ") -> " in text.split("\n", 1)[0] else text
    if name.endswith("Error.__init__"):
        return  # the class says it
    assert len(text) >= 7 and text.rstrip()[-1] in '.)"\u2026', (name, text)


def test_the_check_finds_what_is_not_documented():
    with pytest.raises(AssertionError):
        NAMES["undocumented"] = lambda: None
        try:
            test_docstring("undocumented")
        finally:
            del NAMES["undocumented"]


def test_front_door():
    for name in ("build", "load", "Engine", "Context", "Team", "Group", "Network", "Mesh", "Error", "Model"):
        assert name in tandem.__all__ and f"tandem.{name}" in NAMES, name


def test_stubs_are_there():
    folder = Path(tandem.__file__).parent
    assert (folder / "py.typed").exists()
    stub = (folder / "_core.pyi").read_text()
    for name in ("class Engine", "class Model", "class Context", "class Group", "def load_engine"):
        assert name in stub
