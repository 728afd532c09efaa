"""The rules: code, title, and what a reader of a report needs to know. Codes are stable; docs has a page each."""

# ruff: noqa: E501  (a table of prose)

from __future__ import annotations

from typing import Final, NamedTuple


class Rule(NamedTuple):
    """One kind of finding."""

    title: str
    level: str
    text: str


RULES: Final[dict[str, Rule]] = {
    # rewritten
    "TL001": Rule(
        "import of an old name",
        "change",
        "A `from` import of an old loss now names its successor, in place: lazy, guarded and TYPE_CHECKING imports stay "
        "where they are, aliases and comments are kept. The local name follows the new one unless it is public, bound "
        "twice, named in a string or used by another file; then it stays as an alias.",
    ),
    "TL002": Rule(
        "import of an old module",
        "change",
        "`import a.b.c`, `import a.b.c as x` and `from a.b import c` name the new modules, and dotted uses follow.",
    ),
    "TL003": Rule(
        "star import of an old module",
        "change",
        "A star import becomes an explicit import of the losses that the file uses, when these are all the names that it "
        "can have supplied.",
    ),
    "TL004": Rule(
        "old path in a string",
        "change",
        "Strings that are a full old path (`mock.patch`, `monkeypatch.setattr`, `importlib.import_module`, `sys.modules`, "
        "lazy import tables) name the new place.",
    ),
    "TL005": Rule(
        "old name in a quoted annotation",
        "change",
        "Names in string annotations and in `typing.cast` follow the import.",
    ),
    "TL006": Rule(
        "arguments of a constructor or function",
        "change",
        "Arguments are bound by the old signature and written under their new names: positional ones get names, values "
        "are converted by the catalog's table, factor or inversion.",
    ),
    "TL007": Rule(
        "argument dropped",
        "change",
        "The argument has no effect on the successor, for the reason given.",
    ),
    "TL008": Rule(
        "default pinned",
        "change",
        "The successor's default differs, or it has an option that the old loss did not know; the old behaviour is "
        "written out, so the numbers stay. `--numbers new` omits this.",
    ),
    "TL009": Rule(
        "arguments of a call of the loss",
        "change",
        "The call of a loss that was built in sight passes its arguments under the new names.",
    ),
    "TL010": Rule(
        "key of the result",
        "change",
        "`out[\"old\"]`, `out.get(\"old\")`, `out.pop(\"old\")` and `\"old\" in out` use the new key, where `out` can only be "
        "the result of the loss.",
    ),
    "TL011": Rule(
        "attribute or method of a loss",
        "change",
        "An attribute or method of a loss that was built in sight has its new name.",
    ),
    "TL012": Rule(
        "configuration file",
        "change",
        "Registry names and argument names in YAML, JSON and TOML files, under the paths that the catalog declares. "
        "Sections of an old factory (`type: combined`, ...) become a registry name with keyword arguments, where the "
        "tree uses that factory; the text of each entry moves with its comments.",
    ),
    # notes about numbers
    "TL020": Rule(
        "documented deviation",
        "note",
        "The successor gives the same numbers in the stated domain and deliberately other ones outside it. "
        "`--numbers exact` keeps such losses on the frozen twin.",
    ),
    "TL021": Rule(
        "frozen twin",
        "note",
        "The old loss has no successor with the same numbers, so the import now names its frozen twin under `legacy`. "
        "`--numbers new` takes the successor where there is one.",
    ),
    "TL022": Rule(
        "call out of sight",
        "note",
        "The loss is handed on, or called with arguments that cannot be seen; argument names or result keys have changed, "
        "so check its callers. Old result keys still answer, with a warning.",
    ),
    "TL023": Rule(
        "value of a result differs",
        "note",
        "The result key was renamed, and its value has another meaning.",
    ),
    "TL024": Rule(
        "state has other keys",
        "note",
        "Old checkpoints of this loss need `python -m training_losses checkpoint`.",
    ),
    "TL025": Rule(
        "hand-written fallback",
        "left",
        "The same name is imported from another place too (`try` new `except ImportError` old), so the statement is left, "
        "and with it an import of the old package.",
    ),
    # left for a person
    "TL030": Rule(
        "hidden arguments",
        "left",
        "`*args` or `**kwargs` hide which arguments are passed. Write them out, or build the loss by the new names.",
    ),
    "TL031": Rule(
        "call that raises today",
        "left",
        "The call does not fit the old signature. Rewriting it could silently repair it or change what it means.",
    ),
    "TL032": Rule(
        "value that cannot be converted",
        "left",
        "The value has no counterpart, or is not a literal where the catalog has a table of values.",
    ),
    "TL033": Rule(
        "successor cannot be told",
        "left",
        "An argument chooses between several successors, and its value, or the use, does not tell which.",
    ),
    "TL034": Rule(
        "class handed on",
        "left",
        "The class is stored, returned, passed on or looked up by its name, so calls of it are out of sight, and its "
        "arguments have changed.",
    ),
    "TL035": Rule(
        "subclass of an old loss",
        "left",
        "A subclass may rely on methods, attributes or the forward signature of the old class.",
    ),
    "TL036": Rule(
        "monkeypatch of an old loss",
        "left",
        "The class is patched. The successor has another implementation, so the patch would mean something else.",
    ),
    "TL037": Rule(
        "name bound in several ways",
        "left",
        "The name may stand for an old loss or for something else at this place.",
    ),
    "TL038": Rule(
        "star import that cannot be replaced",
        "left",
        "The star import may supply further names, is a re-export, or stands beside an import of one of its names.",
    ),
    "TL039": Rule(
        "module used as an object",
        "left",
        "An old module is passed on or read dynamically, so it cannot be seen which of its names are used.",
    ),
    "TL040": Rule(
        "string that names an old path",
        "left",
        "The string names an old path, but what it is used for cannot be seen.",
    ),
    "TL041": Rule(
        "result of another kind or without this key",
        "left",
        "The result has another kind (tensor, tuple, dictionary), or the key is gone.",
    ),
    "TL042": Rule(
        "attribute without a counterpart",
        "left",
        "The attribute or method has no counterpart on the successor.",
    ),
    "TL043": Rule(
        "left because of another place",
        "left",
        "A loss is rewritten everywhere or nowhere, so that `isinstance` and re-exports stay consistent. Another place "
        "cannot be rewritten; solve that one, or mark it `# codemod: skip`.",
    ),
    "TL044": Rule(
        "your own module under an old path",
        "note",
        "A file of this tree has the path of an old module but defines something else under this name.",
    ),
    "TL045": Rule(
        "old path in a script, setting or text",
        "left",
        "The line names an old path and is not edited: it breaks when the old package goes. Scripts, recipes, settings that "
        "no rule reads, blocks of code that do not parse, links of Sphinx. Prose and comments are TL049.",
    ),
    "TL046": Rule(
        "configuration section without an exact counterpart",
        "left",
        "The section has a key that the old factory ignored, a value that it could not use, or a layout that cannot be "
        "moved safely; the file stays as it is. The new factory reads old sections as well, with their numbers, and refuses "
        "keys that were ignored.",
    ),
    "TL047": Rule(
        "configuration key that code reads",
        "left",
        "Python code of the tree reads a key of the section itself, and would not find it in the new form; the file stays "
        "as it is. The new factory reads old sections as well.",
    ),
    "TL048": Rule(
        "old path that stays",
        "left",
        "The code names an old path, and nothing was changed there: it breaks when the old package goes. Imports that stay "
        "(also those of names that the old package never exported), paths that are put together, code in strings, doctests, "
        "links of Sphinx, cells of a shell. Write the new path, or mark the line `# codemod: skip`.",
    ),
    "TL049": Rule(
        "old path that is mentioned",
        "note",
        "A comment, prose or a changelog names an old path. Nothing breaks; said once per file.",
    ),
    # errors
    "TL090": Rule("file does not parse", "error", "The file mentions old names but is not valid Python, JSON, YAML or TOML."),
    "TL091": Rule("file cannot be decoded", "error", "The bytes are not text in the encoding that the file declares."),
    "TL092": Rule("file or directory cannot be read", "error", "Permission or another error of the operating system."),
    "TL093": Rule("file too large or too deep", "error", "Larger than the limit (`--max-bytes`), or nested too deeply."),
    "TL094": Rule("link or read-only file", "error", "Links and read-only files are not replaced."),
    "TL095": Rule(
        "result refused",
        "error",
        "The rewritten file would not parse (on the Python that runs, or on the oldest that `requires-python` names, if "
        "one of them read it before), would break the block around the code, or would be changed again by a second run; "
        "or the edit has no place. The file was left as it is, and its losses stay in all files. Where the report names "
        "no reason in the code, this is a defect of the codemod: please report it.",
    ),
    "TL096": Rule("file cannot be written", "error", "The file has uncommitted changes (`--force` overrides that), somebody else changed it during the run, or the operating system refused."),
}  # fmt: skip
