"""Training of the embedded reward model from thumbs, and the test whether it can be trusted.

`thumbs` is what goes in, `train_heads` fits, `calibration` makes probabilities honest, `prequential` tests each version
on thumbs it has not seen, `skill_gate` says when PPO may use it, `reward_trainer` is the whole cycle.
"""
