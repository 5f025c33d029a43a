"""Releases as people see them: a read model of what the learner and the generator say, for the chat page."""
