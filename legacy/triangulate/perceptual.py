"""Frozen `triangulate_ai.loss.perceptual`: VGG-19 feature distance and the weighted sum with L1 and LPIPS.

Kept as it was, among other things:

* features are convolution outputs before the ReLU, and every layer runs the network again from the image;
* target features are computed with a graph, so gradients reach the target;
* the mean over layers divides by the number of listed names, repetitions included;
* the frozen network is part of the state_dict, once per listed layer;
* a component whose weight is not positive is a float32 zero on the device given at construction.

`torchvision.models.vgg19` and `lpips.LPIPS` are looked up at construction; the optional packages are imported there.
"""

import torch
import torch.nn as nn

from training_losses.migration.deprecation import deprecated_module

deprecated_module(__name__)


class VGGPerceptualLoss(nn.Module):
    """Mean squared difference of VGG-19 convolution outputs, averaged over the listed layers."""

    def __init__(self, layer_names=None, device="cuda"):
        super().__init__()
        import torchvision

        if layer_names is None:
            layer_names = ["conv1_2", "conv2_2", "conv3_4", "conv4_4"]
        self.layer_names = layer_names
        self.device = device

        features = torchvision.models.vgg19(pretrained=True).features.to(device).eval()
        for parameter in features.parameters():
            parameter.requires_grad = False

        self.layer_mapping = {
            "conv1_1": 0,
            "conv1_2": 2,
            "conv2_1": 5,
            "conv2_2": 7,
            "conv3_1": 10,
            "conv3_2": 12,
            "conv3_3": 14,
            "conv3_4": 16,
            "conv4_1": 19,
            "conv4_2": 21,
            "conv4_3": 23,
            "conv4_4": 25,
            "conv5_1": 28,
            "conv5_2": 30,
            "conv5_3": 32,
            "conv5_4": 34,
        }
        self.feature_extractors = nn.ModuleDict()
        for name in self.layer_names:
            if name not in self.layer_mapping:
                raise ValueError(f"Unknown VGG layer: {name}")
            self.feature_extractors[name] = features[: self.layer_mapping[name] + 1]

        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1).to(device))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1).to(device))

    def normalize(self, x):
        return (x - self.mean) / self.std

    def forward(self, rendered, target):
        x = self.normalize(rendered)
        y = self.normalize(target)
        total = 0.0
        for extractor in self.feature_extractors.values():
            total = total + nn.functional.mse_loss(extractor(x), extractor(y))
        return total / len(self.layer_names)


class CombinedLoss(nn.Module):
    """``alpha`` * VGG + ``beta`` * L1 + ``gamma`` * LPIPS."""

    def __init__(self, alpha=1.0, beta=0.1, gamma=0.05, vgg_layers=None, device="cuda"):
        super().__init__()
        import lpips

        self.alpha = alpha
        self.beta = beta
        self.gamma = gamma
        self.device = device
        self.perceptual_loss = VGGPerceptualLoss(vgg_layers, device)
        self.l1_loss = nn.L1Loss()
        self.lpips_loss = lpips.LPIPS(net="vgg", spatial=False).to(device)
        for parameter in self.lpips_loss.parameters():
            parameter.requires_grad = False

    def forward(self, rendered, target):
        if self.alpha > 0:
            perceptual = self.perceptual_loss(rendered, target)
        else:
            perceptual = torch.tensor(0.0, device=self.device)
        if self.beta > 0:
            l1 = self.l1_loss(rendered, target)
        else:
            l1 = torch.tensor(0.0, device=self.device)
        if self.gamma > 0:
            lpips_val = self.lpips_loss(2 * rendered - 1, 2 * target - 1).mean()
        else:
            lpips_val = torch.tensor(0.0, device=self.device)
        total = self.alpha * perceptual + self.beta * l1 + self.gamma * lpips_val
        return {"perceptual": perceptual, "l1": l1, "lpips": lpips_val, "total": total}
