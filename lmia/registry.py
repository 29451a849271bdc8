"""Registries of methods: one file and one decorator add a method; unknown names raise with the nearest match.

Another distribution adds methods of its own by an entry point, whose module registers them when it is imported:

    [project.entry-points."lmia.attacks"]
    mine = "my_package.my_attack"

Groups are `lmia.attacks`, `lmia.finetune.methods`, `lmia.data.sources`, `lmia.data.marks`: the package of the registry.
"""

import importlib
import pkgutil
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from lmia.specs import UnknownName

T = TypeVar("T", bound=type)


class Registry(Generic[T]):
    """Named methods of one kind, discovered on first use: every module of a package, and entry points named after it.

    A method is a class with a class attribute ``version``: it is part of the address of what the method makes
    and is raised whenever the results change. Method modules import torch and its friends inside functions,
    so that planning does not pay for them.
    """

    def __init__(self, noun: str, package: str):
        self.noun = noun
        self.package = package
        self._methods: dict[str, T] = {}
        self._loaded = False

    def register(self, name: str) -> Callable[[T], T]:
        """Class decorator that adds a method under `name` and sets its ``name`` attribute."""

        def add(method: T) -> T:
            if name in self._methods:
                raise ValueError(f"{self.noun} {name!r} is registered twice")
            if not isinstance(getattr(method, "version", None), int):
                raise TypeError(f"{self.noun} {name!r} needs an integer class attribute 'version'")
            method.name = name  # type: ignore[attr-defined]
            self._methods[name] = method
            return method

        return add

    def get(self, name: str) -> T:
        """The method called `name`; UnknownName with the nearest match otherwise."""
        self._load()
        if name not in self._methods:
            raise UnknownName(self.noun, name, self._methods)
        return self._methods[name]

    def names(self) -> list[str]:
        """All registered names, sorted."""
        self._load()
        return sorted(self._methods)

    def _load(self) -> None:
        if self._loaded:
            return
        package = importlib.import_module(self.package)
        for module in pkgutil.iter_modules(package.__path__):
            if not module.name.startswith("_"):
                importlib.import_module(f"{self.package}.{module.name}")
        for entry in entry_points(group=self.package):
            entry.load()
        self._loaded = True
