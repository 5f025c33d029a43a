"""What trained which policy: told by `uses`, by the candidate, and by the manifest on disk. All three must agree.

None is trusted alone: what only one of them names was trained, too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from tests.benchmarks.chaos.store_view import Policy, StoreView


def published_line(policies: Iterable[Policy]) -> list[Policy]:
    """Policies that were announced."""
    return [policy for policy in policies if policy.published]


def experiences_trained(store: StoreView) -> int:
    """Distinct rollouts in batches of published policies."""
    published = {policy.version for policy in published_line(store.policies)}
    return len({rollout_id for version, rollout_id in store.policy_uses if version in published})


def find_trained_twice(store: StoreView) -> list[str]:
    """Experiences that stand more than once in the line of a published policy, or twice in one batch."""
    policies = {policy.version: policy for policy in store.policies}
    uses = _uses(store)
    found: dict[str, str] = {}
    for policy in published_line(store.policies):
        for told in (policy.batch, policy.manifest or ()):
            doubles = [rollout_id for rollout_id, times in Counter(told).items() if times > 1]
            found |= {rollout_id: f"{rollout_id} twice in the batch of {policy.version}" for rollout_id in doubles}
        seen: dict[str, str] = {}
        for version in _ancestry(policy.version, policies):
            for rollout_id in _trained(policies[version], uses):
                if rollout_id in seen:
                    found[rollout_id] = f"{rollout_id} in {seen[rollout_id]} and in {version}"
                seen[rollout_id] = version
    return sorted(found.values())


def find_lineage_differences(store: StoreView) -> list[str]:
    """Published policies of which `uses`, the candidate and the manifest do not name the same rollouts."""
    uses = _uses(store)
    found: list[str] = []
    for policy in published_line(store.policies):
        if policy.manifest is None:
            found.append(f"{policy.version} has no manifest on disk that can be read")
        told = {"uses": uses.get(policy.version, set()), "its manifest": set(policy.manifest or ())}
        for name, rollout_ids in told.items():
            if odd := sorted(rollout_ids ^ set(policy.batch)):
                found.append(f"{policy.version}: the batch and {name} differ in {len(odd)} rollouts, first {odd[0]}")
    return found


def _uses(store: StoreView) -> dict[str, set[str]]:
    used: dict[str, set[str]] = {}
    for version, rollout_id in store.policy_uses:
        used.setdefault(version, set()).add(rollout_id)
    return used


def _trained(policy: Policy, uses: Mapping[str, set[str]]) -> set[str]:
    """Whatever anything says was trained."""
    return uses.get(policy.version, set()) | set(policy.batch) | set(policy.manifest or ())


def _ancestry(version: str, policies: Mapping[str, Policy]) -> list[str]:
    line: list[str] = []
    while version in policies and version not in line:
        line.append(version)
        version = policies[version].parent_version
    return line
