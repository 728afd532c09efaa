"""YAML, JSON and TOML: only names, keys and values under the declared paths change."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.codemod.support import codes, demo_catalog
from training_losses.migration.codemod.configs import tree
from training_losses.migration.codemod.errors import FileError
from training_losses.migration.codemod.project import Outcome, Project, rewrite_text
from training_losses.migration.codemod.rules import Rules


def rewritten(text: str, name: str) -> tuple[str, Outcome]:
    new, outcome = rewrite_text(text, Rules(demo_catalog()), name, "config")
    again, second = rewrite_text(new, Rules(demo_catalog()), name, "config")
    assert again == new
    assert not second.findings or codes(second) <= codes(outcome)
    return new, outcome


YAML = """\
# the stages
name: clip_style_loss   # not under the path
stages:
  - losses:
      - name: clip_style_loss  # contrast
        weight: 1.0
        params:
          temperature: 0.07   # tau
          cache_labels: no
          # smoothing
          label_smoothing: 0.1
      - {name: "memory_queue_contrastive_loss", params: {dim: 3}}
      - {name: vicreg_loss, params: {curriculum: false, keep: true, margin: 2.0}}
    other: [vicreg_loss]
loss:
  type: 'vicreg_loss'
  sim_coeff: 1.0
  lr: 0.1
"""


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_yaml_keeps_comments_order_and_layout(newline: str) -> None:
    new, outcome = rewritten(YAML.replace("\n", newline), "a.yaml")
    assert new == (
        YAML.replace(
            "name: clip_style_loss  # contrast\n        weight: 1.0\n        params:\n"
            "          temperature: 0.07   # tau\n          cache_labels: no\n"
            "          # smoothing\n          label_smoothing: 0.1\n",
            "name: clip  # contrast\n        weight: 1.0\n        params:\n"
            "          temperature: 0.07   # tau\n"
            "          # smoothing\n          smoothing: 0.1\n          metrics: true\n",
        )
        .replace('name: "memory_queue_contrastive_loss"', 'name: "memory_queue"')
        .replace(
            "{name: vicreg_loss, params: {curriculum: false, keep: true, margin: 2.0}}",
            "{name: vicreg, params: {schedule: null, drop_last: false, half_margin: 1.0, invariance_weight: 10.0, "
            "center_invariance: true}}",
        )
        .replace(
            "  type: 'vicreg_loss'\n  sim_coeff: 1.0\n",
            "  type: 'vicreg'\n  invariance_weight: 1.0\n  center_invariance: true\n",
        )
        .replace("\n", newline)
    )
    assert codes(outcome, "change") == {"TL012"}


JSON = """\
{
  "stages": [
    {"losses": [
      {
        "name": "clip_style_loss",
        "params": {
          "use_hard_negatives": true,
          "temperature": 7e-2,
          "cache_labels": false
        }
      },
      {"name": "memory_queue_contrastive_loss"},
      {"name": "clip_style_loss", "params": {"cache_labels": true}},
      {"name": "clip_style_loss", "params": {}}
    ]}
  ]
}
"""


def test_json() -> None:
    new, _ = rewritten(JSON, "a.json")
    json.loads(new)
    assert new == (
        JSON.replace(
            '"name": "clip_style_loss",\n        "params": {\n          "use_hard_negatives": true,\n'
            '          "temperature": 7e-2,\n          "cache_labels": false\n',
            '"name": "clip",\n        "params": {\n          "temperature": 7e-2,\n          "metrics": true\n',
        )
        .replace('"memory_queue_contrastive_loss"', '"memory_queue"')
        .replace('"clip_style_loss", "params": {"cache_labels": true}', '"clip", "params": {"metrics": true}')
        .replace('"clip_style_loss", "params": {}', '"clip", "params": {"metrics": true}')
    )


TOML = """\
title = "clip_style_loss"  # not under the path

[[stages]]
[[stages.losses]]
name = "clip_style_loss"
[stages.losses.params]
temperature = 0.07  # tau
cache_labels = true

[[stages]]
losses = [{ name = "vicreg_loss", params = { var_coeff = 3.0 } }]

[loss]
type = 'vicreg_loss'
sim_coeff = 2.0
"""


def test_toml() -> None:
    new, _ = rewritten(TOML, "a.toml")
    assert new == (
        TOML.replace(
            'name = "clip_style_loss"\n[stages.losses.params]\ntemperature = 0.07  # tau\ncache_labels = true\n',
            'name = "clip"\n[stages.losses.params]\ntemperature = 0.07  # tau\nmetrics = true\n',
        )
        .replace(
            '{ name = "vicreg_loss", params = { var_coeff = 3.0 } }',
            '{ name = "vicreg", params = { variance_weight = 3.0, invariance_weight = 10.0, '
            "center_invariance = true } }",
        )
        .replace(
            "type = 'vicreg_loss'\nsim_coeff = 2.0\n",
            "type = 'vicreg'\ninvariance_weight = 2.0\ncenter_invariance = true\n",
        )
    )


@pytest.mark.parametrize(
    ("entry", "code"),
    [
        ("{name: clip_style_loss}", "TL032"),
        ("{name: clip_style_loss, params: {momentum: 1}}", "TL032"),
        ("{name: vicreg_loss, params: {special: 1}}", "TL032"),
        ("{name: vicreg_loss, params: {curriculum: 3}}", "TL032"),
        ("{name: fixed_loss, params: {}}", "TL032"),
    ],
)
def test_entries_that_cannot_be_converted_are_left(entry: str, code: str) -> None:
    text = f"stages:\n  - losses: [{entry}]\n"
    new, outcome = rewritten(text, "a.yml")
    assert new == text
    assert codes(outcome, "left") == {code}


def test_skipped_lines_and_other_files() -> None:
    text = "stages:\n  - losses:\n      - name: clip_style_loss  # codemod: skip\n        params: {}\n"
    new, outcome = rewritten(text, "a.yaml")
    assert new == text
    assert not outcome.findings
    text = "losses: [{name: clip_style_loss}]\n"
    assert rewritten(text, "a.yaml")[0] == text


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.json", "{clip_style_loss"), ("a.yaml", "a: [clip_style_loss"), ("a.toml", "a = clip_style_loss")],
)
def test_files_that_do_not_parse(name: str, text: str) -> None:
    new, outcome = rewritten(text, name)
    assert new == text
    assert codes(outcome, "error") == {"TL090"}


def test_yaml_is_never_constructed() -> None:
    text = "a: !!python/object/apply:os.system ['false']\nstages: [{losses: [{name: clip_style_loss, params: {}}]}]\n"
    assert "name: clip," in rewritten(text, "a.yaml")[0]


def test_toml_places_agree_with_the_values() -> None:
    text = (
        'a.b = 1\n"c d" = """x\ny"""\n[e.f]\ng = [1, {h = \'i\'}, # c\n 2.5, 1979-05-27 07:32:00]\n'
        "[[e.j]]\nk = true\n[[e.j]]\nk = false\n"
    )
    (root,) = tree(text, ".toml")
    flag = root.get("e").get("j").items[1].get("k")  # type: ignore[union-attr]  # None would fail the test
    assert flag is not None
    assert text[flag.start : flag.end] == "false"
    value = root.get("e").get("f").get("g").items[1].get("h")  # type: ignore[union-attr]  # None would fail the test
    assert value is not None
    assert (text[value.start : value.end], value.value) == ("'i'", "i")
    with pytest.raises(FileError):
        tree("a = ", ".toml")


# -- aliases, anchors, merge keys ------------------------------------------------------------------------------------


def test_a_node_that_aliases_use_twice_is_edited_once() -> None:
    text = (
        "stages:\n- losses:\n  - &c\n    name: clip_style_loss\n    params: &p\n      temperature: 0.07\n"
        "- losses:\n  - *c\n  - name: clip_style_loss\n    params: *p\n"
    )
    new, outcome = rewritten(text, "a.yaml")
    assert new == text.replace("clip_style_loss", "clip").replace("0.07\n", "0.07\n      metrics: true\n")
    assert not codes(outcome, "left", "error")


def test_anchors_stay_where_they_are() -> None:
    text = (
        "stages:\n- losses:\n  - &c {name: &n clip_style_loss, params: &p {label_smoothing: &s 0.1}}\n"
        "  - {name: clip_style_loss, params: *p}\n"
    )
    new, outcome = rewritten(text, "a.yaml")
    assert new == (
        "stages:\n- losses:\n  - &c {name: &n clip, params: &p {smoothing: &s 0.1, metrics: true}}\n"
        "  - {name: clip, params: *p}\n"
    )
    assert not codes(outcome, "left", "error")


@pytest.mark.parametrize(
    "text",
    [
        "d: &d\n  params: &p {temperature: 0.07}\nstages:\n- losses:\n  - name: clip_style_loss\n    params: *p\n",
        "d: &d\n  name: clip_style_loss\n  params: {temperature: 0.07}\nstages:\n- losses:\n  - <<: *d\n",
        "d: &d {temperature: 0.07}\nstages:\n- losses:\n  - name: clip_style_loss\n    params: {<<: *d}\n",
        "d: &d {name: clip_style_loss}\ne: &e {<<: *d}\nstages:\n- losses:\n  - {<<: [*e], params: {}}\n",
        "stages:\n- losses:\n  - {name: clip_style_loss, params: &p {temperature: 1.0}}\n"
        "  - {name: vicreg_loss, params: *p}\n",
    ],
)
def test_what_others_share_is_left_and_reported(text: str) -> None:
    new, outcome = rewritten(text, "a.yaml")
    assert new == text
    assert codes(outcome, "left") == {"TL032"}
    assert not codes(outcome, "error")


@pytest.mark.parametrize("levels", [5, 6, 7, 13, 40])
def test_alias_bombs_end_at_a_bound(levels: int) -> None:
    lines = ["a0: &a0 [clip_style_loss, clip_style_loss]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, levels)]
    text = "\n".join([*lines, f"stages: *a{levels - 1}\n"])
    _, outcome = rewritten(text, "a.yaml")
    assert [(f.code, "aliases" in f.message) for f in outcome.findings] == [("TL095", True)] * (levels > 5)


def test_many_aliases_of_one_node_are_no_bomb() -> None:
    text = "p: &p {lr: 0.1}\nstages:\n- losses:\n" + "  - {name: clip_style_loss, opt: *p}\n" * 300
    new, outcome = rewritten(text, "a.yaml")
    assert new == text.replace("clip_style_loss", "clip") or codes(outcome, "left") == {"TL032"}
    assert not codes(outcome, "error")


def test_a_node_inside_itself_is_an_error_of_its_own() -> None:
    _, outcome = rewritten("stages: &s\n- losses:\n  - *s\n  - name: clip_style_loss\n", "a.yaml")
    assert [f.code for f in outcome.findings] == ["TL095"]


# -- old paths as values ---------------------------------------------------------------------------------------------

PATH = "src.training.losses.clip_style_loss.CLIPStyleLoss"
NEW = "training_losses.contrastive.clip_loss.CLIPLoss"


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        (
            "a.yaml",
            f"loss:\n  _target_: {PATH}\n  temperature: 0.1\n",
            f"loss:\n  _target_: {NEW}\n  temperature: 0.1\n  metrics: true\n",
        ),
        (
            "a.yaml",
            f"loss:\n  _target_: {PATH}\n  _recursive_: false\n  label_smoothing: ${{a.b}}  # x\n",
            f"loss:\n  _target_: {NEW}\n  _recursive_: false\n  smoothing: ${{a.b}}  # x\n  metrics: true\n",
        ),
        ("a.yaml", f"- '_target_': '{PATH}'\n", f"- '_target_': '{NEW}'\n  metrics: true\n"),
        (
            "a.yaml",
            f"model:\n  class_path: {PATH}\n  init_args:\n    temperature: 0.1\n",
            f"model:\n  class_path: {NEW}\n  init_args:\n    temperature: 0.1\n    metrics: true\n",
        ),
        (
            "a.json",
            f'{{"class_path": "{PATH}", "init_args": {{"label_smoothing": 0.1}}}}',
            f'{{"class_path": "{NEW}", "init_args": {{"smoothing": 0.1, "metrics": true}}}}',
        ),
        (
            "a.yml",
            f"target: {PATH}\nparams: {{temperature: 1.0}}\n",
            f"target: {NEW}\nparams: {{temperature: 1.0, metrics: true}}\n",
        ),
        (
            "a.toml",
            f'[loss]\ntype = "{PATH}"\ntemperature = 0.1\n',
            f'[loss]\ntype = "{NEW}"\ntemperature = 0.1\nmetrics = true\n',
        ),
        (
            "a.yaml",
            "any: [src.training.losses.plain_loss.PlainLoss]\n",
            "any: [training_losses.supervised.plain.PlainLoss]\n",
        ),
        (
            "pyproject.toml",
            '[project.entry-points."x"]\np = "src.training.losses.plain_loss:PlainLoss"\n',
            '[project.entry-points."x"]\np = "training_losses.supervised.plain:PlainLoss"\n',
        ),
    ],
)  # fmt: skip
def test_a_path_is_rewritten_with_its_arguments(name: str, before: str, after: str) -> None:
    new, outcome = rewritten(before, name)
    assert new == after
    assert codes(outcome) <= {"TL020"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.yaml", f"loss:\n  _target_: {PATH}\n  unknown: 1\n"),
        ("a.yaml", f"loss:\n  _target_: {PATH}\n  _partial_: true\n"),
        ("a.yaml", f"loss:\n  _target_: {PATH}\n  _args_: [0.1]\n"),
        ("a.yaml", f"defaults:\n- base\nloss:\n  _target_: {PATH}\n"),
        ("a.yaml", f"defaults:\n- loss: clip\nloss:\n  _target_: {PATH}\n"),
        ("a.yaml", f"base: &b {{temperature: 0.1}}\nloss:\n  <<: *b\n  _target_: {PATH}\n"),
        ("a.yaml", f"modules:\n- {PATH}\n"),
        ("a.yaml", f"loss_class: {PATH}\ntemperature: 0.1\n"),
        ("a.json", f'{{"class_path": "{PATH}"}}'),
        ("a.json", f'{{"class_path": "{PATH}", "init_args": {{}}, "dict_kwargs": {{"a": 1}}}}'),
        ("pyproject.toml", f'[project.entry-points."x"]\nc = "{PATH.rpartition(".")[0]}:CLIPStyleLoss"\n'),
    ],
)
def test_a_path_whose_arguments_are_out_of_sight_is_left(name: str, text: str) -> None:
    new, outcome = rewritten(text, name)
    assert new == text
    assert codes(outcome, "left") == {"TL032"}


def test_the_defaults_of_other_groups_do_not_matter() -> None:
    text = f"defaults:\n- optimizer: adam\n- _self_\nloss:\n  _target_: {PATH}\n"
    assert rewritten(text, "a.yaml")[0] == text.replace(PATH, NEW) + "  metrics: true\n"


def test_a_loss_that_a_configuration_keeps_stays_in_code_as_well(tmp_path: Path) -> None:
    module, name = PATH.rsplit(".", 1)
    code = f"from {module} import {name}\nok = isinstance(instantiate(c), {name})\n"
    (tmp_path / "a.py").write_text(code)
    for text, changed in ((f"_target_: {PATH}\n", 2), (f"_target_: {PATH}\nunknown: 1\n", 0)):
        (tmp_path / "a.yaml").write_text(text)
        project = Project(Rules(demo_catalog()))
        project.scan([tmp_path])
        outcome = project.finish(project.decide())
        assert len(outcome.changes) == changed
        assert bool(codes(outcome, "left")) is not bool(changed)


@pytest.mark.parametrize(
    "text",
    [
        "note: the class src.training.losses.clip_style_loss.CLIPStyleLoss is old\n",
        f"url: https://example.org/{PATH}\n",
        f"a: 1  # {PATH}\n",
        f"_target_: my.{PATH}\n",
        f"_target_: {PATH}  # codemod: skip\n",
    ],
)
def test_what_is_no_path_of_ours_stays(text: str) -> None:
    new, outcome = rewritten(text, "a.yaml")
    assert new == text
    assert codes(outcome) <= {"TL049"}
