"""May the policy be trained on this reward model yet?"""

from services.learner.reward_training.prequential import PrequentialReport
from services.learner.reward_training.settings import RewardTrainingSettings


def why_no_skill(report: PrequentialReport, settings: RewardTrainingSettings) -> str:
    """Empty where the reward model has proved skill, else what is missing: thumbs of a sign, or a better AUROC."""
    fewest, needed = min(report.thumbs_up, report.thumbs_down), settings.skill_thumbs_of_each_sign
    if fewest < needed:
        return f"{fewest} tested thumbs of the rarer sign, {needed} needed"
    if report.auroc_low95 <= settings.skill_auroc:
        return f"lower bound of AUROC {report.auroc_low95:.2f}, above {settings.skill_auroc:.2f} needed"
    return ""
