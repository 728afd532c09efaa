"""Every twin answers as the code that it replaces did: all golden cases, case by case."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.support.golden import Case, load_cases, modules, replay, systems

# Cases that no twin has to meet (DESIGN section 11): system, module, symbol, variant ("*" is any) and the reason.
EXCLUDED: list[tuple[str, str, str, str, str]] = [
    ("multimodal_insight", "*", "extract_file_metadata", "*", "documentation helper that no training code calls"),
    ("alignment", "*", "*", "original", "history of the code; only the restored version is frozen"),
    ("alignment", "*", "*", "firstpush", "history of the code; only the restored version is frozen"),
    ("alignment", "*", "*", "broken", "history of the code; the bugs are mutants of the restored version"),
    ("alignment", "*", "*", "head", "history of the code; only the restored version is frozen"),
    (
        "alignment",
        "loss_functions",
        "VAVA_loss_terms",
        "*",
        "optional: inner quantities, no old name",
    ),
    ("dynvision", "temporal_masking", "*", "head", "the twin follows the version of the requirement document"),
    ("dynvision", "criterion_list", "*", "head", "the twin follows the version of the requirement document"),
    ("triangulate", "paper_formulas", "*", "*", "optional: formulas of papers, no old code has them"),
    (
        "triangulate",
        "lpips_wrapper",
        "*",
        "*",
        "optional: arithmetic of the package lpips, no old name",
    ),
]

# Recorded cases per module (golden README section 6; modules of which nothing is frozen are not part of the
# repository) and how many of them the twins replay.
COUNTS: dict[tuple[str, str], tuple[int, int]] = {
    ("alignment", "alignment_training_loop"): (2, 1),
    ("alignment", "loss_entry"): (19, 11),
    ("alignment", "loss_functions"): (181, 134),
    ("alignment", "ot_pytorch"): (18, 18),
    ("alignment", "soft_dtw_cuda"): (8, 8),
    ("alignment", "softdtw"): (19, 19),
    ("alignment", "tensorops"): (13, 9),
    ("dynvision", "activity_loss"): (15, 15),
    ("dynvision", "base_loss"): (7, 7),
    ("dynvision", "criterion_list"): (24, 21),
    ("dynvision", "cross_entropy_loss"): (14, 14),
    ("dynvision", "energy_loss"): (25, 25),
    ("dynvision", "package"): (4, 4),
    ("dynvision", "temporal_masking"): (78, 39),
    ("hjepa", "combined"): (43, 43),
    ("hjepa", "contrastive"): (27, 27),
    ("hjepa", "hjepa_loss"): (15, 15),
    ("hjepa", "sigreg"): (30, 30),
    ("hjepa", "vicreg"): (17, 17),
    ("multimodal_insight", "__init__"): (2, 2),
    ("multimodal_insight", "barlow_twins_loss"): (12, 11),
    ("multimodal_insight", "clip_style_loss"): (12, 11),
    ("multimodal_insight", "combined_loss"): (17, 16),
    ("multimodal_insight", "contrastive_learning"): (24, 24),
    ("multimodal_insight", "contrastive_loss"): (34, 34),
    ("multimodal_insight", "decorrelation_loss"): (11, 10),
    ("multimodal_insight", "decoupled_contrastive_loss"): (8, 8),
    ("multimodal_insight", "dynamic_temperature_contrastive_loss"): (8, 8),
    ("multimodal_insight", "ema_moco_loss"): (12, 11),
    ("multimodal_insight", "feature_consistency_loss"): (19, 18),
    ("multimodal_insight", "hard_negative_mining_contrastive_loss"): (8, 8),
    ("multimodal_insight", "hybrid_pretrain_vicreg_loss"): (12, 11),
    ("multimodal_insight", "loss_factory"): (36, 35),
    ("multimodal_insight", "losses"): (19, 19),
    ("multimodal_insight", "memory_queue_contrastive_loss"): (10, 10),
    ("multimodal_insight", "multimodal_mixed_contrastive_loss"): (13, 13),
    ("multimodal_insight", "multitask_loss"): (19, 18),
    ("multimodal_insight", "supervised_contrastive_loss"): (13, 12),
    ("multimodal_insight", "vicreg_loss"): (9, 8),
    ("triangulate", "geometric_mean"): (20, 20),
    ("triangulate", "lpips_wrapper"): (5, 0),
    ("triangulate", "multiplicative"): (14, 14),
    ("triangulate", "paper_formulas"): (8, 0),
    ("triangulate", "perceptual"): (19, 19),
}

ALL_MODULES = [(system, module) for system in systems() for module in modules(system)]


def excluded_by(case: Case) -> str | None:
    actual = (case.system, case.module, case.symbol, case.data.get("variant", ""))
    for *rule, reason in EXCLUDED:
        if all(want in ("*", got) for want, got in zip(rule, actual, strict=True)):
            return reason
    return None


def replayed(system: str, module: str) -> list[Case]:
    return [case for case in load_cases(system, module) if excluded_by(case) is None]


CASES = [case for key in ALL_MODULES for case in replayed(*key)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_golden(case: Case) -> None:
    replay(case)


def test_no_module_of_recorded_answers_is_missing() -> None:
    assert set(ALL_MODULES) == set(COUNTS)


@pytest.mark.parametrize("key", ALL_MODULES, ids="-".join)
def test_number_of_cases(key: tuple[str, str]) -> None:
    assert (len(load_cases(*key)), len(replayed(*key))) == COUNTS[key]


def test_every_exclusion_is_needed() -> None:
    used = Counter(excluded_by(case) for key in ALL_MODULES for case in load_cases(*key))
    assert {rule[-1] for rule in EXCLUDED} == set(used) - {None}


def test_ids_are_unique() -> None:
    ids = Counter(case.id for key in ALL_MODULES for case in load_cases(*key))
    assert [name for name, count in ids.items() if count > 1] == []
