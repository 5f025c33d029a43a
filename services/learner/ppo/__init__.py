"""Proximal policy optimisation (Schulman et al., arXiv 1707.06347) on batches of rated-by-model answers.

`batch` is what goes in, `rewards`, `advantages`, `clipped_loss`, `kl_controller`, `critic` and `small_batches` hold one
idea each, `update` runs them over minibatches and epochs and reports.
"""
