"""What a team relies on: bytes, encodings, modes, interrupted and concurrent runs, files that cannot be treated."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pathspec
import pytest

from tests.codemod.support import CATALOG
from training_losses.migration.codemod import cli, files, project
from training_losses.migration.codemod.errors import FileError
from training_losses.migration.codemod.files import decode, exclusive, replace, uncommitted
from training_losses.migration.codemod.gitignore import Ignore
from training_losses.migration.codemod.places import module_names, package_names
from training_losses.migration.codemod.walk import walk

OLD = "from src.training.losses import VICRegLoss\n"
NEW = "from training_losses.contrastive.vicreg import VICRegLoss\n"


def run(*arguments: Any) -> int:
    return cli.main([*map(str, arguments), "--catalog", str(CATALOG)])


def put(path: Path, data: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"\xef\xbb\xbf" + OLD.encode(), b"\xef\xbb\xbf" + NEW.encode()),
        (
            b"# -*- coding: latin-1 -*-\nx = '\xe9'; " + OLD.encode(),
            b"# -*- coding: latin-1 -*-\nx = '\xe9'; " + NEW.encode(),
        ),
        (OLD.encode().replace(b"\n", b"\r\n"), NEW.encode().replace(b"\n", b"\r\n")),
        (OLD.encode().replace(b"\n", b"\r") + b"x = 1\r", NEW.encode().replace(b"\n", b"\r") + b"x = 1\r"),
        (b"a = 1\r\nb = 2\r" + OLD.encode() + b"\x0cc = 3", b"a = 1\r\nb = 2\r" + NEW.encode() + b"\x0cc = 3"),
        (OLD.strip().encode(), NEW.strip().encode()),
        ("# \u2028 \x85 日本\n".encode() + OLD.encode(), "# \u2028 \x85 日本\n".encode() + NEW.encode()),
        (b"\n\n\t\n" + OLD.encode() + b"\n   \n\n", b"\n\n\t\n" + NEW.encode() + b"\n   \n\n"),
    ],
    ids=["bom", "latin-1", "crlf", "cr", "mixed", "no newline", "unicode line ends", "blank lines"],
)
def test_bytes_elsewhere_are_untouched(tmp_path: Path, before: bytes, after: bytes) -> None:
    file = put(tmp_path / "a.py", before)
    assert run(tmp_path, "--write") == 0
    assert file.read_bytes() == after
    assert run(tmp_path, "--write") == 0
    assert file.read_bytes() == after


def test_split_import_uses_the_newline_of_the_file(tmp_path: Path) -> None:
    file = put(tmp_path / "a.py", b"if 1:\r\n\tfrom src.training.losses import VICRegLoss, helper\r\n")
    run(tmp_path, "--write")
    assert file.read_bytes() == (
        b"if 1:\r\n\tfrom training_losses.contrastive.vicreg import VICRegLoss\r\n"
        b"\tfrom src.training.losses import helper\r\n"
    )


def test_nothing_to_do_leaves_the_file_itself(tmp_path: Path) -> None:
    file = put(
        tmp_path / "a.py", "from training_losses.contrastive.vicreg import VICRegLoss\nVICRegLoss = 'VICRegLoss'\n"
    )
    before = file.stat()
    assert run(tmp_path, "--write") == 0
    after = file.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert not (tmp_path / files.JOURNAL).exists()


@pytest.mark.parametrize("mode", [0o755, 0o600, 0o664])
def test_file_mode_is_kept(tmp_path: Path, mode: int) -> None:
    file = put(tmp_path / "a.py", OLD)
    file.chmod(mode)
    run(tmp_path, "--write")
    assert file.read_text() == NEW
    assert stat.S_IMODE(file.stat().st_mode) == mode


def test_a_read_only_file_holds_its_losses_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    locked = put(tmp_path / "a.py", OLD)
    other = put(tmp_path / "b.py", OLD + "from src.training.losses import CrossEntropyLoss\n")
    locked.chmod(0o444)
    assert run(tmp_path, "--write") == 2
    assert locked.read_text() == OLD
    assert OLD in other.read_text()
    assert "LabelSmoothing" in other.read_text()
    assert "TL094 error: the file is read-only" in capsys.readouterr().out


def test_links_are_not_replaced_and_nothing_outside_is_touched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outside = put(tmp_path / "outside" / "o.py", OLD)
    inside = put(tmp_path / "tree" / "real.py", OLD)
    (tmp_path / "tree" / "to_outside.py").symlink_to(outside)
    (tmp_path / "tree" / "to_inside.py").symlink_to("real.py")
    (tmp_path / "tree" / "dangling.py").symlink_to("nowhere.py")
    (tmp_path / "tree" / "folder").symlink_to(outside.parent)
    (tmp_path / "tree" / "loop").symlink_to(".")
    assert run(tmp_path / "tree", "--write") == 2
    assert inside.read_text() == NEW
    assert outside.read_text() == OLD
    assert (tmp_path / "tree" / "to_outside.py").is_symlink()
    assert (tmp_path / "tree" / "to_inside.py").is_symlink()
    assert "to_outside.py:1:1: TL094" in capsys.readouterr().out
    assert run(tmp_path / "tree" / "to_outside.py", "--write") == 2
    assert outside.read_text() == OLD


BROKEN: dict[str, bytes] = {
    "syntax": OLD.encode() + b"def f(:\n",
    "indentation": OLD.encode() + b"  x = 1\n",
    "not utf-8": b"x = '\xe9'\n" + OLD.encode(),
    "unknown coding": b"# coding: klingon\n" + OLD.encode(),
    "null bytes": OLD.encode() + b"\0",
    "minus bomb": OLD.encode() + b"x = " + b"-" * 100_000 + b"1\n",
    "parenthesis bomb": OLD.encode() + b"x = " + b"(" * 5_000 + b")" * 5_000,
    "attribute bomb": OLD.encode() + b"VICRegLoss" + b".a" * 100_000 + b"\n",
    "sum bomb": OLD.encode() + b"x = " + b"+".join([b"VICRegLoss"] * 50_000) + b"\n",
    "large": OLD.encode() + b"x = [\n" + b"    1234567890,\n" * 350_000 + b"]\n",
}


@pytest.mark.parametrize("name", BROKEN)
def test_one_bad_file_never_ends_the_run(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    bad = put(tmp_path / "a.py", BROKEN[name])
    good = put(tmp_path / "b.py", OLD)
    assert run(tmp_path, "--write") == 2
    assert bad.read_bytes() == BROKEN[name]
    assert good.read_text() == NEW
    lines = [line for line in capsys.readouterr().out.splitlines() if "a.py:1:1: TL09" in line]
    assert len(lines) == 1


def test_a_bad_file_without_old_names_is_no_error(tmp_path: Path) -> None:
    put(tmp_path / "a.py", b"def f(:\n\xff")
    put(tmp_path / "b.py", OLD)
    assert run(tmp_path, "--write") == 0


def test_what_cannot_be_read_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path / "closed" / "a.py", OLD)
    put(tmp_path / "c.py", OLD)
    put(tmp_path / "d.py", OLD)
    scandir, opened = os.scandir, project.read

    def guarded_scandir(path: str) -> Any:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    def guarded_read(path: str) -> bytes:
        if path.endswith("c.py"):
            raise FileError("TL092", "Permission denied")
        return opened(path)

    # root may read everything, so the refusal of the operating system is played
    monkeypatch.setattr(os, "scandir", guarded_scandir)
    monkeypatch.setattr(project, "read", guarded_read)
    assert run(tmp_path, "--write") == 2
    out = capsys.readouterr().out
    assert "closed:1:1: TL092 error: Permission denied" in out
    assert "c.py:1:1: TL092 error: Permission denied" in out
    assert (tmp_path / "d.py").read_text() == NEW


def test_the_code_is_neither_imported_nor_executed(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    text = f"open({str(marker)!r}, 'w').close()\n{OLD}"
    for name in ("a.py", "src/__init__.py", "src/training/__init__.py", "conftest.py", "sitecustomize.py", "setup.py"):
        put(tmp_path / name, text)
    run(tmp_path, "--write")
    assert (tmp_path / "a.py").read_text().endswith(NEW)
    assert not marker.exists()
    imported = {name.partition(".")[0] for name in sys.modules if getattr(sys.modules[name], "__file__", None)}
    assert str(tmp_path) not in {
        str(Path(getattr(m, "__file__", None) or "/").parent) for m in list(sys.modules.values())
    }
    assert "src" not in imported or not str(sys.modules["src"].__file__).startswith(str(tmp_path))


def test_neither_torch_nor_libcst_is_needed() -> None:
    loaded = "[m for m in ('torch', 'numpy', 'libcst') if m in sys.modules]"
    code = f"import sys, training_losses.migration.codemod.cli; print({loaded})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=CATALOG.parents[2]
    )
    assert done.stdout.strip() == "[]"


# -- interrupted and concurrent runs --------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["mkstemp", "fdopen", "fsync", "chmod", "replace"])
def test_killed_in_mid_write_leaves_old_or_new(tmp_path: Path, where: str) -> None:
    file = put(tmp_path / "a.py", OLD)
    script = textwrap.dedent(f"""
        import os, sys, tempfile
        from training_losses.migration.codemod import cli
        holder = tempfile if {where!r} == "mkstemp" else os
        real = getattr(holder, {where!r})
        def dying(*args, **kwargs):
            if {where!r} == "replace" and "journal" in str(args[0]):
                return real(*args, **kwargs)
            if {where!r} in ("fsync", "mkstemp", "chmod"):
                real(*args, **kwargs)
            os._exit(9)
        setattr(holder, {where!r}, dying)
        cli.main([{str(tmp_path)!r}, "--write", "--catalog", {str(CATALOG)!r}])
    """)
    done = subprocess.run([sys.executable, "-c", script], cwd=CATALOG.parents[2], capture_output=True, text=True)
    assert done.returncode == 9, done.stderr
    assert file.read_text() in (OLD, NEW)
    assert run(tmp_path, "--write") == 0
    assert file.read_text() == NEW


def test_an_interrupted_run_can_be_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.py", "b.py", "c.py"):
        put(tmp_path / name, OLD)
    real = files.replace

    def stopping(path: str, new: bytes, expected: bytes | None = None) -> None:
        if path.endswith("b.py"):
            raise KeyboardInterrupt
        real(path, new, expected)

    monkeypatch.setattr(files, "replace", stopping)
    assert run(tmp_path, "--write") == 130
    assert [(tmp_path / n).read_text() for n in ("a.py", "b.py", "c.py")] == [NEW, OLD, OLD]
    assert run(tmp_path, "--undo") == 0
    assert (tmp_path / "a.py").read_text() == OLD


def test_a_failing_disk_leaves_the_old_file_and_no_rubbish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path / "a.py", OLD)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert run(tmp_path, "--write") == 2
    assert (tmp_path / "a.py").read_text() == OLD
    assert [p.name for p in tmp_path.iterdir() if p.suffix == ".py" or p.name.startswith(".a")] == ["a.py"]
    assert "TL096 error: No space left on device" in capsys.readouterr().out


def test_a_file_that_changes_during_the_run_is_left(tmp_path: Path) -> None:
    file = put(tmp_path / "a.py", "mine\n")
    with pytest.raises(FileError, match="somebody else changed"):
        replace(str(file), b"new", b"old")
    assert file.read_text() == "mine\n"
    assert os.listdir(tmp_path) == ["a.py"]


def test_two_writing_runs_exclude_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path / "a.py", OLD)
    with exclusive(tmp_path / files.JOURNAL):
        assert run(tmp_path, "--write") == 2
        assert run(tmp_path) == 1
    assert "another run is writing" in capsys.readouterr().err
    assert (tmp_path / "a.py").read_text() == OLD


def test_runs_at_once_do_not_corrupt(tmp_path: Path) -> None:
    for number in range(30):
        put(tmp_path / f"m{number}.py", OLD * 20)
    command = [sys.executable, "tools/codemod.py", str(tmp_path), "--write", "--catalog", str(CATALOG)]
    runs = [
        subprocess.Popen(command, cwd=CATALOG.parents[2], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(3)
    ]
    assert all(one.wait() in (0, 2) for one in runs)
    assert {(tmp_path / f"m{number}.py").read_text() for number in range(30)} == {NEW * 20}
    assert {p.name for p in tmp_path.iterdir()} == {f"m{n}.py" for n in range(30)} | {files.JOURNAL}


def test_a_result_that_would_change_again_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "a.py", OLD)

    def spoiled(change: Callable[[str], str]) -> None:
        monkeypatch.setattr(project, "apply", lambda text, edits: change(text))

    spoiled(lambda text: text + "x = (\n")
    assert run(tmp_path, "--write") == 2
    spoiled(lambda text: text + "f(a=1, a=2)\n")
    assert run(tmp_path, "--write") == 2
    spoiled(lambda text: text + "y = 1\n")
    assert run(tmp_path, "--write") == 2
    assert (tmp_path / "a.py").read_text() == OLD


# -- small parts ----------------------------------------------------------------------------------------------------


def test_decoding_must_be_faithful() -> None:
    assert decode(b"\xef\xbb\xbfx").encode("y") == b"\xef\xbb\xbfy"
    with pytest.raises(FileError):
        decode(b"# coding: ascii\nx").encode("é")
    with pytest.raises(FileError):
        decode(b"# coding: latin-1\n\xef\xbb\xbf".replace(b"# coding: latin-1\n", b"\xef\xbb\xbf# coding: latin-1\n"))


def test_uncommitted_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".git").mkdir()
    file = put(tmp_path / "a.py", OLD)
    assert uncommitted([str(file)]) == []
    monkeypatch.setenv("PATH", "")
    assert uncommitted([str(file)]) == []


def test_walk_respects_gitignore_and_skips_environments(tmp_path: Path) -> None:
    (tmp_path / ".git" / "info").mkdir(parents=True)
    put(tmp_path / ".git" / "info" / "exclude", "excluded.py\n")
    put(tmp_path / ".gitignore", "build/\n*.gen.py\n!keep.gen.py\n/top.py\ndoc/**/x.py\n# note\n\\#odd.py\n")
    put(tmp_path / "sub" / ".gitignore", "local.py\n")
    wanted = {"a.py", "keep.gen.py", "sub/top.py", "sub/a.ipynb", "sub/b.toml", "doc/y.py", "sub/build.py", "a.txt"}
    ignored = {
        *(
            "excluded.py",
            "z.gen.py",
            "top.py",
            "build/a.py",
            "sub/build/a.py",
            "sub/local.py",
            "doc/x.py",
            "doc/q/x.py",
        ),
        *("#odd.py", ".venv/lib/a.py", "env/pyvenv.cfg", "env/a.py", "node_modules/a.py", ".git/hooks/a.py", "a.log"),
        *("x/site-packages/a.py", "__pycache__/a.py"),
    }
    for name in wanted | ignored:
        put(tmp_path / name, "")
    failures: list[str] = []
    found = {os.path.relpath(p, tmp_path) for p, _ in walk(tmp_path, lambda p, e: failures.append(p))}
    assert found == wanted
    assert not failures
    below = {os.path.relpath(p, tmp_path) for p, _ in walk(tmp_path / "sub", lambda p, e: failures.append(p))}
    assert below == {name for name in wanted if name.startswith("sub/")}
    everything = {os.path.relpath(p, tmp_path) for p, _ in walk(tmp_path, lambda p, e: None, gitignore=False)}
    assert {"excluded.py", "top.py", "sub/local.py"} <= everything
    assert not {n for n in everything if n.startswith((".venv", "env", "node_modules", ".git"))}


PATTERNS = [
    "*.py",
    "a*",
    "/a",
    "a/",
    "a/b",
    "**/c.py",
    "a/**",
    "a/**/c.py",
    "[ab].py",
    "[!a].py",
    "?.py",
    "!b.py",
    "d e",
    "*/c.py",
]
PATHS = ["a.py", "b.py", "c.py", "a/b", "a/c.py", "a/x/c.py", "x/a/b", "x/y/c.py", "d e", "ab.txt", "x/a.py"]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_gitignore_patterns_agree_with_pathspec(pattern: str) -> None:
    lines = ["b*", pattern] if pattern.startswith("!") else [pattern]
    ours = Ignore("/r", "\n".join(lines))
    spec = pathspec.GitIgnoreSpec.from_lines(lines)
    for path in PATHS:
        parts = path.split("/")
        above = any(ours.verdict("/r/" + "/".join(parts[:n]), True) for n in range(1, len(parts)))
        assert bool(above or ours.verdict(f"/r/{path}", False)) == spec.match_file(path), path


def test_module_names_by_place(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    put(tmp_path / "src" / "app" / "__init__.py", "")
    put(tmp_path / "src" / "app" / "sub" / "__init__.py", "")
    assert package_names(tmp_path / "src" / "app" / "sub" / "x.py") == ["app.sub", "src.app.sub"]
    assert module_names(tmp_path / "src" / "app" / "sub" / "__init__.py") == ["app.sub", "src.app.sub"]
    assert module_names(tmp_path / "src" / "script.py") == ["src.script", "script"]
