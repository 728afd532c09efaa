import torch

from .data import batches
from .losses import CLIPStyleLoss, MemoryQueueContrastiveLoss


def build_loss(name, config, model, train):
    options = config["losses"][name]
    if name == "clip":
        # hard negatives were planned, the flag never did anything
        return CLIPStyleLoss(
            options["temperature"],
            use_hard_negatives=True,
            label_smoothing=options["label_smoothing"],
        )
    if name == "simclr":
        from src.training.losses.contrastive_loss import ContrastiveLoss

        return ContrastiveLoss(temperature=options["temperature"], loss_type="nt_xent", add_projection=True,
                               input_dim=config["dim"], projection_dim=24, sampling_strategy="in-batch")
    if name == "queue":
        return filled_queue(options, config, model, train)
    from .losses import VICRegLoss as Regulariser

    return Regulariser(sim_coeff=options["sim_coeff"], var_coeff=options["var_coeff"], warmup_epochs=3)


@torch.no_grad()
def filled_queue(options, config, model, train):
    """A queue that begins with features of the untrained encoders."""
    loss_fn = MemoryQueueContrastiveLoss(dim=config["dim"], queue_size=options["queue_size"],
                                         temperature=options["temperature"])
    for pixels, tokens, _ in batches(train, 128):
        loss_fn.initialize_queue(*model(pixels, tokens))
    return loss_fn
