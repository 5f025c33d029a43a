"""Calibration: one slope and one offset that make the heads' mean probability match how often thumbs are up.

Fitted on thumbs that the judging heads did not see (Platt, 1999), with a prior that keeps few thumbs from saying much.
Shapes: `N` thumbs, `H` heads.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

_PRIOR_SD = np.array([0.5, 0.5])
_EDGE = 1e-6


def fit_calibration(
    logits_HN: NDArray[np.floating],
    may_judge_HN: NDArray[np.bool_],
    up_N: NDArray[np.bool_],
    weight_N: NDArray[np.float64],
) -> tuple[float, float]:
    """Slope and offset by penalised likelihood. The prior is a log slope of 0 +- 0.5 and an offset of 0 +- 0.5."""
    judges_N = may_judge_HN.sum(axis=0)

    def cost(parameters: NDArray[np.float64]) -> float:
        log_slope, offset = parameters
        probability_HN = expit(np.exp(log_slope) * logits_HN + offset)
        p_N = np.clip((probability_HN * may_judge_HN).sum(axis=0) / judges_N, _EDGE, 1 - _EDGE)
        likelihood = weight_N @ np.where(up_N, np.log(p_N), np.log1p(-p_N))
        return float(-likelihood + 0.5 * np.sum((parameters / _PRIOR_SD) ** 2))

    found = minimize(cost, np.zeros(2), method="Nelder-Mead", options={"xatol": 1e-3, "fatol": 1e-4, "maxiter": 200})
    return float(np.exp(found.x[0])), float(found.x[1])
