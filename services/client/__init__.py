"""The Python client: chat with a gateway, say what its answers are worth, ask where that went.

with ThumbloopClient("http://127.0.0.1:8080") as client:
    answer = client.chat("How do I keep a houseplant alive?", max_tokens=64)
    receipt = client.thumb(answer.feedback_token, up=True)  # or rate, compare, edit, comment, retract
    print(client.feedback_state(receipt.feedback_id, answer.feedback_token).state)
"""

from services.client.answers import (
    Answer,
    AnswerFinished,
    AnswerPart,
    AnswerStarted,
    AnswerText,
    FeedbackFate,
    FeedbackReceipt,
    Span,
    gather,
)
from services.client.async_client import AsyncThumbloopClient
from services.client.sync_client import ThumbloopClient

__all__ = [
    "Answer",
    "AnswerFinished",
    "AnswerPart",
    "AnswerStarted",
    "AnswerText",
    "AsyncThumbloopClient",
    "FeedbackFate",
    "FeedbackReceipt",
    "Span",
    "ThumbloopClient",
    "gather",
]
