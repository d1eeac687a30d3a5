"""Components that rows do without: dead ones are started anew where rows are explained worst, or one is removed."""

import copy

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .nets import MDN
from .rows import Rows

_DEAD_SHARE = 0.02
"""Of the share that each component would have if all had the same, below which one is dead."""
_WORST_SHARE, _FEWEST_WORST = 0.05, 10


def responsibilities(network: MDN, rows: Rows) -> Float[Tensor, "n k"]:
    """Of each row, the probability that it came from each component, given its target; what is left is the atoms'."""
    mixture = network(rows.x)
    y = rows.points(network.head.family)
    log_prob = mixture.family.log_prob(mixture.components, y.unsqueeze(1))
    log_joint = mixture.logits[..., : mixture.n_components] + log_prob
    return log_joint.softmax(-1) * ~_is_atom(network, y)[:, None]


def _is_atom(network: MDN, y: Tensor) -> Bool[Tensor, "n"]:
    atoms = network.head.atoms
    return torch.zeros(len(y), dtype=torch.bool) if atoms is None else (y[:, None] == atoms).any(-1)


@torch.no_grad()
def usage(network: MDN, rows: Rows) -> Float[Tensor, "k"]:
    """The share of the rows that each component answers for."""
    shares = responsibilities(network.eval(), rows) * rows.weight[:, None]
    return shares.sum(0) / rows.weight.sum()


def is_dead(usage: Float[Tensor, "k"]) -> Bool[Tensor, "k"]:
    """Which components answer for next to nothing: as good as without gradient, they do not come back by themselves."""
    return len(usage) * usage < _DEAD_SHARE


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
    n_raw, share = head.n_raw, 0.5 / head.n_components
    for k in dead.nonzero()[:, 0].tolist():
        centre = worst[torch.randint(len(worst), (), generator=generator)]
        distance = (y[worst] - y[centre]).reshape(len(worst), -1).norm(dim=-1)
        members = worst[distance.argsort()[: max(2, len(worst) // 2)]]
        component = head.family.fit(y[members], rows.weight[members, None].double())
        raw = head.family.unbuild(component, head.scale_floor.double())[0]
        place = slice(head.n_weights + k * n_raw, head.n_weights + (k + 1) * n_raw)
        for rows_of_head, bias in ((place, raw), (k, raw_logits.logsumexp(-1).mean() + torch.tensor(share).log())):
            head.linear.weight[rows_of_head] = 0
            head.linear.bias[rows_of_head] = bias.to(head.linear.bias)


@torch.no_grad()
def prune(network: MDN, rows: Rows) -> MDN:
    """A copy without the component that these rows miss least; its share of the weight is left to the others.

    Without component k the density at y is p(y) (1 - responsibility_k) / (1 - weight_k).
    """
    network = copy.deepcopy(network).eval()
    head, weights = network.head, network(rows.x).weights[..., : network.head.n_components]
    tiny = torch.finfo(weights.dtype).tiny
    responsibility = responsibilities(network, rows)
    loss = (1 - weights).clamp(min=tiny).log() - (1 - responsibility).clamp(min=tiny).log()
    network.head = head.without(int((loss * rows.weight[:, None]).sum(0).argmin()))
    return network
