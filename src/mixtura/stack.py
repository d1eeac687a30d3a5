"""Many networks of one shape as one: restarts, members of an ensemble, folds."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call

from .mixture import Mixture
from .nets import MDN, MLP, MixtureHead
from .rows import Rows


class Stack:
    """E networks with parameters of the same shapes, each with its own rows.

    The parameters become views of one matrix, `values`, a row for each network: what an optimiser moves. An MLP under
    a `MixtureHead` is worked out for all networks at once by batched matrix products, with its backward pass written
    out; any other backbone through `torch.func.vmap`; and one network after the other where that can't be: where there
    are buffers, parameters without gradient, or networks of another kind.

    Parameters
    ----------
    networks
        Each maps rows (n, p) to a `Mixture` with batch_shape (n,). Their parameters, all of one dtype, are views of
        `values` from here on.
    """

    def __init__(self, networks: Sequence[nn.Module]):
        self.networks = list(networks)
        self._parameters = [[p for p in network.parameters() if p.requires_grad] for network in self.networks]
        shapes = [parameter.shape for parameter in self._parameters[0]]
        sizes = [shape.numel() for shape in shapes]
        self.values = torch.stack([torch.cat([p.detach().reshape(-1) for p in each]) for each in self._parameters])
        for each, row in zip(self._parameters, self.values, strict=True):
            for parameter, part in zip(each, row.split(sizes), strict=True):
                parameter.data = part.view(parameter.shape)
        parts = zip(self.values.split(sizes, 1), shapes, strict=True)
        self._leaves = [part.view(len(self), *shape).requires_grad_() for part, shape in parts]
        self._joint = _at_once(self.networks, self._leaves)

    def __len__(self) -> int:
        return len(self.networks)

    @property
    def is_joint(self) -> bool:
        """Whether the networks are worked out at once."""
        return self._joint is not None

    @property
    def is_matrix(self) -> Bool[Tensor, "P"]:
        """Of each parameter, whether it is of a matrix."""
        return torch.cat([torch.full((p.numel(),), p.ndim >= 2, device=p.device) for p in self._parameters[0]])

    @property
    def units(self) -> Float[Tensor, "E P"]:
        """Of each parameter, how large a step is: see `MixtureHead.start_from`."""
        heads = [module for network in self.networks for module in network.modules() if isinstance(module, MixtureHead)]
        units = {parameter: unit for head in heads for parameter, unit in head.units.items()}
        one = self.values.new_ones(())
        rows = [[units.get(p, one).expand(p.shape).reshape(-1) for p in each] for each in self._parameters]
        return torch.stack([torch.cat(row) for row in rows])

    def train(self, mode: bool = True) -> None:
        """Set all networks to training, or to evaluation."""
        for network in self.networks:
            network.train(mode)

    def nll(self, rows: Rows, present: Bool[Tensor, "E n"] | None = None) -> Float[Tensor, "E n"]:
        """Of each network, the NLL of each of its own rows.

        Parameters
        ----------
        rows
            With axes (E, n, ...).
        present
            Which of them count; what is returned for the others means nothing.
        """
        if self._joint is not None:
            try:
                return rows.nll(self._joint(rows.x))
            except RuntimeError:  # of vmap, which can't follow every backbone: where it is not that, it comes again
                self._joint = None
        found = torch.zeros_like(rows.weight)
        for e, network in enumerate(self.networks):
            here = torch.arange(found.shape[1]) if present is None else present[e].nonzero()[:, 0]
            if len(here):
                own = rows.take((e, here))
                found[e, here] = own.nll(network(own.x))
        return found

    def gradient(self, loss: Float[Tensor, "E"]) -> Float[Tensor, "E P"]:
        """The gradient of each network's loss in its parameters."""
        leaves = self._leaves if self.is_joint else [p for each in self._parameters for p in each]
        parts = torch.autograd.grad(loss.sum(), leaves, materialize_grads=True, allow_unused=True)
        if self.is_joint:
            return torch.cat([part.reshape(len(self), -1) for part in parts], 1)
        return torch.cat([part.reshape(-1) for part in parts]).reshape(self.values.shape)


def _at_once(networks: Sequence[nn.Module], leaves: Sequence[Tensor]) -> Callable[[Tensor], Mixture] | None:
    """From the rows of all networks, (E, n, p), to their mixtures, with batch_shape (E, n); None if it can't be."""
    first = networks[0]
    if not isinstance(first, MDN) or not all(_is_alike(first, network) for network in networks):
        return None
    if type(first.backbone) is MLP:
        return lambda x: first.head.mixture(_Layers.apply(x, *leaves))  # pyright: ignore[reportArgumentType]
    if len(networks) == 1 or any(True for _ in first.backbone.buffers()):
        return None
    names = [name for name, _ in first.backbone.named_parameters()]
    *own, weight, bias = leaves

    def mixture(x: Tensor) -> Mixture:
        def features(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
            return functional_call(first.backbone, parameters, (x,))

        found = torch.vmap(features, randomness="different")(dict(zip(names, own, strict=True)), x)
        return first.head.mixture(found @ weight.mT + bias[:, None])

    return mixture


def _is_alike(first: MDN, other: nn.Module) -> bool:
    """Whether all that distinguishes two networks is their weights, and these are all to be learned."""
    if not isinstance(other, MDN) or not type(first.head) is type(other.head) is MixtureHead:
        return False
    if type(first.backbone) is not type(other.backbone) or not all(p.requires_grad for p in other.parameters()):
        return False
    heads: list[MixtureHead] = [first.head, other.head]
    fixed = [dict(head.named_buffers()) for head in heads]
    return (
        len({(head.family, head.n_components, head.weight_floor) for head in heads}) == 1
        and fixed[0].keys() == fixed[1].keys()
        and all(torch.equal(fixed[0][name], fixed[1][name]) for name in fixed[0])
    )


class _Layers(torch.autograd.Function):
    """Linear layers with SiLU between them, for E networks at once: x (E, n, p), then weight and bias of each layer.

    One node of the graph instead of ten: for small networks autograd's own bookkeeping costs as much as the products.
    """

    @staticmethod
    def forward(ctx, x: Float[Tensor, "E n p"], *parameters: Tensor) -> Float[Tensor, "E n q"]:
        weights, biases = parameters[::2], parameters[1::2]
        ctx.inputs, ctx.outputs, ctx.weights = [], [], weights
        for weight, bias in zip(weights, biases, strict=True):
            if ctx.inputs:
                x = nn.functional.silu(x)
            ctx.inputs.append(x)
            x = torch.baddbmm(bias[:, None], x, weight.mT)
            ctx.outputs.append(x)
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx, slope: Float[Tensor, "E n q"]):  # pyright: ignore[reportIncompatibleMethodOverride]
        found: list[Tensor] = []
        for i in reversed(range(len(ctx.weights))):
            found += [slope.sum(1), slope.mT @ ctx.inputs[i]]
            if i:
                slope = torch.ops.aten.silu_backward(slope @ ctx.weights[i], ctx.outputs[i - 1])
        return None, *reversed(found)
