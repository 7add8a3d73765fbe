"""Geometric loss strategy (Chennupati et al., MultiNet++, 2019)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from panoptic.balancing.base import LossBalancer, Reducer, TaskLosses, TaskWeights


class GeometricMeanBalancer(LossBalancer):
    """The geometric mean of the tasks' losses (Sec. 3.2, Eq. 3).

    Its gradient is that of the sum of w_t L_t with w_t = mean / (T L_t), of which the value is the mean as well; losses
    are averaged over processes before. Not exact when gradients are accumulated: it is not linear in the losses.

    Raises:
        ValueError: a negative loss, in `forward`.
    """

    exact_when_accumulated = False

    def weigh(self, step: TaskLosses, shared: Sequence[Tensor], reducer: Reducer) -> TaskWeights:
        """Weights mean / (T L_t)."""
        self.check_positive(step, "a geometric mean")
        values = step.values.double()
        mean = values.log().mean().exp() if len(values) else values.sum()
        return TaskWeights((mean / (max(len(values), 1) * values)).float())
