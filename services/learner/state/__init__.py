"""What the learner knows: experiences and their claims, candidates and releases, and questions asked of them."""
