import torch

from src.training.losses.clip_style_loss import CLIPStyleLoss as ClipLoss


@torch.no_grad()
def alignment(model, data):
    """How well captions are found by image and the reverse, on held-out digits."""
    model.eval()
    loss_fn = ClipLoss(temperature=0.1, cache_labels=False)
    vision, text = model(data["pixels"], data["tokens"])
    out = loss_fn(vision, text, match_ids=data["ids"])
    model.train()
    return {"loss": float(out["loss"]), "accuracy": float(out["v2t_accuracy"] + out["t2v_accuracy"]) / 2}
