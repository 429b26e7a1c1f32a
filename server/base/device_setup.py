"""What torch is told before a base runs on a device."""

import torch


def set_up(device: torch.device) -> None:
    """Keep cuDNN's attention from being chosen on a GPU, in the whole process; safe to call twice.

    With new versions of cuDNN it is torch's first choice on Hopper. It makes a plan for every shape
    of queries and keys, which prompts hardly ever have twice.
    """
    if device.type == "cuda":
        torch.backends.cuda.enable_cudnn_sdp(False)
