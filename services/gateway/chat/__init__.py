"""OpenAI's chat API: request checks, answers plain and streamed."""
