"""Room `generator`: draws responses from the live policy and records them as rollouts.

A request is converted (`service`), admitted (`admission`), drawn by an *engine* (`engines`), turned into text
(`detokenizer`) and, when it ends, recorded as one `rollouts` event (`rollout_publisher`). Releases arrive through
`release_target` and are taken live between two decode steps.
"""
