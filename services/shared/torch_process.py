"""How torch computes in a room's process."""

from __future__ import annotations


def prepare_torch() -> None:
    """To be called once, before a model is loaded.

    One thread on the CPU: the rooms share it. On a GPU no attention by cuDNN: it builds a plan for each shape that it
    has not met, which takes longer than a decode step, and here nearly every step and pack has its own.
    """
    import torch

    torch.set_num_threads(1)
    torch.backends.cuda.enable_cudnn_sdp(False)
