"""Nash-MTL (Navon et al., Multi-Task Learning as a Bargaining Game, 2022), solved with scipy."""

from __future__ import annotations

import numpy as np
import scipy.optimize
import torch
from torch import Tensor

PRECISELY = {"gtol": 1e-8}
"""Of G alpha * alpha = 1: processes that share a batch in other ways find the same weights."""


class NashMTLWeighting:
    """The weights alpha > 0 with G alpha = 1 / alpha, the Nash bargaining solution (Sec. 3, Claim 3.1).

    They are where a^T G a / 2 - sum log a has its minimum, which is one; it is sought in log a. The paper approximates
    them by a sequence of convex problems, which torchjd has behind a solver under the GPL. As there, G is divided by
    its Frobenius norm, and weights are cut so that the norm of the combined gradient is at most `max_norm`.

    Args:
        max_norm: of the combined gradient; 1 in the paper's code, 0 does not cut.
        regularisation: added to the diagonal of the normalised Gramian (chosen): gradients that cancel each other have
            no solution.

    Raises:
        ValueError: a negative argument.
    """

    def __init__(self, *, max_norm: float = 1.0, regularisation: float = 1e-4) -> None:
        if max_norm < 0 or regularisation < 0:
            raise ValueError(f"expected arguments of at least 0, got max_norm={max_norm}, {regularisation=}")
        self.max_norm, self.regularisation = max_norm, regularisation

    def __call__(self, gramian: Tensor) -> Tensor:
        """(T, T) inner products, positive on the diagonal, to (T,) positive weights."""
        matrix = gramian.double().cpu().numpy()
        normalised = matrix / np.linalg.norm(matrix) + self.regularisation * np.eye(len(matrix))

        def value(logs: np.ndarray) -> float:
            weights = np.exp(logs)
            return float(weights @ normalised @ weights / 2 - logs.sum())

        def slope(logs: np.ndarray) -> np.ndarray:
            weights = np.exp(logs)
            return np.asarray(weights * (normalised @ weights) - 1)

        def curvature(logs: np.ndarray) -> np.ndarray:
            weights = np.exp(logs)
            return np.asarray(np.outer(weights, weights) * normalised + np.diag(weights * (normalised @ weights)))

        start = -np.log(np.diag(normalised)) / 2  # the solution for gradients at right angles
        found = scipy.optimize.minimize(
            value, start, jac=slope, hess=curvature, method="trust-exact", options=PRECISELY
        )
        weights = np.exp(found.x)
        norm = np.sqrt(max(weights @ matrix @ weights, 0))
        if self.max_norm and norm > self.max_norm:
            weights *= self.max_norm / norm
        return torch.from_numpy(weights).to(gramian)
