"""Finding and importing plugins.

A **source** is one entry of `plugins` in a node's config:

* a folder, written with a slash (`./plugins`): every `*.py` in it whose name does not start with `_` is one
  unit;
* the name of a module (`tega_agent.plugins.system`), or of an entry point in the group `tega_zmq.plugins`
  (`net`): one unit. With a dot in the name a module is looked for first, without one an entry point.

A **unit** is what is imported and replaced as a whole. Its plugins are the subclasses of `Plugin` that are
defined in it, those whose name starts with `_` apart.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import os
import sys
import traceback
import zlib
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from pathlib import Path
from types import CodeType, ModuleType
from typing import NamedTuple, TypeGuard

from tega_zmq.errors import text_of
from tega_zmq.plugins.base import Plugin, check_name

__all__ = ["GROUP", "Loader", "Unit", "describe", "find_units"]

GROUP = "tega_zmq.plugins"
"""The group of entry points in which distributions name their plugins."""

_PACKAGE = "tega_plugins_"


class Unit(NamedTuple):
    """What is imported and replaced as a whole."""

    source: str
    """The entry of the config that led to it."""
    place: str
    """The file, or the name of the module or entry point: unique, and what listings show."""
    kind: str
    """`file`, `module` or `entry`."""


class Loader:
    """Imports units. Keeps a finder in `sys.meta_path` from `open` to `close`."""

    def __init__(self) -> None:
        self._finder = _Finder()
        self._loaded: set[str] = set()

    def open(self) -> None:
        """Must be called before `load`."""
        if self._finder not in sys.meta_path:
            sys.meta_path.insert(0, self._finder)

    def close(self) -> None:
        """Undo `open`, and forget the modules of folders."""
        if self._finder in sys.meta_path:
            sys.meta_path.remove(self._finder)
        for folder in list(self._finder.folders):
            _forget(folder)

    def renew(self) -> None:
        """From now on `load` imports new code: a reload begins.

        Modules of folders get new names, so that an import that hangs cannot hold up its successor.
        """
        importlib.invalidate_caches()
        self._finder.generation += 1
        self._finder.fresh.clear()

    def load(self, unit: Unit) -> list[type[Plugin]]:
        """Import `unit` and return its plugin classes. Raises whatever the import raises, `ImportError` and
        `ValueError` with what to do if there is no plugin."""
        only = ""
        if unit.kind == "file":
            file = Path(unit.place)
            module = importlib.import_module(self._finder.package(file.parent) + "." + file.stem)
        elif unit.kind == "entry":
            name, _, only = _entry_points(unit.place)[0].partition(":")
            module = self._import(name.strip())
        else:
            module = self._import(unit.place)
        classes = _classes(module)
        if only:
            named = getattr(module, only.strip(), None)
            classes = [named] if _is_plugin(named) else []
        if not classes:
            raise ImportError(
                f"{unit.place} defines no plugin: {only or 'no class'} in it is a subclass of tega_zmq.Plugin"
                " (those that are imported, or whose name starts with _, do not count)"
            )
        for cls in classes:
            check_name(cls)
        return classes

    def _import(self, name: str) -> ModuleType:
        """Import a module; its code anew if it was imported by this loader before."""
        if name not in self._loaded:
            self._loaded.add(name)
            if self._finder.generation == 0:
                return importlib.import_module(name)
        return self._import_anew(name)

    def _import_anew(self, name: str) -> ModuleType:
        # Not by import_module: an earlier import of this name that hangs holds its lock for ever.
        within = name + "."
        names = [each for each in sys.modules if each == name or each.startswith(within)]
        old = {each: sys.modules.pop(each) for each in names}
        self._finder.fresh.add(name)
        try:
            module = _execute(name)
        except BaseException:
            for each in [each for each in sys.modules if each == name or each.startswith(within)]:
                del sys.modules[each]
            sys.modules.update(old)
            raise
        parent, _, last = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], last, module)
        return module


def _execute(name: str) -> ModuleType:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"there is no module {name} any more", name=name)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def find_units(source: str) -> list[Unit]:
    """Return the units of a source, in the order of their names.

    Raises `OSError` or `ModuleNotFoundError`, with what to do.
    """
    if os.sep in source or source.startswith("~") or source in {".", ".."}:
        return _folder(source)
    kinds = ("module", "entry") if "." in source else ("entry", "module")
    for kind in kinds:
        if _has_module(source) if kind == "module" else _entry_points(source):
            return [Unit(source, source, kind)]
    hint = f"; for the folder of that name write ./{source}" if Path(source).is_dir() else ""
    raise ModuleNotFoundError(
        f"there is no module {source}, and no entry point of that name in the group {GROUP}: install the"
        f" distribution that has it, or correct `plugins` in the config{hint}",
        name=source,
    )


def _folder(source: str) -> list[Unit]:
    folder = Path(source).expanduser().absolute()
    try:
        names = sorted(entry.name for entry in folder.iterdir() if entry.suffix == ".py" and entry.is_file())
    except OSError as error:
        raise type(error)(
            f"cannot read the folder of plugins {folder}: {error.strerror}; make it, or take {source} out of"
            " `plugins` in the config"
        ) from error
    return [Unit(source, str(folder / name), "file") for name in names if not name.startswith(("_", "."))]


def _has_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            return False
        raise
    except ValueError:
        # A module without a spec, __main__ for one.
        return False


def _entry_points(name: str) -> list[str]:
    from importlib.metadata import entry_points

    return [each.value for each in entry_points(group=GROUP, name=name)]


def _is_plugin(cls: object) -> TypeGuard[type[Plugin]]:
    return isinstance(cls, type) and issubclass(cls, Plugin) and cls is not Plugin


def _classes(module: ModuleType) -> list[type[Plugin]]:
    return [
        value
        for name, value in vars(module).items()
        if _is_plugin(value) and value.__module__ == module.__name__ and not name.startswith("_")
    ]


class _Finder(MetaPathFinder):
    """Finds the modules of plugin folders, and compiles what is reloaded from its source.

    Python's own cache tells versions of a file apart by size and by second, which is too coarse for someone
    who edits and reloads.
    """

    def __init__(self) -> None:
        self.folders: dict[str, str] = {}
        """Package name of each folder, without its generation."""
        self.fresh: set[str] = set()
        """Modules to be compiled from source, with all below."""
        self.generation = 0

    def package(self, folder: Path) -> str:
        """Return the name under which the modules of `folder` are imported."""
        name = _PACKAGE + f"{zlib.crc32(str(folder).encode()):08x}"
        self.folders[name] = str(folder)
        return f"{name}_{self.generation}"

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname.startswith(_PACKAGE):
            top, _, rest = fullname.partition(".")
            folder = self.folders.get(top.rpartition("_")[0])
            if folder is None:
                return None
            if rest:
                return _spec(fullname, Path(path[0] if path else folder) / rest.rpartition(".")[2])
            spec = importlib.machinery.ModuleSpec(fullname, None, is_package=True)
            spec.submodule_search_locations = [folder]
            return spec
        if not any(fullname == name or fullname.startswith(name + ".") for name in self.fresh):
            return None
        found = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if found is not None and type(found.loader) is importlib.machinery.SourceFileLoader:
            found.loader = _FreshLoader(fullname, found.loader.path)
        return found


class _FreshLoader(importlib.machinery.SourceFileLoader):
    """Compiles from source every time, and leaves no cache behind."""

    def get_code(self, fullname: str) -> CodeType:
        file = self.get_filename(fullname)
        code: CodeType = self.source_to_code(self.get_data(file), file)
        return code


def _spec(fullname: str, base: Path) -> importlib.machinery.ModuleSpec | None:
    package = base / "__init__.py"
    if package.is_file():
        return importlib.util.spec_from_file_location(
            fullname,
            package,
            loader=_FreshLoader(fullname, str(package)),
            submodule_search_locations=[str(base)],
        )
    file = base.with_name(base.name + ".py")
    if not file.is_file():
        return None
    return importlib.util.spec_from_file_location(fullname, file, loader=_FreshLoader(fullname, str(file)))


def _forget(folder: str) -> None:
    for name in [name for name in sys.modules if name.startswith(folder + "_")]:
        del sys.modules[name]


def describe(error: BaseException) -> str:
    """Return one line that says what was raised, and where: the innermost line. At most 600 characters."""
    text = " ".join(text_of(error).split())
    line = f"{type(error).__name__}: {text}" if text else type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    if frames and not isinstance(error, (ImportError, SyntaxError)):
        line += f" ({os.path.basename(frames[-1].filename)}, line {frames[-1].lineno})"
    return line if len(line) <= 600 else line[:597] + "..."
