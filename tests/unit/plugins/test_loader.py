"""Sources: folders, modules, entry points; and what is said of those that are none."""

from __future__ import annotations

import importlib.metadata
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tega_zmq.plugins import loader as module
from tega_zmq.plugins.loader import Loader, Unit, describe, find_units

HEAD = "from tega_zmq.plugins import Plugin\n"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that modules can be imported from."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    before = set(sys.modules)
    yield folder
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture
def loader() -> Iterator[Loader]:
    made = Loader()
    made.open()
    yield made
    made.close()
    assert not [name for name in sys.modules if name.startswith("tega_plugins_")]


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(textwrap.dedent(text))
    return file


def names(classes: Any) -> list[str]:
    return [cls.__name__ for cls in classes]


def test_a_folder_gives_its_files(tmp_path: Path) -> None:
    for name in ("b.py", "a.py", "_helper.py", ".hidden.py", "notes.txt", "sub/c.py"):
        write(tmp_path / name, "")
    units = find_units(f"{tmp_path}/")
    assert [(Path(unit.place).name, unit.kind) for unit in units] == [("a.py", "file"), ("b.py", "file")]
    assert {unit.source for unit in units} == {f"{tmp_path}/"}


def test_a_folder_is_relative_to_where_the_program_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "plugins" / "a.py", "")
    monkeypatch.chdir(tmp_path)
    assert [unit.place for unit in find_units("./plugins")] == [str(tmp_path / "plugins" / "a.py")]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"cannot read the folder of plugins .*make it, or take"):
        find_units(f"{tmp_path}/none")
    with pytest.raises(NotADirectoryError):
        find_units(str(write(tmp_path / "a.py", "")))


def test_a_module_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("no_such_module", "no_such.module", "json.no_such"):
        with pytest.raises(ModuleNotFoundError, match=f"there is no module {name}, and no entry point"):
            find_units(name)
    (tmp_path / "plugins_here").mkdir()
    with pytest.raises(ModuleNotFoundError, match=r"for the folder of that name write \./plugins_here"):
        find_units("plugins_here")


def test_a_parent_that_cannot_be_imported_is_not_called_missing(site: Path) -> None:
    write(site / "broken_parent/__init__.py", "import no_such_dependency")
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency"):
        find_units("broken_parent.child")


def test_classes_of_a_module(site: Path, loader: Loader) -> None:
    write(site / "p1_other.py", HEAD + "class Imported(Plugin): pass")
    write(
        site / "p1.py",
        HEAD
        + "from p1_other import Imported\nclass _X(Plugin): pass\nclass B(_X): pass\nclass A(Plugin): pass",
    )
    assert find_units("p1") == [Unit("p1", "p1", "module")]
    assert names(loader.load(Unit("p1", "p1", "module"))) == ["B", "A"]


def test_an_entry_point_by_class_and_by_module(
    site: Path, loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(site / "p2.py", HEAD + "class A(Plugin): pass\nclass B(Plugin): pass\nclass No: pass")
    points = {"one": "p2:B", "all": "p2", "none": "p2:No", "gone": "p2:Gone", "json": "p2:A"}

    def entry_points(*, group: str, name: str) -> Any:
        assert group == "tega_zmq.plugins"
        return [SimpleNamespace(value=points[name])] if name in points else []

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    assert find_units("one") == [Unit("one", "one", "entry")]
    assert find_units("json")[0].kind == "entry"
    assert names(loader.load(Unit("one", "one", "entry"))) == ["B"]
    assert names(loader.load(Unit("all", "all", "entry"))) == ["A", "B"]
    for name in ("none", "gone"):
        with pytest.raises(ImportError, match=f"{name} defines no plugin"):
            loader.load(Unit(name, name, "entry"))


def test_files_of_a_folder_share_helpers(tmp_path: Path, loader: Loader) -> None:
    write(tmp_path / "_helper.py", "VALUE = 1")
    write(tmp_path / "lib/__init__.py", "from . import inner")
    write(tmp_path / "lib/inner.py", "VALUE = 2")
    file = write(
        tmp_path / "a-b.py",
        HEAD
        + "from ._helper import VALUE as x\nfrom .lib import inner\nclass A(Plugin): value = x, inner.VALUE",
    )
    unit = Unit("x", str(file), "file")
    [cls] = loader.load(unit)
    assert cls.value == (1, 2)  # type: ignore[attr-defined]
    write(tmp_path / "_helper.py", "VALUE = 3")
    write(tmp_path / "lib/inner.py", "VALUE = 4")
    loader.renew()
    [cls] = loader.load(unit)
    assert cls.value == (3, 4)  # type: ignore[attr-defined]
    with pytest.raises(ModuleNotFoundError):
        loader.load(Unit("x", str(tmp_path / "gone.py"), "file"))


def test_renewing_takes_the_new_code_of_a_module_and_of_what_is_below_it(site: Path, loader: Loader) -> None:
    def put(one: int, two: int) -> None:
        write(site / "p3/__init__.py", "")
        write(
            site / "p3/plugin/__init__.py",
            HEAD + f"from p3.plugin import inner\nclass A(Plugin):\n    value = ({one}, inner.VALUE)",
        )
        write(site / "p3/plugin/inner.py", f"VALUE = {two}")

    unit = Unit("p3.plugin", "p3.plugin", "module")
    for number in range(4):
        put(number, number)
        [cls] = loader.load(unit)
        assert cls.value == (number, number)  # type: ignore[attr-defined]
        assert sys.modules["p3"].plugin is sys.modules["p3.plugin"]
        loader.renew()


def test_a_module_whose_new_code_is_broken_stays_what_it_was(site: Path, loader: Loader) -> None:
    file = write(site / "p4.py", HEAD + "class A(Plugin): pass")
    unit = Unit("p4", "p4", "module")
    loader.load(unit)
    old = sys.modules["p4"]
    loader.renew()
    file.write_text("import json\n1 / 0")
    with pytest.raises(ZeroDivisionError):
        loader.load(unit)
    assert sys.modules["p4"] is old
    loader.renew()
    file.unlink()
    with pytest.raises(ModuleNotFoundError, match="there is no module p4 any more"):
        loader.load(unit)
    assert sys.modules["p4"] is old


def test_a_loader_leaves_the_import_system_as_it_was() -> None:
    before = list(sys.meta_path)
    made = Loader()
    made.open()
    made.open()
    assert len(sys.meta_path) == len(before) + 1
    made.close()
    made.close()
    assert sys.meta_path == before
    with pytest.raises(ImportError):
        made.load(Unit("x", "/nowhere/a.py", "file"))


def test_describe() -> None:
    assert describe(ValueError("two\n lines")) == "ValueError: two lines"
    assert describe(KeyError()) == "KeyError"
    assert len(describe(ValueError("x" * 5000))) == 600
    try:
        raise OSError("here")
    except OSError as error:
        assert describe(error).startswith("OSError: here (test_loader.py, line ")


def test_describe_of_what_cannot_say_anything() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise ValueError

    assert describe(Mute()) == "Mute: its message cannot be read: ValueError"
    # What is shown must be text that can be reported.
    assert describe(ValueError("\ud800")) == "ValueError: ?"


def test_a_module_without_a_spec_is_none() -> None:
    assert not module._has_module("__main__") or sys.modules["__main__"].__spec__ is not None
