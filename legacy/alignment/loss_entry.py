"""Frozen twin of ``utils.loss_entry`` (alignment part): chooses losses by a configuration and adds them up.

Use :class:`training_losses.alignment.AlignmentObjective` in new code.

Kept as it was: no weights, the epoch passed where VAVA asks for a step, float32 accumulators, in-place addition (so
that GTCC's ``(1,)`` result raises), an unknown name that ends the process, zeros without a graph for batches of one
sequence. The accumulators live where the sequences are.
"""

import sys

import torch

from training_losses.migration.deprecation import deprecated_module

from .loss_functions import GTCC_loss, LAV_loss, TCC_loss, VAVA_loss

deprecated_module(__name__)

__all__ = ["get_loss_function"]


def get_loss_function(config_obj):
    """A function ``(output_dict_list, epoch) -> dict`` of the losses that ``config_obj.LOSS_TYPE`` enables."""
    loss_type = config_obj.LOSS_TYPE
    tcc_params = config_obj.TCC_ORIGINAL_PARAMS
    gtcc_params = config_obj.GTCC_PARAMS
    lav_params = config_obj.LAV_PARAMS
    vava_params = config_obj.VAVA_PARAMS

    def zero(outputs):
        device = outputs[0]["outputs"][0].device if outputs and len(outputs[0]["outputs"]) else "cpu"
        return torch.zeros((), dtype=torch.float32, device=device)

    def alignment_loss(output_dict_list, epoch):
        if type(output_dict_list) is not list:
            output_dict_list = [output_dict_list]
        result = {"total_loss": zero(output_dict_list)}
        for name, enabled in loss_type.items():
            if enabled:
                result[name + "_loss"] = zero(output_dict_list)
        for output_dict in output_dict_list:
            sequences = output_dict["outputs"]
            if len(sequences) < 2:
                continue
            for name, enabled in loss_type.items():
                if not enabled:
                    continue
                if name == "GTCC":
                    value = GTCC_loss(sequences, dropouts=output_dict["dropouts"], epoch=epoch, **gtcc_params)
                elif name == "tcc":
                    value = TCC_loss(sequences, **tcc_params)
                elif name == "LAV":
                    value = LAV_loss(sequences, **lav_params)
                elif name == "VAVA":
                    value = VAVA_loss(sequences, global_step=epoch, **vava_params)
                else:
                    sys.exit(1)
                result[name + "_loss"] += value
                result["total_loss"] += value
        return result

    return alignment_loss
