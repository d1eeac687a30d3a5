"""AdamW on a matrix of parameters, a row for each network: a step is ten operations, however many."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor

_BETAS, _EPS, _LONGEST, _LEAST_RATE = (0.9, 0.999), 1e-8, 1.0, 1e-30


class AdamW:
    """Adam with decoupled weight decay, for E networks at once; it also averages the way that the parameters take.

    Gradients longer than 1 are shortened to that. The average over the last steps is what to judge and to keep: steps
    of one size circle around an optimum, and their mean is nearer to it than any of them.

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
        About how many steps the average is over, of each network.

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
        n_averaged: Sequence[float],
    ):
        self.values, self._decay, self._units = values, decay, units
        self.mean, self.square = torch.zeros_like(values), torch.zeros_like(values)
        self.average, self._n_averaged = values.clone(), list(n_averaged)
        self.n_steps = [0] * len(values)

    def state(self) -> dict[str, Tensor]:
        """What steps go on from, but for the parameters."""
        return {
            "mean": self.mean,
            "square": self.square,
            "average": self.average,
            "n_steps": torch.tensor(self.n_steps),
        }

    def go_on(self, state: dict[str, Tensor]) -> None:
        """From what `state` returned."""
        for name in ("mean", "square", "average"):
            getattr(self, name).copy_(state[name])
        self.n_steps = state["n_steps"].tolist()

    def restart(self, e: int) -> None:
        """Forget what a network has gone through so far; it is where `values` say."""
        self.mean[e] = self.square[e] = 0
        self.average[e], self.n_steps[e] = self.values[e], 0

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
        self.mean, self.square, self.average = self.mean[left], self.square[left], self.average[left]
        self._n_averaged, self.n_steps = ([part[e] for e in left] for part in (self._n_averaged, self.n_steps))

    @torch.no_grad()
    def step(self, gradient: Float[Tensor, "E P"], rates: Sequence[float], norms: Sequence[float]) -> list[bool]:
        """Move the parameters at these rates, but not those of networks whose gradient is not finite.

        Parameters
        ----------
        gradient
            Changed in place.
        norms
            The lengths of its rows.

        Returns
        -------
        Which networks have moved.
        """
        moves = [math.isfinite(norm) for norm in norms]
        state = self.values, self.mean, self.square, self.average
        still = [e for e, is_moving in enumerate(moves) if not is_moving]
        kept = [tensor[still] for tensor in state] if still else []
        if any(norm > _LONGEST for norm in norms):
            gradient.mul_(gradient.new_tensor([[min(1.0, _LONGEST / (norm + 1e-6))] for norm in norms]))
        self.n_steps = [n + is_moving for n, is_moving in zip(self.n_steps, moves, strict=True)]
        per_network = []
        for rate, n, n_averaged in zip(rates, self.n_steps, self._n_averaged, strict=True):
            of_mean, of_square = (1 - beta ** max(1, n) for beta in _BETAS)
            factor = -of_mean / max(rate, _LEAST_RATE)
            per_network.append((-rate, factor * of_square**-0.5, factor * _EPS, 1 / min(1 + 0.5 * n, n_averaged)))
        down, per_root, least, share = gradient.new_tensor(per_network).T.unsqueeze(-1)
        self.mean.lerp_(gradient, 1 - _BETAS[0])
        self.square.mul_(_BETAS[1]).addcmul_(gradient, gradient, value=1 - _BETAS[1])
        self.values.addcmul_(self.values * self._decay, down)
        self.values.addcdiv_(self.mean * self._units, torch.addcmul(least, self.square.sqrt(), per_root))
        self.average.lerp_(self.values, share)
        for tensor, old in zip(state, kept, strict=False):
            tensor[still] = old
        return moves
