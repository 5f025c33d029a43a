"""Fit the sixteen heads: logistic regression with an L2 penalty, each head without its own third of the rollouts.

There are usually fewer thumbs than features, so the features are first rotated into the span of the thumbs (the penalty
does not change under a rotation): each fit then has at most as many unknowns as thumbs and takes milliseconds.

Shapes: `N` thumbs, `F` features, `K <= min(N, F)` rotated features, `H` heads.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from services.learner.reward_training.calibration import fit_calibration
from services.learner.reward_training.settings import RewardTrainingSettings
from services.learner.reward_training.thumbs import ThumbTable
from services.shared.reward_heads.features import PARTS
from services.shared.reward_heads.fold_design import left_out_HB
from services.shared.reward_heads.heads import RewardHeads

_EDGE = 1e-6


@dataclass(frozen=True, kw_only=True)
class _Fits:
    """All heads at one penalty and one scaling of the features."""

    weights_HK: NDArray[np.float64]
    bias_H: NDArray[np.float64]
    logits_HN: NDArray[np.float64]
    out_of_fold_loss: float
    weights_HF: NDArray[np.float64]
    scale_F: NDArray[np.float64]


def train_heads(thumbs: ThumbTable, settings: RewardTrainingSettings) -> RewardHeads:
    """Heads fitted on all thumbs. With too few of either sign it returns heads that know nothing."""
    features = thumbs.features_NF.shape[1]
    counted_N = thumbs.weight_N > 0
    ups = int((thumbs.up_N & counted_N).sum())
    if min(ups, int(counted_N.sum()) - ups) < settings.min_thumbs_of_each_sign:
        return RewardHeads.zero(features)
    mean_F = thumbs.features_NF.mean(axis=0)
    left_out_HN = left_out_HB(thumbs.rollout_ids)
    best: _Fits | None = None
    for middle_weight in settings.middle_weights:
        scale_F = _scale(thumbs.features_NF, middle_weight)
        rotated_NK, basis_KF = _rotate((thumbs.features_NF - mean_F) / scale_F)
        for penalty in settings.penalties:
            fits = _fit_all(rotated_NK, thumbs, left_out_HN, penalty * features)
            if best is None or fits.out_of_fold_loss < best.out_of_fold_loss:
                best = replace(fits, weights_HF=fits.weights_HK @ basis_KF, scale_F=scale_F)
    if best is None:
        raise ValueError("settings.penalties and settings.middle_weights must name at least one value each")
    slope, offset = fit_calibration(best.logits_HN, left_out_HN, thumbs.up_N, thumbs.weight_N)
    return RewardHeads(
        weights_HF=best.weights_HF.astype(np.float32),
        bias_H=best.bias_H.astype(np.float32),
        mean_F=mean_F.astype(np.float32),
        scale_F=best.scale_F.astype(np.float32),
        slope=slope,
        offset=offset,
    )


def _scale(features_NF: NDArray[np.float32], middle_weight: float) -> NDArray[np.float64]:
    """What to divide features by: their deviation, and the middle layers' also by their weight."""
    scale_F = features_NF.std(axis=0).astype(np.float64)
    scale_F = np.where(scale_F > 1e-6, scale_F, 1.0)
    scale_F[features_NF.shape[1] // PARTS :] /= middle_weight
    return scale_F


def _rotate(standard_NF: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coordinates of the thumbs in an orthonormal basis of their span, and that basis."""
    if len(standard_NF) > standard_NF.shape[1]:  # by the smaller of the two products: its cost grows with the cube
        values_F, vectors_FF = np.linalg.eigh(standard_NF.T @ standard_NF)
        basis_KF = vectors_FF[:, values_F > values_F[-1] * 1e-8].T
        return standard_NF @ basis_KF.T, basis_KF
    gram_NN = standard_NF @ standard_NF.T
    values_N, vectors_NN = np.linalg.eigh(gram_NN)
    kept = values_N > values_N[-1] * 1e-8
    root_K = np.sqrt(values_N[kept])
    rotated_NK = vectors_NN[:, kept] * root_K
    return rotated_NK, (vectors_NN[:, kept] / root_K).T @ standard_NF


def _fit_all(
    rotated_NK: NDArray[np.float64], thumbs: ThumbTable, left_out_HN: NDArray[np.bool_], strength: float
) -> _Fits:
    fitted = [
        _fit_one(rotated_NK[~left_out_N], thumbs.up_N[~left_out_N], thumbs.weight_N[~left_out_N], strength)
        for left_out_N in left_out_HN
    ]
    weights_HK = np.stack([weights for weights, _ in fitted])
    bias_H = np.array([bias for _, bias in fitted])
    logits_HN = weights_HK @ rotated_NK.T + bias_H[:, None]
    judges_N = left_out_HN.sum(axis=0)
    p_N = np.clip((expit(logits_HN) * left_out_HN).sum(axis=0) / judges_N, _EDGE, 1 - _EDGE)
    loss = -(thumbs.weight_N @ np.where(thumbs.up_N, np.log(p_N), np.log1p(-p_N)))
    return _Fits(
        weights_HK=weights_HK,
        bias_H=bias_H,
        logits_HN=logits_HN,
        out_of_fold_loss=float(loss),
        weights_HF=np.empty(0),
        scale_F=np.empty(0),
    )


def _fit_one(
    rotated_NK: NDArray[np.float64], up_N: NDArray[np.bool_], weight_N: NDArray[np.float64], strength: float
) -> tuple[NDArray[np.float64], float]:
    """Weights and bias that minimise the weighted log loss plus strength / 2 * |weights|^2; the bias goes free."""
    sign_N = np.where(up_N, 1.0, -1.0)

    def cost(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights_K, bias = parameters[:-1], parameters[-1]
        margin_N = sign_N * (rotated_NK @ weights_K + bias)
        pull_N = weight_N * sign_N * expit(-margin_N)
        loss = weight_N @ np.logaddexp(0.0, -margin_N) + 0.5 * strength * (weights_K @ weights_K) + 0.05 * bias**2
        gradient = np.append(strength * weights_K - pull_N @ rotated_NK, 0.1 * bias - pull_N.sum())
        return float(loss), gradient

    found = minimize(
        cost, np.zeros(rotated_NK.shape[1] + 1), jac=True, method="L-BFGS-B", options={"maxiter": 60, "ftol": 1e-6}
    )
    return found.x[:-1], float(found.x[-1])
