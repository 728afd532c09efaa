"""Every old path of the multimodal code base: it resolves under each root, warns once at the importer's line, means
the twin, and survives pickling. The rows of the catalog are the list of old paths."""

from __future__ import annotations

import io
import json
import pickle
import warnings
from typing import Any

import pytest
import torch
from deprecation import DeprecatedWarning

from migration import shims
from migration.catalog import Symbol, builtin_catalog
from tests.support.old_paths import LINE, ROOT, dump_under, fresh_interpreter, walk
from tests.support.twins import twin, twin_module

SYSTEM = "multimodal_insight"
ROOTS = ("src.training.losses", "training.losses", "src.training.loss")
MODULES = [path.stem for path in sorted((ROOT / "legacy").glob("*.py")) if path.stem != "__init__"]
# the fourteen names of the old package and their owners
EXPORTED = {
    "MemoryQueueContrastiveLoss": "memory_queue_contrastive_loss",
    "DynamicTemperatureContrastiveLoss": "dynamic_temperature_contrastive_loss",
    "HardNegativeMiningContrastiveLoss": "hard_negative_mining_contrastive_loss",
    "ContrastiveLoss": "contrastive_loss",
    "MultiModalMixedContrastiveLoss": "multimodal_mixed_contrastive_loss",
    "DecoupledContrastiveLoss": "decoupled_contrastive_loss",
    "VICRegLoss": "vicreg_loss",
    "BarlowTwinsLoss": "barlow_twins_loss",
    "HybridPretrainVICRegLoss": "hybrid_pretrain_vicreg_loss",
    "nt_xent_loss": "contrastive_learning",
    "supervised_contrastive_loss": "contrastive_learning",
    "compute_recall_at_k": "contrastive_learning",
    "CrossEntropyLoss": "losses",
    "MeanSquaredError": "losses",
}
# re-exports of the package above (its other names were no losses)
PARENT = {
    "ContrastiveLoss",
    "MemoryQueueContrastiveLoss",
    "DynamicTemperatureContrastiveLoss",
    "HardNegativeMiningContrastiveLoss",
    "MultiModalMixedContrastiveLoss",
    "DecoupledContrastiveLoss",
    "create_loss_function",
}
SYMBOLS = [symbol for symbol in builtin_catalog().symbols if symbol.system == SYSTEM]
PATHS = [(path, symbol) for symbol in SYMBOLS for path in symbol.all_paths]


def test_there_are_nineteen_modules_and_every_class_and_function_has_a_row() -> None:
    assert len(MODULES) == 19
    written = {
        f"{module}.{name}"
        for module in MODULES
        for name, value in vars(twin_module(module)).items()
        if getattr(value, "__module__", None) == f"training_losses.legacy.{module}"
        and not name.startswith("_")
        and callable(value)
    }
    assert written == {symbol.old for symbol in SYMBOLS}


def test_the_package_level_names_are_those_of_the_old_package() -> None:
    for root in ROOTS:
        found = {
            path.rpartition(".")[2]: symbol.old.rpartition(".")[0]
            for path, symbol in PATHS
            if path.rpartition(".")[0] == root
        }
        assert found == EXPORTED
    assert {path.rpartition(".")[2] for path, _ in PATHS if path.rpartition(".")[0] == "src.training"} == PARENT


def test_every_module_is_old_under_every_root() -> None:
    modules = builtin_catalog().modules
    for module in MODULES:
        for root in ROOTS:
            assert modules[f"{root}.{module}"] == f"training_losses.legacy.{module}"


@pytest.mark.parametrize(("path", "symbol"), PATHS, ids=[path for path, _ in PATHS])
def test_symbol(path: str, symbol: Symbol) -> None:
    entry = walk(SYSTEM)["symbols"][path]
    assert entry["same"] == [True, True], "another object than the twin"
    assert entry["pickled"], "a reference pickled under the old path is lost"
    for run in entry["runs"]:
        (warning,) = run["warnings"]
        assert (warning["file"], warning["line"]) == (run["file"], LINE)
        assert warning["text"].startswith(f"{path} is deprecated as of {symbol.deprecated_in}")
        assert symbol.removed_in in warning["text"]
        assert "python -m training_losses codemod" in warning["text"]
        if symbol.cases[0].new:
            assert symbol.cases[0].new in warning["text"]


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("root", ROOTS)
def test_module(root: str, module: str) -> None:
    run = walk(SYSTEM)["modules"][f"{root}.{module}"]
    assert run["same"], "another module object than the twin"
    (warning,) = run["warnings"]
    assert (warning["file"], warning["line"]) == (run["file"], LINE)
    assert f"{root}.{module}" in warning["text"]


# ----------------------------------------------------------------------------------------------- meaning of the names
SHADOWED = """
import json, sys, types, warnings
warnings.simplefilter("ignore")
root = sys.argv[1]
from migration import shims
shims.install()
import importlib
package = importlib.import_module(root)
NAME = "supervised_contrastive_loss"
kind = lambda value: "module" if isinstance(value, types.ModuleType) else "function"
def imported():
    scope = {}
    exec(f"from {root} import {NAME}", scope)
    return scope[NAME]
before, bound = kind(getattr(package, NAME)), imported()
importlib.import_module(f"{root}.{NAME}")
print(json.dumps([before, kind(bound), kind(getattr(package, NAME)), kind(imported())]))
"""


@pytest.mark.parametrize("root", ROOTS)
def test_a_sub_module_takes_the_name_of_the_function(root: str) -> None:
    """As in the old package: a function until anybody imports the module of the same name; early bindings stay."""
    assert json.loads(fresh_interpreter("-c", SHADOWED, root)) == ["function", "function", "module", "module"]


@pytest.mark.parametrize(
    ("name", "exported", "other"),
    [
        ("DecoupledContrastiveLoss", "decoupled_contrastive_loss", "contrastive_learning"),
        ("MultiModalMixedContrastiveLoss", "multimodal_mixed_contrastive_loss", "contrastive_learning"),
        ("nt_xent_loss", "contrastive_learning", "contrastive_loss"),
        ("supervised_contrastive_loss", "contrastive_learning", "contrastive_loss"),
        ("compute_recall_at_k", "contrastive_learning", "contrastive_loss"),
    ],
)
def test_one_name_two_objects(name: str, exported: str, other: str) -> None:
    catalog = builtin_catalog()
    assert twin(f"{exported}.{name}") is not twin(f"{other}.{name}")
    for root in ROOTS:
        assert catalog.by_path[f"{root}.{name}"].old == f"{exported}.{name}"
        assert catalog.by_path[f"{root}.{other}.{name}"].old == f"{other}.{name}"
    assert {symbol.old for symbol in catalog.find(name) if symbol.system == SYSTEM} == {
        f"{exported}.{name}",
        f"{other}.{name}",
    }


# ------------------------------------------------------------------------------------------------------------ pickles
EXAMPLES: dict[str, dict[str, Any]] = {
    "clip_style_loss.CLIPStyleLoss": {"temperature": 0.2},
    "contrastive_loss.ContrastiveLoss": {"input_dim": 4, "projection_dim": 3},
    "memory_queue_contrastive_loss.MemoryQueueContrastiveLoss": {"dim": 4, "queue_size": 6},
    "vicreg_loss.VICRegLoss": {"sim_coeff": 3.0},
    "barlow_twins_loss.BarlowTwinsLoss": {"add_projection": True, "input_dim": 4, "projection_dim": 3},
    "decorrelation_loss.DecorrelationLoss": {"coef": 2.0},
    "decoupled_contrastive_loss.DecoupledContrastiveLoss": {"lambda_v": 0.1},
    "contrastive_learning.DecoupledContrastiveLoss": {"lambda_t": 0.1},
    "dynamic_temperature_contrastive_loss.DynamicTemperatureContrastiveLoss": {"max_temp": 0.3},
    "hard_negative_mining_contrastive_loss.HardNegativeMiningContrastiveLoss": {"dim": 4},
    "hybrid_pretrain_vicreg_loss.HybridPretrainVICRegLoss": {"vision_dim": 4, "text_dim": 4, "fusion_dim": 3},
    "multimodal_mixed_contrastive_loss.MultiModalMixedContrastiveLoss": {"temperature": 0.2},
    "ema_moco_loss.EMAMoCoLoss": {
        "vision_encoder": torch.nn.Linear(3, 4),
        "text_encoder": torch.nn.Linear(3, 4),
        "dim": 4,
        "K": 6,
    },
    "feature_consistency_loss.FeatureConsistencyLoss": {"reference_text_model": torch.nn.Linear(3, 4)},
    "supervised_contrastive_loss.SupervisedContrastiveLoss": {"contrast_mode": "cross"},
    "losses.CrossEntropyLoss": {"smoothing": 0.2},
    "losses.MeanSquaredError": {"clip_grad": 1.0},
    "combined_loss.CombinedLoss": {"primary_loss": torch.nn.MSELoss()},
    "multitask_loss.MultitaskLoss": {"loss_functions": {"a": torch.nn.MSELoss()}},
    "loss_factory.SimpleContrastiveLoss": {"temperature": 0.2},
}


def test_every_class_that_can_be_built_is_pickled() -> None:
    classes = {symbol.old for symbol in SYMBOLS if symbol.kind == "class"}
    assert classes - set(EXAMPLES) == {"contrastive_learning.MultiModalMixedContrastiveLoss"}


@pytest.fixture
def served() -> Any:
    was = shims.installed()
    shims.install()
    yield
    if not was:
        shims.uninstall()


@pytest.mark.parametrize("old", EXAMPLES)
@pytest.mark.parametrize("root", ROOTS)
def test_objects_saved_under_the_old_path_come_back(root: str, old: str, served: None) -> None:
    cls = twin(old)
    saved = cls(**EXAMPLES[old])
    data = dump_under(cls, f"{root}.{old}", saved)
    assert f"{root}.{old.rpartition('.')[0]}".encode() in data
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecatedWarning)
        loaded = pickle.loads(data)
    assert type(loaded) is cls
    assert list(loaded.state_dict()) == list(saved.state_dict())
    for key, value in saved.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value)
    plain = {k: v for k, v in vars(saved).items() if isinstance(v, (int, float, str, bool, type(None)))}
    assert {name: vars(loaded)[name] for name in plain} == plain


def test_torch_load_of_an_object_saved_under_the_old_path(served: None) -> None:
    cls = twin("contrastive_loss.ContrastiveLoss")
    saved = cls(input_dim=4, projection_dim=3)
    buffer = io.BytesIO()
    own, cls.__module__ = cls.__module__, "src.training.losses.contrastive_loss"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecatedWarning)
            torch.save(saved, buffer)
    finally:
        cls.__module__ = own
    assert b"src.training.losses.contrastive_loss" in buffer.getvalue()
    buffer.seek(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecatedWarning)
        loaded = torch.load(buffer, weights_only=False)
    assert type(loaded) is cls
    assert torch.equal(loaded.vision_projection[0].weight, saved.vision_projection[0].weight)


# --------------------------------------------------------------------------------------------------- use of the twins
FACTORY = """
import json, sys, types, warnings
warnings.simplefilter("ignore")
from migration import shims
if sys.argv[1] == "served":
    shims.install()
else:
    sys.modules["src"] = None  # as in a project without a package of this name
from legacy.loss_factory import create_loss_function
args = types.SimpleNamespace(loss_type="vicreg", use_mixed_loss=False, use_contrastive_pretrain=True, fusion_dim=8)
try:
    print(json.dumps(type(create_loss_function(args)).__module__))
except ModuleNotFoundError as error:
    print(json.dumps(error.name))
"""


def test_the_dead_import_of_the_factory() -> None:
    """It asks for the package's former name: gone, so it raises, except where the shims serve that name."""
    assert json.loads(fresh_interpreter("-c", FACTORY, "bare")).startswith("src")
    assert (
        json.loads(fresh_interpreter("-c", FACTORY, "served")) == "training_losses.legacy.hybrid_pretrain_vicreg_loss"
    )


def test_a_patched_method_of_a_class_works(monkeypatch: pytest.MonkeyPatch) -> None:
    cls = twin("vicreg_loss.VICRegLoss")

    def patched(self: Any, z_a: torch.Tensor, z_b: torch.Tensor) -> dict[str, Any]:
        return {"loss": self.sim_coeff * (z_a - z_b).square().mean()}

    loss = cls(sim_coeff=2.0)
    monkeypatch.setattr(cls, "forward", patched)
    assert loss(torch.zeros(2, 3), torch.ones(2, 3)) == {"loss": torch.tensor(2.0)}


def test_a_twin_imports_nothing_but_the_warning_helper() -> None:
    import ast

    for path in sorted((ROOT / "legacy").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            for name in names:
                assert name.partition(".")[0] != "training", path.name
                ours = name.partition(".")[0] in ("training_losses", "migration")
                assert not ours or name.partition(".migration.")[2] in ("deprecation", "aliases"), path.name
