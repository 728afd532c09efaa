"""Make torchvision importable next to a torch build for which its compiled operators do not load.

torchvision registers Python kernels for its operators at import and stops with "operator torchvision::nms does not
exist" if its extension was built for another torch. The tests only need its Python side (the VGG modules, through
lpips), so this helper declares the operators, without kernels, before the first import. Where torchvision is healthy
it does nothing.
"""

from __future__ import annotations

import importlib
from types import ModuleType

import torch

_BOX = "Tensor input, Tensor rois, float spatial_scale, int pooled_height, int pooled_width"
_BOX_BACKWARD = "float spatial_scale, int pooled_height, int pooled_width"
_SIZES = "int batch_size, int channels, int height, int width"
_DEFORM = (
    "int stride_h, int stride_w, int pad_h, int pad_w, int dilation_h, int dilation_w, int groups, "
    "int offset_groups, bool use_mask"
)
_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    f"roi_align({_BOX}, int sampling_ratio, bool aligned) -> Tensor",
    f"roi_pool({_BOX}) -> (Tensor, Tensor)",
    f"ps_roi_align({_BOX}, int sampling_ratio) -> (Tensor, Tensor)",
    f"ps_roi_pool({_BOX}) -> (Tensor, Tensor)",
    f"deform_conv2d(Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias, {_DEFORM}) -> Tensor",
    f"_roi_align_backward(Tensor grad, Tensor rois, {_BOX_BACKWARD}, {_SIZES}, int sampling_ratio, bool aligned) "
    "-> Tensor",
    f"_roi_pool_backward(Tensor grad, Tensor rois, Tensor argmax, {_BOX_BACKWARD}, {_SIZES}) -> Tensor",
    f"_ps_roi_align_backward(Tensor grad, Tensor rois, Tensor channel_mapping, {_BOX_BACKWARD}, int sampling_ratio, "
    f"{_SIZES}) -> Tensor",
    f"_ps_roi_pool_backward(Tensor grad, Tensor rois, Tensor channel_mapping, {_BOX_BACKWARD}, {_SIZES}) -> Tensor",
    f"_deform_conv2d_backward(Tensor grad, Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias, "
    f"{_DEFORM}) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
_library: torch.library.Library | None = None


def import_torchvision() -> ModuleType:
    """The module ``torchvision``, with declared operators if its own cannot be loaded."""
    global _library
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error) or _library is not None:
            raise
    _library = torch.library.Library("torchvision", "DEF")  # kept: dropping it would undo the declarations
    for schema in _SCHEMAS:
        _library.define(schema)
    return importlib.import_module("torchvision")
