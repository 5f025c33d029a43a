"""The reward room: predicts what users would say of responses, as events for every rollout and over gRPC for anyone.

`base_model` names what is needed of the frozen base, `base_pass` (torch) and `scripted_base` give it;
`resident_models` holds the reward models that can score, `scorer` judges by them, `model_lane` lets one pass run at a
time. The edges: `consumer` and `score_events` turn `rollouts` into `scores`, `servicer` answers gRPC, `main` wires.
"""
