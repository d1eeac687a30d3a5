"""Component laws: one contract, one registry. A new family is one class in one file and one line in `FAMILIES`."""

from torch.distributions import Distribution

from ..errors import MixturaError
from .base import AnyFamily, Family, ScalarFamily, VectorFamily
from .multivariate_normal import DiagNormalFamily, FullNormalFamily, SphericalNormalFamily
from .normal import NormalFamily

FAMILIES: tuple[AnyFamily, ...] = (
    NormalFamily(),
    FullNormalFamily(),
    DiagNormalFamily(),
    SphericalNormalFamily(),
)
"""Every registered family; the contract tests run over all of them."""


def get_family(family: str | AnyFamily, event_size: int | None = None, covariance_type: str = "full") -> AnyFamily:
    """Turn a name into the registered family for a target of this shape; a family passes through.

    Parameters
    ----------
    family
        A name such as ``"normal"``, or a family, which must suit the target's shape.
    event_size
        None for a scalar target, else the number D of its coordinates.
    covariance_type
        ``"full"``, ``"diag"`` or ``"spherical"``; not used for a scalar target.

    Raises
    ------
    MixturaError
        ``E-family-unknown`` for a name or combination that is not registered.

    Examples
    --------
    >>> get_family("normal"), get_family("normal", event_size=2, covariance_type="diag")
    (normal, normal/diag)
    """
    if isinstance(family, Family):
        if isinstance(family, VectorFamily) == (event_size is not None):
            return family
        got = f"the family {family!r} and event_size={event_size}"
        raise MixturaError("E-family-unknown", got, "a family that suits the target", "name the family by a string")
    wanted = (family, None if event_size is None else covariance_type)
    for candidate in FAMILIES:
        if (candidate.name, candidate.covariance_type) == wanted:
            return candidate
    known = ", ".join(repr(candidate) for candidate in FAMILIES)
    got = f"family={family!r} with covariance_type={covariance_type!r}"
    raise MixturaError("E-family-unknown", got, f"one of {known}", "choose a registered family")


def family_of(components: Distribution) -> AnyFamily:
    """The family that answers for these torch distributions.

    Raises
    ------
    MixturaError
        ``E-family-unknown`` where none is registered for them.
    """
    for candidate in FAMILIES:
        if candidate.owns(components):
            return candidate
    got = f"components of type {type(components).__name__}"
    expected = "Normal, MultivariateNormal or Independent(Normal, 1)"
    raise MixturaError("E-family-unknown", got, expected, "use one of these, or register a family (CONTRIBUTING.md)")


__all__ = ["FAMILIES", "AnyFamily", "Family", "ScalarFamily", "VectorFamily", "family_of", "get_family"]
