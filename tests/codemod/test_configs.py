"""YAML, JSON and TOML: only names, keys and values under the declared paths change."""

from __future__ import annotations

import json

import pytest

from tests.codemod.support import codes, demo_catalog
from training_losses.migration.codemod.configs import tree
from training_losses.migration.codemod.errors import FileError
from training_losses.migration.codemod.project import Outcome, rewrite_text
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
