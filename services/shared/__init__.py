"""What the rooms share: facts, contracts, and the edges to Kafka, gRPC, SQL and checkpoints. Imports no room."""
