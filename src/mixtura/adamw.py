"""AdamW on one flat vector: a step is a handful of operations, however many parameters a network has."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn


class AdamW:
    """Adam with decoupled weight decay, on matrices only; gradients are clipped at norm 1.

    The network's parameters become views of one vector, `values`, which is what a step moves and what is kept to go
    back to. torch's own optimisers do the same arithmetic; importing their machinery takes 3 s, and a step of a small
    network twice as long.

    Parameters
    ----------
    network
        Its parameters, all of one dtype, are changed in place; those without gradient stay.
    weight_decay
        Per step, times the rate.
    units
        Of some parameters, factors on their steps, which broadcast to them.

    References
    ----------
    Loshchilov and Hutter (2019), Decoupled weight decay regularization, algorithm 2.
    """

    def __init__(
        self,
        network: nn.Module,
        weight_decay: float,
        units: Mapping[Tensor, Tensor],
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ):
        self.parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self.betas, self.eps = betas, eps
        sizes = [parameter.numel() for parameter in self.parameters]
        self.values = torch.cat([parameter.detach().reshape(-1) for parameter in self.parameters])
        decay = [weight_decay if parameter.ndim >= 2 else 0.0 for parameter in self.parameters]
        self._decay = torch.repeat_interleave(self.values.new_tensor(decay), torch.tensor(sizes))
        one = self.values.new_ones(())
        self._units = torch.cat([units.get(p, one).expand(p.shape).reshape(-1) for p in self.parameters])
        for parameter, part in zip(self.parameters, self.values.split(sizes), strict=True):
            parameter.data = part.view(parameter.shape)
        self.restart()

    def restart(self) -> None:
        """Forget the gradients seen so far."""
        self.n_steps = 0
        self._mean, self._square = torch.zeros_like(self.values), torch.zeros_like(self.values)

    def gradient(self, loss: Tensor) -> tuple[Float[Tensor, "n"], Tensor]:
        """The gradient of a loss in all parameters, clipped, and its norm before that, which shows NaN and infinity."""
        parts = torch.autograd.grad(loss, self.parameters, materialize_grads=True, allow_unused=True)
        gradient = torch.cat([part.reshape(-1) for part in parts])
        norm = torch.linalg.vector_norm(gradient)
        return gradient.mul_((1 / (norm + 1e-6)).clamp(max=1)), norm

    @torch.no_grad()
    def step(self, gradient: Float[Tensor, "n"], rate: float) -> None:
        """Move the parameters."""
        self.n_steps += 1
        first, second = self.betas
        self._mean.lerp_(gradient, 1 - first)
        self._square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
        scale = (self._square / (1 - second**self.n_steps)).sqrt_().add_(self.eps)
        self.values.addcmul_(self.values, self._decay, value=-rate)
        self.values.addcdiv_(self._mean * self._units, scale, value=-rate / (1 - first**self.n_steps))
