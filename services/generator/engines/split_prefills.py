"""What a flip does to prompts that were read in part.

A step has a bounded number of tokens, so a prompt may be read over several steps. Were the weights exchanged in
between, its cache would hold two versions before its first token was drawn, which no version span can tell. Such a
prompt is read again from its start; nothing of it was shown to anybody yet.
"""

from __future__ import annotations

from typing import Any

from transformers.generation.continuous_batching.requests import RequestStatus


def restart_split_prefills(batch_processor: Any) -> int:
    """Puts them back at the head of the queue and frees their cache. Returns how many there were.

    To be called inside `manager.pause()`, while the decode loop stands.
    """
    scheduler = batch_processor.scheduler
    split = [state for state in scheduler.active_requests.values() if state.status == RequestStatus.PREFILLING]
    for state in reversed(split):
        scheduler.finish_request(state.request_id)
        scheduler.add_waiting_request(state.create_equivalent_initial_request())
        scheduler.waiting_requests_order.rotate(1)
    return len(split)
