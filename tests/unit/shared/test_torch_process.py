"""Every room that computes does so on one thread, and without attention that is built anew for each shape."""

from __future__ import annotations

import torch

from services.shared.torch_process import prepare_torch


def test_one_thread_and_no_attention_by_cudnn() -> None:
    torch.backends.cuda.enable_cudnn_sdp(True)
    prepare_torch()
    assert torch.get_num_threads() == 1
    assert not torch.backends.cuda.cudnn_sdp_enabled()  # type: ignore[no-untyped-call]  # torch leaves it untyped
