"""The policy as the learner holds it: a frozen base, a LoRA adapter, a value head; nothing else is ever trained.

`policy_model` is the object that the rest uses; `decoder` runs parts of the base's layers, `packing` lays many
rollouts into one row, `value_head` is the critic, `sampling` lets the model answer, `adapter_format` is what a release
holds, `training_state` what resuming needs besides.
"""
