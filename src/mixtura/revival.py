"""Components that rows do without: dead ones are started anew where rows are explained worst, or one is removed."""

import copy
import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .mixture import Mixture
from .nets import MDN
from .rows import Rows

_DEAD_SHARE = 0.02
"""Of the share that each component would have if all had the same, below which one is dead."""
_WORST_SHARE, _FEWEST_WORST = 0.05, 10


def responsibilities(network: MDN, rows: Rows) -> Float[Tensor, "n k"]:
    """Of each row, the probability that it came from each component, given its target; what is left is the atoms'."""
    mixture = network(rows.x)
    upper = None if rows.upper is None else rows.upper.unsqueeze(1)
    of_each = Rows(rows.x, rows.y.unsqueeze(1), rows.weight.unsqueeze(1), upper).nll(mixture.split())
    log_joint = mixture.logits[..., : mixture.n_components] - of_each
    found = (log_joint + rows.nll(mixture).unsqueeze(1)).exp().nan_to_num(0, 0, 0)
    return found * ~_is_atom(network, rows.points(network.head.family))[:, None]


def _is_atom(network: MDN, y: Tensor) -> Bool[Tensor, "n"]:
    atoms = network.head.atoms
    return torch.zeros(len(y), dtype=torch.bool) if atoms is None else (y[:, None] == atoms).any(-1)


@torch.no_grad()
def usage(network: MDN, rows: Rows) -> Float[Tensor, "k"]:
    """The share of the rows that each component answers for, of those that the atoms leave."""
    shares = (responsibilities(network.eval(), rows) * rows.weight[:, None]).sum(0)
    return shares / shares.sum().clamp(min=torch.finfo(shares.dtype).tiny)


def is_dead(usage: Float[Tensor, "k"]) -> Bool[Tensor, "k"]:
    """Which components answer for next to nothing: as good as without gradient, they do not come back by themselves.

    None is where all rows are at atoms.
    """
    return (len(usage) * usage < _DEAD_SHARE) & bool(usage.sum() > 0)


@torch.no_grad()
def revive(network: MDN, dead: Bool[Tensor, "k"], rows: Rows, generator: torch.Generator) -> None:
    """Start dead components anew, with half of an equal share of the weight, each at some of the worst-explained rows.

    Each is the family's own fit to half of the worst 5% of the rows, those nearest to one of them chosen at random;
    `unbuild` turns it into the head's biases.
    """
    head = network.head
    y = rows.points(head.family)
    loss = rows.nll(network.eval()(rows.x)).nan_to_num(-torch.inf) * rows.weight
    loss, y = torch.where(_is_atom(network, y), -torch.inf, loss), y.double()
    worst = loss.topk(min(len(rows), max(_FEWEST_WORST, int(_WORST_SHARE * len(rows))))).indices
    raw_logits, _ = head.split(head.linear(network.backbone(rows.x)))
    level = raw_logits.logsumexp(-1).mean(0) + math.log(0.5 / head.n_components)  # of each member, if there are some
    n_outputs, n_raw = head.linear.out_features, head.n_raw
    weight, bias = head.linear.weight.view(-1, n_outputs, head.linear.in_features), head.linear.bias.view(-1, n_outputs)
    for place in dead.nonzero()[:, 0].tolist():
        member, k = divmod(place, head.n_components)
        centre = worst[torch.randint(len(worst), (), generator=generator)]
        distance = (y[worst] - y[centre]).reshape(len(worst), -1).norm(dim=-1)
        members = worst[distance.argsort()[: max(2, len(worst) // 2)]]
        component = head.family.fit(y[members], rows.weight[members, None].double())
        raw = head.family.unbuild(component, head.scale_floor.double())[0]
        first = head.n_weights + k * n_raw
        for outputs, value in ((slice(first, first + n_raw), raw), (k, level.reshape(-1)[member])):
            weight[member, outputs] = 0
            bias[member, outputs] = value.to(bias)


@torch.no_grad()
def prune(network: MDN, rows: Rows) -> MDN:
    """A copy without the component that these rows miss least; its share of the weight is left to the others."""
    network = copy.deepcopy(network).eval()
    mixture, rows = network(rows.x).to(torch.float64), rows.double()
    losses = []
    for k in range(mixture.n_components):
        is_left = torch.arange(mixture.n_components) != k
        components = mixture.family.map(mixture.components, lambda part, is_left=is_left: part[:, is_left])
        logits = torch.cat([mixture.logits[:, : len(is_left)][:, is_left], mixture.logits[:, len(is_left) :]], 1)
        losses.append((rows.nll(Mixture(logits, components, mixture.atoms, validate_args=False)) * rows.weight).sum())
    network.head = network.head.without(int(torch.stack(losses).argmin()))
    return network
