"""Room `gateway`: where users meet Thumbloop.

Speaks OpenAI's chat API over HTTP, hands out a signed feedback token with every answer, and turns what users say of
answers into durable `feedback` events. It owns prompt, conversation and rater ids, and the chat page.
"""
