"""The embedded reward model: sixteen logistic heads over features of one adapter-off pass. numpy only, no torch.

`fold_design` says which rollouts a head never sees, `heads` holds the weights, `scoring` turns features into rewards
in thumb units, `storage` writes and reads a release of it. The learner's `reward_training` fits the heads.
"""
