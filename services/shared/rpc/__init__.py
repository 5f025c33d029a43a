"""gRPC servers and clients alike in every room: health, reflection, deadlines, rich errors."""
