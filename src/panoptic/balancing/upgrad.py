"""UPGrad (Quinton & Rey, Jacobian Descent for Multi-Objective Optimization, 2024), solved with scipy."""

from __future__ import annotations

import numpy as np
import scipy.linalg
import scipy.optimize
import torch
from torch import Tensor


class UPGradWeighting:
    """Mean of the tasks' gradients, each projected so that it conflicts with none (Sec. 3.1, Eq. 4 and Prop. 1).

    The projection of the t-th gradient is the combination v of gradients that minimises v^T G v with v >= e_t / T; as
    v = e_t / T + x, x >= 0 this is a non-negative least-squares problem of T unknowns. torchjd has the same behind a
    solver under the GPL.

    Args:
        regularisation: added to the diagonal of the Gramian of which the trace is 1, as torchjd does.
    """

    def __init__(self, *, regularisation: float = 1e-4) -> None:
        if regularisation < 0:
            raise ValueError(f"expected a regularisation of at least 0, got {regularisation}")
        self.regularisation = regularisation

    def __call__(self, gramian: Tensor) -> Tensor:
        """(T, T) inner products with a positive trace to (T,) weights of at least 1 / T."""
        matrix = gramian.double().cpu().numpy()
        size = len(matrix)
        values, vectors = scipy.linalg.eigh(matrix / np.trace(matrix) + self.regularisation * np.eye(size))
        root = np.sqrt(np.maximum(values, 0))[:, None] * vectors.T  # root.T @ root is the Gramian
        starts = np.eye(size) / size
        weights = sum(start + scipy.optimize.nnls(root, -root @ start)[0] for start in starts)
        return torch.from_numpy(np.asarray(weights)).to(gramian)
