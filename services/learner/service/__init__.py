"""The learner over gRPC: status, pause, where feedback went, releases, acknowledgements."""
