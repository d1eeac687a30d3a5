"""Networks: a backbone turns rows into features, a head turns features into a `Mixture`."""

import copy
import math
from collections.abc import Sequence
from itertools import pairwise
from numbers import Integral

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .errors import MixturaError
from .families import AnyFamily, family_of, get_family
from .mixture import Mixture

_DRAWS, _SMALLEST_UNIT = 64, 1e-2
_WIDEST_FREQUENCY, _N_WAVES, _N_OF_WAVES = 0.1, 16, 8


def linear(in_features: int, out_features: int, generator: torch.Generator | None = None) -> nn.Linear:
    """A `torch.nn.Linear` with torch's own initial law, drawn from `generator` rather than the global one."""
    layer = nn.Linear(in_features, out_features, device="meta").to_empty(device=torch.get_default_device())
    bound = 1 / math.sqrt(in_features)
    for parameter in (layer.weight, layer.bias):
        nn.init.uniform_(parameter, -bound, bound, generator=generator)
    return layer


class Periodic(nn.Module):
    """Features, followed by learned functions of each one: linear combinations of waves, rectified.

    A network of smooth layers learns slowly what changes fast along a feature; waves of random length, which are
    learned, too, let it.

    Parameters
    ----------
    n_features
        p.
    places
        Indices of the features that get waves; no waves for those of two values.
    generator
        Source of the initial weights; None takes torch's global one.

    References
    ----------
    Gorishniy, Rubachev and Babenko (2022), On embeddings for numerical features in tabular deep learning.
    """

    places: Tensor

    def __init__(self, n_features: int, places: Tensor, generator: torch.Generator | None = None):
        super().__init__()
        n = len(places)
        self.register_buffer("places", places.clone())
        self.frequency = nn.Parameter(_WIDEST_FREQUENCY * torch.randn(n, _N_WAVES, generator=generator))
        bound = 1 / math.sqrt(2 * _N_WAVES)
        self.weight = nn.Parameter((2 * torch.rand(n, 2 * _N_WAVES, _N_OF_WAVES, generator=generator) - 1) * bound)
        self.bias = nn.Parameter((2 * torch.rand(n, _N_OF_WAVES, generator=generator) - 1) * bound)
        self.out_features = n_features + n * _N_OF_WAVES

    def forward(self, x: Float[Tensor, "*batch p"]) -> Float[Tensor, "*batch q"]:
        """Features and what the waves make of them."""
        return embedded(x, self.places, self.frequency, self.weight, self.bias)


def embedded(x: Tensor, places: Tensor, frequency: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Of rows (*E, n, p) and parameters with axes (*E), the output of a `Periodic`."""
    angle = 2 * math.pi * x[..., places].unsqueeze(-1) * frequency.unsqueeze(-3)
    waves = torch.cat([angle.cos(), angle.sin()], -1)  # (*E, n, places, 2 waves)
    found = (waves.transpose(-2, -3) @ weight).transpose(-2, -3) + bias.unsqueeze(-3)
    return torch.cat([x, found.relu().flatten(-2)], -1)


class MLP(nn.Sequential):
    """A multi-layer perceptron with SiLU activations after every layer.

    Parameters
    ----------
    in_features
        Number of inputs.
    hidden_layer_sizes
        Width of each layer; the last one is the number of features.
    generator
        Source of the initial weights; None takes torch's global one.
    """

    def __init__(self, in_features: int, hidden_layer_sizes: Sequence[int], generator: torch.Generator | None = None):
        sizes = [in_features, *hidden_layer_sizes]
        layers: list[nn.Module] = []
        for size, next_size in pairwise(sizes):
            layers += [linear(size, next_size, generator), nn.SiLU()]
        super().__init__(*layers)
        self.out_features = sizes[-1]


class BatchEnsemble(nn.Module):
    """Members that share an MLP: each sees the features through signs and scales of its own.

    With hardly more parameters than one network they are as good as several, and each is better than one alone, since
    what they share is held in place by all. The head has a layer of its own for each member.

    Parameters
    ----------
    in_features, hidden_layer_sizes, generator
        As for `MLP`.
    n_members
        k.
    places
        As for `Periodic`.

    References
    ----------
    Wen, Tran and Ba (2020), BatchEnsemble. Gorishniy, Kotelnikov and Babenko (2025), TabM, whose "mini" variant it is.
    """

    def __init__(
        self,
        in_features: int,
        hidden_layer_sizes: Sequence[int],
        n_members: int,
        places: Tensor,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        embedding = Periodic(in_features, places, generator)
        signs = torch.randint(2, (n_members, embedding.out_features), generator=generator)
        self.signs = nn.Parameter(2.0 * signs - 1)
        self.embedding = embedding
        self.layers = MLP(embedding.out_features, hidden_layer_sizes, generator)
        self.out_features = self.layers.out_features

    def forward(self, x: Float[Tensor, "*batch p"]) -> Float[Tensor, "*batch k q"]:
        """Features of each member."""
        return self.layers(self.embedding(x).unsqueeze(-2) * self.signs)


class MemberLinear(nn.Module):
    """A linear layer for each of k members.

    Parameters
    ----------
    n_members, in_features, out_features
        k, and what each member's layer takes and returns.
    generator
        Source of the initial weights; None takes torch's global one.
    """

    def __init__(self, n_members: int, in_features: int, out_features: int, generator: torch.Generator | None = None):
        super().__init__()
        layers = [linear(in_features, out_features, generator) for _ in range(n_members)]
        self.weight = nn.Parameter(torch.stack([layer.weight.detach() for layer in layers]))
        self.bias = nn.Parameter(torch.stack([layer.bias.detach() for layer in layers]))
        self.in_features, self.out_features = in_features, out_features

    def forward(self, features: Float[Tensor, "*batch k p"]) -> Float[Tensor, "*batch k q"]:
        """Outputs of each member, from its features."""
        return (features.unsqueeze(-2) @ self.weight.mT).squeeze(-2) + self.bias


class MixtureHead(nn.Module):
    """One linear layer from the features of any backbone to a `Mixture`.

    For M components it has M outputs for the weights (softmax) and M * family.n_raw for the components: 3M in all for
    a scalar normal target, M(1 + D + D(D+1)/2) with full, M(1 + 2D) with diagonal covariance.

    Parameters
    ----------
    in_features
        Number of features.
    n_components
        M.
    event_size
        None for a scalar target, else D.
    family
        As for `get_family`: a name, a family, or one of these for each coordinate.
    covariance_type
        ``"full"``, ``"diag"``, ``"spherical"`` or ``"low_rank"``, for a vector target.
    atoms
        Values with a mass of their own, shape (A,), for a scalar target: A more outputs, for their weights.
    scale_floor
        No scale falls below it, in units of the target; a number or a tensor of shape (D,). It is what keeps
        the likelihood bounded when a component sits on one point.
    weight_floor
        No weight falls below it (0 <= weight_floor < 1/M), so that a component's gradient never vanishes.
    generator
        Source of the initial weights; None takes torch's global one.
    n_members
        None, or k of a `BatchEnsemble`: features and mixtures then have an axis more.

    Raises
    ------
    MixturaError
        ``E-head-parameter`` for values out of range, ``E-family-unknown`` for an unregistered family.

    References
    ----------
    Bishop (1994), Mixture density networks, NCRG/94/004, eqs. 25-27.

    Examples
    --------
    >>> head = MixtureHead(8, n_components=4)
    >>> head.linear.out_features
    12
    >>> head(torch.zeros(5, 8))
    Mixture(normal, n_components=4, batch_shape=(5,), event_shape=())
    """

    scale_floor: Tensor
    atoms: Tensor | None
    units: dict[Tensor, Tensor]
    """Of the layer's parameters, how large a step is, where it is not 1: see `start_from`."""

    def __init__(
        self,
        in_features: int,
        n_components: int,
        event_size: int | None = None,
        family: AnyFamily | str | Sequence[AnyFamily | str] = "normal",
        covariance_type: str = "full",
        atoms: Tensor | None = None,
        scale_floor: Tensor | float = 1e-3,
        weight_floor: float = 1e-4,
        generator: torch.Generator | None = None,
        n_members: int | None = None,
    ):
        super().__init__()
        sizes = {"in_features": in_features, "n_components": n_components, "event_size": event_size}
        for name, size in sizes.items():
            if size is not None and not (isinstance(size, Integral) and int(size) >= 1):
                raise MixturaError("E-head-parameter", f"{name}={size!r}", "an integer >= 1", "check the sizes")
        n_weights = n_components + (0 if atoms is None else len(atoms))
        if not 0 <= weight_floor < 1 / n_weights:
            expected = f"0 <= weight_floor < 1/(components + atoms) = {1 / n_weights:g}"
            raise MixturaError("E-head-parameter", f"weight_floor={weight_floor}", expected, "lower the floor")
        floor = torch.as_tensor(scale_floor, dtype=torch.get_default_dtype(), device="cpu")
        if not bool((floor >= 0).all() & floor.isfinite().all()) or floor.shape not in ((), (event_size,)):
            expected = "finite numbers >= 0, one in all or one for each coordinate"
            raise MixturaError("E-head-parameter", f"scale_floor={scale_floor}", expected, "check sign and length")
        self.family = get_family(family, event_size, covariance_type)
        self.n_components, self.weight_floor = n_components, weight_floor
        self.n_raw = self.family.n_raw(event_size)
        self.n_weights = n_weights
        self.register_buffer("scale_floor", floor)
        self.register_buffer("atoms", atoms)
        self.units = {}
        self.n_members, n_outputs = n_members, n_weights + n_components * self.n_raw
        self.linear: nn.Linear | MemberLinear
        if n_members is None:
            self.linear = linear(in_features, n_outputs, generator)
        else:
            self.linear = MemberLinear(n_members, in_features, n_outputs, generator)

    def forward(self, features: Float[Tensor, "*batch in_features"]) -> Mixture:
        """The mixture predicted for each row of features."""
        return self.mixture(self.linear(features))

    def mixture(self, outputs: Float[Tensor, "*batch n_outputs"]) -> Mixture:
        """The mixture that outputs of the linear layer stand for."""
        raw_logits, raw = self.split(outputs)
        components = self.family.build(raw, self.scale_floor)
        logits = self.floored(raw_logits.log_softmax(-1))
        atoms = None if self.atoms is None else self.atoms.to(logits.dtype).expand(*logits.shape[:-1], -1)
        return Mixture.of_parts(family_of(components), logits, components, atoms)

    def split(self, outputs: Float[Tensor, "*batch n_outputs"]) -> tuple[Tensor, Float[Tensor, "*batch k n_raw"]]:
        """Outputs of the linear layer as raw logits and raw parameters of the components."""
        raw_logits, raw = outputs.split([self.n_weights, self.n_components * self.n_raw], -1)
        return raw_logits, raw.unflatten(-1, (self.n_components, self.n_raw))

    def floored(self, logits: Tensor) -> Tensor:
        """log(floor + (1 - n floor) * weight) of n weights."""
        if self.weight_floor == 0:
            return logits
        share = math.log1p(-self.n_weights * self.weight_floor)
        return torch.logaddexp(logits + share, torch.full_like(logits, math.log(self.weight_floor)))

    @torch.no_grad()
    def without(self, k: int) -> "MixtureHead":
        """A copy that lacks component k."""
        head, is_other = copy.deepcopy(self), torch.arange(self.n_components) != k
        is_kept = torch.cat([is_other, torch.ones(self.n_weights - self.n_components, dtype=torch.bool)])
        is_kept = torch.cat([is_kept, is_other.repeat_interleave(self.n_raw)])
        some = torch.Generator()  # not the global one; what it gives is written over
        head.linear = linear(self.linear.in_features, int(is_kept.sum()), some).to(self.linear.weight)
        head.linear.weight.copy_(self.linear.weight[is_kept])
        head.linear.bias.copy_(self.linear.bias[is_kept])
        head.n_components, head.n_weights = self.n_components - 1, self.n_weights - 1
        if self.units:
            head._set_units(self.units[self.linear.bias][is_kept])
        return head

    @torch.no_grad()
    def start_from(self, mixture: Mixture, gain: float = 0.01) -> None:
        """Make the head predict about `mixture` for every row, so that training starts near the marginal density of y.

        It also sets `units`: of parameters of a component that is narrow beside the others, steps are smaller.

        Parameters
        ----------
        mixture
            One mixture (no batch axes) of this head's family with its n_components.
        gain
            Factor on the weight matrix; what is left of it must stay small beside the narrowest component.

        Raises
        ------
        MixturaError
            ``E-head-parameter`` for a mixture of another family or number of components or atoms.
        """
        sizes = (mixture.n_components, mixture.n_components + mixture.n_atoms)
        is_alike = sizes == (self.n_components, self.n_weights) and self.family.owns(mixture.components)
        raw = self.family.unbuild(mixture.components, self.scale_floor) if is_alike else torch.empty(0)
        if mixture.batch_shape or raw.shape[-1:] != (self.n_raw,):
            expected = f"one mixture of {self.n_components} components of {self.family!r} and as many atoms"
            raise MixturaError("E-head-parameter", f"{mixture!r}", expected, "make it with this head's family")
        weights = (mixture.weights - self.weight_floor).clamp(min=1e-6 / self.n_weights)
        self.linear.bias.copy_(torch.cat([weights.log(), raw.flatten()]))
        self.linear.weight.mul_(gain)
        self.set_units(raw)

    def set_units(self, raw: Float[Tensor, "k n_raw"]) -> None:
        """Make steps of a component smaller where, by its raw parameters, it is narrow beside the others."""
        self._set_units(torch.cat([torch.ones(self.n_weights), self._units(raw).flatten()]).to(self.linear.bias))

    def _set_units(self, units: Float[Tensor, "n_outputs"]) -> None:
        self.units = {self.linear.weight: units[:, None], self.linear.bias: units}

    @torch.enable_grad()
    def _units(self, raw: Float[Tensor, "k n_raw"]) -> Float[Tensor, "k n_raw"]:
        """How far each raw parameter may move in a step, at most 1: less where a component is narrower than others.

        From the diagonal of the Fisher information, E[(d log p / d raw)^2], by draws: its inverse root is how far a
        parameter has to move to matter, such as the scale for a loc. The root of that, relative to the component with
        the largest, keeps a spike where it is (steps of one size throw it off) and the others fast.
        """
        raw = raw.detach().double().requires_grad_()
        components = self.family.build(raw, self.scale_floor.double())
        fixed, generator = self.family.map(components, Tensor.detach), torch.Generator(raw.device).manual_seed(0)
        information = torch.zeros_like(raw)
        for _ in range(_DRAWS):
            log_prob = self.family.log_prob(components, self.family.sample(fixed, generator))
            (slope,) = torch.autograd.grad(log_prob.sum(), raw, retain_graph=True)
            information += slope.nan_to_num(0, 0, 0).square() / _DRAWS
        size = information.clamp(min=1e-12).rsqrt()
        return (size / size.amax(0)).sqrt().clamp(min=_SMALLEST_UNIT)


class MDN(nn.Module):
    """A mixture density network: a backbone, then a head.

    Parameters
    ----------
    backbone
        Any module from rows (n, p) to features (n, in_features of the head).
    head
        From features to a `Mixture`.

    References
    ----------
    Bishop (1994), Mixture density networks, NCRG/94/004.

    Examples
    --------
    >>> network = MDN(MLP(3, (16,)), MixtureHead(16, n_components=2))
    >>> network(torch.zeros(4, 3))
    Mixture(normal, n_components=2, batch_shape=(4,), event_shape=())
    """

    def __init__(self, backbone: nn.Module, head: MixtureHead):
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, rows: Float[Tensor, "*batch p"]) -> Mixture:
        """The mixture predicted for each row; that of all members, where there are some."""
        mixture = self.head(self.backbone(rows))
        return mixture if self.head.n_members is None else _pooled(mixture)

    def of_members(self, rows: Float[Tensor, "*batch p"]) -> Mixture:
        """The mixture that each member predicts for each row, batch_shape (*batch, k); k = 1 where there are none."""
        features = self.backbone(rows)
        return self.head(features.unsqueeze(-2) if self.head.n_members is None else features)


def _pooled(mixture: Mixture) -> Mixture:
    """The mixture of the members' mixtures, which are along the last axis; an atom has the mean of its masses."""
    logits, place = mixture.logits - math.log(mixture.batch_shape[-1]), len(mixture.batch_shape) - 1
    k = mixture.n_components
    parts = [logits[..., :k].flatten(-2)]
    if mixture.atoms is not None:
        parts.append(logits[..., k:].logsumexp(-2))
    components = mixture.family.map(mixture.components, lambda part: part.flatten(place, place + 1))
    atoms = None if mixture.atoms is None else mixture.atoms[..., 0, :]
    return Mixture.of_parts(mixture.family, torch.cat(parts, -1), components, atoms)
