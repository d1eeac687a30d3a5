"""Many networks of one shape as one: restarts, members of an ensemble, folds."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.func import functional_call

from .nets import MDN, MLP, BatchEnsemble, MixtureHead, embedded
from .rows import Rows


class Stack:
    """E networks with parameters of the same shapes, each with its own rows.

    The parameters become views of one matrix, `values`, a row for each network: what an optimiser moves. An MLP under
    a `MixtureHead` is worked out for all networks at once by batched matrix products, with the backward pass written
    out: for small networks the bookkeeping of automatic differentiation costs more than the products. Any other
    backbone goes through `torch.func.vmap`; and one network after the other where that can't be: where there are
    buffers, parameters without gradient, or networks of another kind.

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
        self._stacked = [part.view(len(self), *shape) for part, shape in parts]
        self._layers, self._features = None, None
        first = self.networks[0]
        if isinstance(first, MDN) and all(_is_alike(first, network) for network in self.networks):
            if type(first.backbone) is MLP and first.head.n_members is None:
                self._layers = _Layers(self._stacked)
            elif type(first.backbone) is BatchEnsemble:
                self._layers = _Members(self._stacked, first.backbone.embedding.places)
            elif len(self) > 1 and not any(True for _ in first.backbone.buffers()):
                self._features = _vmapped(first.backbone)

    def __len__(self) -> int:
        return len(self.networks)

    @property
    def is_joint(self) -> bool:
        """Whether the networks are worked out at once."""
        return self._layers is not None or self._features is not None

    @property
    def n_members(self) -> int:
        """How many mixtures each network makes of a row."""
        return 1 if self._layers is None else self._layers.n_members

    @property
    def is_matrix(self) -> Bool[Tensor, "P"]:
        """Of each parameter, whether it is of a matrix of weights."""
        named = [(name, p) for name, p in self.networks[0].named_parameters() if p.requires_grad]
        are = [p.ndim >= 2 and "weight" in name.rsplit(".")[-1] for name, p in named]
        return torch.cat([torch.full((p.numel(),), is_one) for is_one, (_, p) in zip(are, named, strict=True)])

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

    def nll(self, rows: Rows) -> Float[Tensor, "E n"]:
        """Of each network, the NLL of its own rows, which have axes (E, n, ...); anything for rows of weight 0."""
        head: MixtureHead = self.networks[0].head if self.is_joint else None  # pyright: ignore
        if self._layers is not None:
            outputs = self._layers.forward(rows.x)
            found = _nll(head, outputs, self._for_members(rows)).unflatten(0, (len(self), -1))
            return math.log(found.shape[1]) - torch.logsumexp(-found, 1)
        if self._features is not None:
            try:
                *backbone, weight, bias = self._stacked
                return rows.nll(head.mixture(self._features(backbone, rows.x) @ weight.mT + bias[:, None]))
            except RuntimeError:  # vmap can't follow every backbone; any other error comes again
                self._features = None
        found = torch.zeros_like(rows.weight)
        for e, network in enumerate(self.networks):
            here = (rows.weight[e] > 0).nonzero()[:, 0]
            if len(here):
                own = rows.take((e, here))
                found[e, here] = own.nll(network(own.x))
        return found

    def _for_members(self, rows: Rows) -> Rows:
        """The rows once for each member, (E k, n), each of which has an equal share of the weight."""
        if self.n_members == 1:
            return rows
        again = rows.take(torch.arange(len(self)).repeat_interleave(self.n_members))
        return replace(again, weight=again.weight / self.n_members)

    def loss_and_gradient(self, rows: Rows) -> tuple[Float[Tensor, "E"], Float[Tensor, "E P"]]:
        """Of each network, the weighted sum of its rows' NLLs, and the gradient of that in its parameters."""
        if self._layers is not None:
            head: MixtureHead = self.networks[0].head  # pyright: ignore
            with torch.no_grad():
                outputs = self._layers.forward(rows.x)
                rows = self._for_members(rows)
                values, slope = nll_and_slope(head, outputs, rows)
                loss = (values * rows.weight).reshape(len(self), -1).sum(1)
                return loss, self._layers.backward(slope.mul_(rows.weight.unsqueeze(-1)))
        for stacked in self._stacked:
            stacked.requires_grad_(self.is_joint)
        loss = (self.nll(rows) * rows.weight).sum(1)
        if self.is_joint:
            parts = torch.autograd.grad(loss.sum(), self._stacked, materialize_grads=True, allow_unused=True)
            return loss.detach(), torch.cat([part.reshape(len(self), -1) for part in parts], 1)
        every = [parameter for each in self._parameters for parameter in each]
        parts = torch.autograd.grad(loss.sum(), every, materialize_grads=True, allow_unused=True)
        return loss.detach(), torch.cat([part.reshape(-1) for part in parts]).reshape(self.values.shape)


class _Layers:
    """Linear layers with SiLU between them, for E networks at once; weight and bias of each layer in turn.

    The last may be that of members: it has axes (E, k, ...), and the rows of members follow each other, (E, k n, p).
    """

    n_members = 1

    def __init__(self, parameters: Sequence[Tensor]):
        self._parameters, self._n = parameters, len(parameters[0])

    def forward(self, x: Float[Tensor, "E n p"]) -> Float[Tensor, "Ek n q"]:
        """What comes out at the end; `backward` is about the last call."""
        self._inputs, self._outputs = [], []
        # Members' layers as layers of so many networks: a copy, since parameters are views of the rows of a matrix.
        self._weights = [weight.reshape(-1, *weight.shape[-2:]) for weight in self._parameters[::2]]
        biases = [bias.reshape(-1, bias.shape[-1]) for bias in self._parameters[1::2]]
        for weight, bias in zip(self._weights, biases, strict=True):
            if self._outputs:
                x = nn.functional.silu(x)
            x = x.reshape(len(weight), -1, x.shape[-1])
            self._inputs.append(x)
            x = torch.baddbmm(bias[:, None], x, weight.mT)
            self._outputs.append(x)
        return x

    def backward(self, slope: Float[Tensor, "Ek n q"]) -> Float[Tensor, "E P"]:
        """The derivative in all parameters, from that in what came out."""
        return torch.cat(self._derivatives(slope)[0], 1)

    def _derivatives(self, slope: Tensor, of_input: bool = False) -> tuple[list[Tensor], Tensor]:
        """That in each parameter, (E, ...) each, and in what came in."""
        found: list[Tensor] = []
        for i in reversed(range(len(self._weights))):
            found += [slope.sum(1), torch.bmm(slope.mT, self._inputs[i])]
            if i:
                slope = torch.bmm(slope, self._weights[i]).view_as(self._outputs[i - 1])
                slope = torch.ops.aten.silu_backward(slope, self._outputs[i - 1])
            elif of_input:
                slope = torch.bmm(slope, self._weights[0])
        return [part.reshape(self._n, -1) for part in found[::-1]], slope


class _Members(_Layers):
    """A `BatchEnsemble`: signs, the waves, then layers. The waves are left to automatic differentiation."""

    def __init__(self, parameters: Sequence[Tensor], places: Tensor):
        self._signs, *self._waves = parameters[:4]
        super().__init__(parameters[4:])
        self._places, self.n_members = places, self._signs.shape[1]

    def forward(self, x: Float[Tensor, "E n p"]) -> Float[Tensor, "Ek n q"]:
        with torch.enable_grad():
            self._leaves = [part.detach().requires_grad_() for part in self._waves]
            self._embedded = embedded(x, self._places, *self._leaves)
        each = self._embedded.detach().unsqueeze(1) * self._signs.unsqueeze(2)
        return super().forward(each.flatten(1, 2))

    def backward(self, slope: Float[Tensor, "Ek n q"]) -> Float[Tensor, "E P"]:
        found, slope = self._derivatives(slope, of_input=True)
        slope = slope.reshape(self._n, self.n_members, -1, slope.shape[-1])
        of_signs = (slope * self._embedded.detach().unsqueeze(1)).sum(2)
        of_embedded = (slope * self._signs.unsqueeze(2)).sum(1)
        of_waves = torch.autograd.grad(self._embedded, self._leaves, of_embedded)
        return torch.cat([part.reshape(self._n, -1) for part in (of_signs, *of_waves)] + found, 1)


def _vmapped(backbone: nn.Module) -> Callable[[Sequence[Tensor], Tensor], Tensor]:
    """From stacked parameters of networks like this one, and their rows (E, n, p), to features (E, n, q)."""
    names = [name for name, _ in backbone.named_parameters()]

    def features(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(backbone, parameters, (x,))

    joint = torch.vmap(features, randomness="different")
    return lambda parameters, x: joint(dict(zip(names, parameters, strict=True)), x)


def _is_alike(first: MDN, other: nn.Module) -> bool:
    """Whether all that distinguishes two networks is their weights, and these are all to be learned."""
    if not isinstance(other, MDN) or not type(first.head) is type(other.head) is MixtureHead:
        return False
    if type(first.backbone) is not type(other.backbone) or not all(p.requires_grad for p in other.parameters()):
        return False
    heads: list[MixtureHead] = [first.head, other.head]
    fixed = [dict(network.named_buffers()) for network in (first, other)]
    return (
        len({(head.family, head.n_components, head.weight_floor, head.n_members) for head in heads}) == 1
        and fixed[0].keys() == fixed[1].keys()
        and all(torch.equal(fixed[0][name], fixed[1][name]) for name in fixed[0])
    )


def _shares_and_slopes(
    head: MixtureHead, outputs: Float[Tensor, "E n q"], rows: Rows
) -> tuple[Float[Tensor, "E k n"], Float[Tensor, "E k n"], Float[Tensor, "E k n n_raw"]] | None:
    """Logits without their floor, log densities of components and derivatives of these; None without a closed form."""
    if rows.upper is not None or head.atoms is not None:
        return None
    # Rows last in memory: over a few components, sums along the last axis would take five times as long.
    raw_logits, raw = head.split(outputs.mT.contiguous().mT)
    found = head.family.log_prob_and_slopes(raw.movedim(1, 2), head.scale_floor, rows.y.unsqueeze(1))
    return None if found is None else (raw_logits.mT.log_softmax(1), *found)


def _nll(head: MixtureHead, outputs: Float[Tensor, "E n q"], rows: Rows) -> Float[Tensor, "E n"]:
    """NLL of rows under the mixtures of outputs; in closed form, if any: faster, though derivatives come with it."""
    found = _shares_and_slopes(head, outputs, rows)
    if found is None:
        return rows.nll(head.mixture(outputs))
    log_shares, log_prob, _ = found
    return -(head.floored(log_shares) + log_prob).logsumexp(1)


def nll_and_slope(
    head: MixtureHead, outputs: Float[Tensor, "E n q"], rows: Rows
) -> tuple[Float[Tensor, "E n"], Float[Tensor, "E n q"]]:
    """NLL of rows under the mixtures that a head makes of outputs, and its derivative in them.

    In closed form where the family has one: with responsibilities r, d/d log p_k = -r_k and d/d logits = weights - r
    (Bishop 1994, eqs. 32 and 33); with a floor under the weights, r in the latter becomes r * (1 - floor / weight).
    """
    found = _shares_and_slopes(head, outputs, rows)
    if found is None:
        outputs = outputs.detach().requires_grad_()
        with torch.enable_grad():
            values = rows.nll(head.mixture(outputs))
            (slope,) = torch.autograd.grad(values.sum(), outputs)
        return values.detach(), slope
    log_shares, log_prob, slopes = found
    joint = head.floored(log_shares) + log_prob
    log_density = joint.logsumexp(1, keepdim=True)
    responsibility = joint.sub_(log_density).exp_()
    own = responsibility
    if head.weight_floor:
        own = torch.sub(own, log_prob.sub_(log_density).exp_(), alpha=head.weight_floor)
    of_logits = log_shares.exp_().mul_(own.sum(1, keepdim=True)).sub_(own)
    of_raw = slopes.mul_(responsibility.neg_().unsqueeze(-1)).movedim(-1, 2).flatten(1, 2)
    return log_density[:, 0].neg_(), torch.cat([of_logits, of_raw], 1).mT
