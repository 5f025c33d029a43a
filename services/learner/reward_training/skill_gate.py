"""May the policy be trained on this reward model yet?"""

from services.learner.reward_training.prequential import PrequentialReport
from services.learner.reward_training.settings import RewardTrainingSettings


def why_no_skill(tested: PrequentialReport, ups: int, downs: int, settings: RewardTrainingSettings) -> str:
    """Empty where the reward model has proved skill, else what is missing: thumbs of a sign, or a better AUROC.

    `ups` and `downs` count all thumbs that the heads were trained on, not only those of the prequential window.
    """
    fewest, needed = min(ups, downs), settings.skill_thumbs_of_each_sign
    if fewest < needed:
        return f"{fewest} thumbs of the rarer sign, {needed} needed"
    if tested.auroc_low95 <= settings.skill_auroc:
        return f"lower bound of AUROC {tested.auroc_low95:.2f}, above {settings.skill_auroc:.2f} needed"
    return ""
