"""MGDA (Sener & Koltun, Multi-Task Learning as Multi-Objective Optimization, 2018), solved with scipy."""

from __future__ import annotations

import numpy as np
import scipy.linalg
import scipy.optimize
import torch
from torch import Tensor


class MGDAWeighting:
    """The convex combination of gradients with the least norm (Eq. 3).

    With R^T R = G, the x >= 0 that minimises |R x|^2 + (sum x - 1)^2 is a multiple of it: where x is positive, G x has
    one value, and nowhere a smaller one. DEVIATION: the paper, and torchjd, go towards it by Frank-Wolfe steps until
    one is short; where they stop jumps with the last bit of G, so several processes would not train as one does.
    """

    def __call__(self, gramian: Tensor) -> Tensor:
        """(T, T) inner products with a positive trace to (T,) weights of at least 0 and sum 1."""
        matrix = gramian.double().cpu().numpy()
        values, vectors = scipy.linalg.eigh(matrix * len(matrix) / np.trace(matrix))
        root = np.sqrt(np.maximum(values, 0))[:, None] * vectors.T
        size = len(matrix)
        found, _ = scipy.optimize.nnls(np.vstack([root, np.ones(size)]), np.append(np.zeros(size), 1.0))
        return torch.from_numpy(found / found.sum()).to(gramian)
