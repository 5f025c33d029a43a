"""The learner room: ingest of events into the store, training of policy and reward model, releases."""
