"""BarlowTwinsLoss: the paper's sums, and why the old loss could not train."""

from __future__ import annotations

import pytest
import torch

from tests.support.twins import twin
from training_losses.contrastive.barlow_twins import BarlowTwinsLoss


def pair(rows: int = 64, columns: int = 6, noise: float = 0.5) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    v = torch.randn(rows, columns, generator=g, dtype=torch.float64)
    return v, v + noise * torch.randn(rows, columns, generator=g, dtype=torch.float64)


def test_closed_form() -> None:
    v, t = pair(7, 3)
    correlation = torch.corrcoef(torch.cat([v, t], dim=1).mT)[:3, 3:]
    want_diagonal = sum((float(correlation[i, i]) - 1) ** 2 for i in range(3))
    want_rest = sum(float(correlation[i, j]) ** 2 for i in range(3) for j in range(3) if i != j)
    out = BarlowTwinsLoss(off_diagonal_weight=0.2, eps=1e-12)(v, t)
    assert float(out["diagonal_loss"]) == pytest.approx(want_diagonal, abs=1e-9)
    assert float(out["off_diagonal_loss"]) == pytest.approx(want_rest, abs=1e-9)
    assert float(out.loss) == pytest.approx(want_diagonal + 0.2 * want_rest, abs=1e-9)


def test_identical_views_cost_nothing_now_and_nearly_everything_before() -> None:
    v, _ = pair(512, 16)
    old_same, _ = twin("barlow_twins_loss.BarlowTwinsLoss")()(v, v)
    old_noise, _ = twin("barlow_twins_loss.BarlowTwinsLoss")()(v, pair(512, 16)[1].flip(0))
    assert float(old_same) > 0.85  # (1 - 1/D)^2: no signal
    assert float(old_noise) - float(old_same) < 0.15
    new = BarlowTwinsLoss()
    same, unrelated = new(v, v), new(v, pair(512, 16)[1].flip(0))
    assert float(same["diagonal_loss"]) < 1e-6
    assert float(unrelated["diagonal_loss"]) > 12


def test_blind_to_the_scale_of_a_dimension() -> None:
    v, t = pair()
    scale = torch.logspace(-2, 3, 6, dtype=torch.float64)
    torch.testing.assert_close(BarlowTwinsLoss(eps=1e-12)(v * scale, t).loss, BarlowTwinsLoss(eps=1e-12)(v, t).loss)


def test_off_diagonal_weight_means_what_the_paper_says() -> None:
    """The old means made the weight of the off-diagonal term D times smaller."""
    v, t = pair(32, 8)
    sums = BarlowTwinsLoss(off_diagonal_weight=1.0)(v, t)
    means = BarlowTwinsLoss(off_diagonal_weight=1.0, matrix_reduction="mean")(v, t)
    ratio = lambda out: float(out["off_diagonal_loss"] / out["diagonal_loss"])  # noqa: E731
    assert ratio(sums) == pytest.approx(8 * ratio(means))


@pytest.mark.parametrize("mode", ["cross_modal", "anything"])
@pytest.mark.parametrize("normalize", [True, False])
def test_options_bring_the_old_numbers_back(mode: str, normalize: bool) -> None:
    v, t = pair(9, 5)
    want, parts = twin("barlow_twins_loss.BarlowTwinsLoss")(0.1, correlation_mode=mode, normalize_embeddings=normalize)(
        v, t
    )
    new = BarlowTwinsLoss(
        off_diagonal_weight=0.1,
        correlation="cross" if mode == "cross_modal" else "within",
        standardize=False,
        normalize=normalize,
        matrix_reduction="mean",
    )(v, t)
    torch.testing.assert_close(new.loss, want, rtol=1e-12, atol=1e-12)
    assert float(new["off_diagonal_loss"]) == pytest.approx(parts["off_diagonal_loss"], abs=1e-12)


def test_heads_convert_and_train_as_before() -> None:
    v, t = pair(10, 8)
    old = twin("barlow_twins_loss.BarlowTwinsLoss")(add_projection=True, input_dim=8, projection_dim=5).double()
    options = {"standardize": False, "normalize": True, "matrix_reduction": "mean", "final_batch_norm": True}
    new = BarlowTwinsLoss(input_dim=8, projection_dim=5, **options).double()
    state = {k.replace("_projection.", "_head.layers."): x for k, x in old.state_dict().items()}
    new.load_state_dict(state, strict=True)
    for _ in range(2):
        want, got = old(v, t)[0], new(v, t).loss
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)
    for key, value in old.state_dict().items():
        torch.testing.assert_close(new.state_dict()[key.replace("_projection.", "_head.layers.")], value)


def test_errors() -> None:
    v, t = pair(4, 3)
    with pytest.raises(ValueError, match="correlation"):
        BarlowTwinsLoss(correlation="cross_modal")
    with pytest.raises(ValueError, match="input_dim and projection_dim"):
        BarlowTwinsLoss(projection_dim=4)
    with pytest.raises(ValueError, match="two rows"):
        BarlowTwinsLoss()(v[:1], t[:1])
    with pytest.raises(ValueError, match="common shape"):
        BarlowTwinsLoss(correlation="within")(v, t[:2])
    # the twin accepts that silently and gives a graphless zero for an empty batch
    assert not twin("barlow_twins_loss.BarlowTwinsLoss")()(v[:0], t[:0])[0].requires_grad
    with pytest.raises(ValueError, match="empty"):
        BarlowTwinsLoss()(v[:0], t[:0])
