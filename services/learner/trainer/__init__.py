"""The trainer: turns thumbs and experiences into candidates, one cycle after another, in a thread of its own.

`trainer` is the thread, `cycle` the order of things, `reward_step` and `policy_step` its two halves, `publication` how
a candidate is written and handed over. What is learned stands behind `learners`: `heads_learner` for the reward model,
`ppo_learner` (torch, with `gate_samples`) or `scripted_policy` for the policy. `pacing` holds pauses and waits,
`status` says where it stands, `reward_client` asks the reward room, `failed_updates` keeps a batch that cannot be
learned from from being claimed for ever.
"""
