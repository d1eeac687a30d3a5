"""AdamW on a matrix of parameters, a row for each network: a step is a handful of operations, however many."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Bool, Float
from torch import Tensor

_BETAS, _EPS = (0.9, 0.999), 1e-8


class AdamW:
    """Adam with decoupled weight decay, for E networks at once; it also averages the way that the parameters take.

    The average over the last steps is what to judge and to keep: steps of one size circle around an optimum, and their
    mean is nearer to it than any of them.

    torch's own optimisers do the same arithmetic; importing their machinery takes 3 s, and a step of a small network
    twice as long.

    Parameters
    ----------
    values
        The parameters, changed in place.
    decay
        Weight decay of each parameter in a step, times the rate.
    units
        Factors on the steps.
    n_averaged
        About how many steps the average is over.

    References
    ----------
    Loshchilov and Hutter (2019), Decoupled weight decay regularization, algorithm 2. Polyak and Juditsky (1992),
    Acceleration of stochastic approximation by averaging; here with weights that decay from step to step.
    """

    def __init__(
        self,
        values: Float[Tensor, "E P"],
        decay: Float[Tensor, "P"],
        units: Float[Tensor, "E P"],
        n_averaged: Float[Tensor, "E 1"],
    ):
        self.values, self._decay, self._units = values, decay, units
        self.mean, self.square = torch.zeros_like(values), torch.zeros_like(values)
        self.n_steps = values.new_zeros(len(values), 1)
        self.average, self._n_averaged = values.clone(), n_averaged

    def state(self) -> dict[str, Tensor]:
        """What steps go on from, but for the parameters."""
        return {"mean": self.mean, "square": self.square, "n_steps": self.n_steps, "average": self.average}

    def go_on(self, state: dict[str, Tensor]) -> None:
        """From what `state` returned."""
        for name, tensor in self.state().items():
            tensor.copy_(state[name])

    def restart(self, e: int) -> None:
        """Forget what a network has gone through so far; it is where `values` say."""
        for tensor in (self.mean, self.square, self.n_steps):
            tensor[e] = 0
        self.average[e] = self.values[e]

    @contextmanager
    @torch.no_grad()
    def averaged(self) -> Iterator[None]:
        """Meanwhile the average stands in the place of the parameters."""
        current = self.values.clone()
        self.values.copy_(self.average)
        yield
        self.values.copy_(current)

    def keep(self, left: Sequence[int], values: Float[Tensor, "e P"]) -> None:
        """Go on with some of the networks, whose parameters are now `values`."""
        self.values, self._units = values, self._units[left]
        self.mean, self.square, self.n_steps = self.mean[left], self.square[left], self.n_steps[left]
        self.average, self._n_averaged = self.average[left], self._n_averaged[left]

    @torch.no_grad()
    def step(
        self, gradient: Float[Tensor, "E P"], rate: Float[Tensor, "E 1"], moves: Bool[Tensor, "E"] | None = None
    ) -> None:
        """Move the parameters; only of the networks in `moves`, where that is given."""
        state = self.values, *self.state().values()
        kept = [] if moves is None else [tensor[~moves] for tensor in state]
        self.n_steps += 1
        of_mean, of_square = (-torch.expm1(self.n_steps * math.log(beta)) for beta in _BETAS)
        self.mean.lerp_(gradient, 1 - _BETAS[0])
        self.square.mul_(_BETAS[1]).addcmul_(gradient, gradient, value=1 - _BETAS[1])
        scale = (self.square / of_square).sqrt_().add_(_EPS)
        self.values.mul_(1 - rate * self._decay)
        self.values.addcdiv_(self.mean * self._units, scale.mul_(of_mean / -rate))
        self.average.lerp_(self.values, 1 / torch.minimum(1 + 0.5 * self.n_steps, self._n_averaged))
        if moves is not None:
            for tensor, old in zip(state, kept, strict=True):
                tensor[~moves] = old


def clip(gradient: Float[Tensor, "E P"], norm: Float[Tensor, "E 1"]) -> None:
    """Shorten each row of a gradient that is longer than 1, in place; `norm` is how long they are."""
    gradient.mul_((1 / (norm + 1e-6)).clamp(max=1))
