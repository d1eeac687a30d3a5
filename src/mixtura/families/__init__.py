"""Component laws: one contract, one registry. A new family is one class in one file and one line in `FAMILIES`."""

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

from torch.distributions import Distribution, ExpTransform, SigmoidTransform, Transform

from ..errors import MixturaError
from .base import AnyFamily, BoundedFamily, Family, ScalarFamily, VectorFamily
from .beta import BetaFamily, ScaledBeta
from .counts import NegativeBinomialFamily, PoissonFamily
from .gamma import GammaFamily
from .laplace import AsymmetricLaplace, AsymmetricLaplaceFamily, LaplaceFamily
from .logistic import Logistic, LogisticFamily
from .lognormal import LogNormalFamily
from .low_rank import LowRankNormal, LowRankNormalFamily
from .multivariate_normal import DiagNormalFamily, FullNormalFamily, SphericalNormalFamily
from .multivariate_student_t import MultivariateStudentT, MultivariateStudentTFamily
from .normal import NormalFamily
from .product import Product, ProductFamily
from .student_t import StudentTFamily
from .truncated_normal import TruncatedNormal, TruncatedNormalFamily
from .von_mises import VonMises, VonMisesFamily
from .warped import BoxCoxTransform, Warped, WarpedFamily

FAMILIES: tuple[AnyFamily, ...] = (
    NormalFamily(),
    LaplaceFamily(),
    AsymmetricLaplaceFamily(),
    LogisticFamily(),
    LogNormalFamily(),
    StudentTFamily(),
    GammaFamily(),
    BetaFamily(),
    PoissonFamily(),
    NegativeBinomialFamily(),
    TruncatedNormalFamily(),
    VonMisesFamily(),
    WarpedFamily(),
    FullNormalFamily(),
    DiagNormalFamily(),
    SphericalNormalFamily(),
    LowRankNormalFamily(),
    MultivariateStudentTFamily(),
    ProductFamily((GammaFamily(), VonMisesFamily())),
)
"""Every registered family; the contract tests run over all of them."""


def get_family(
    family: str | AnyFamily | Sequence[str | AnyFamily], event_size: int | None = None, covariance_type: str = "full"
) -> AnyFamily:
    """Turn a name into the registered family for a target of this shape; a family passes through.

    Parameters
    ----------
    family
        A name such as ``"normal"``, or a family, which must suit the target's shape, or for a vector target a
        sequence of these for scalars, one for each coordinate: they are then independent within a component.
    event_size
        None for a scalar target, else the number D of its coordinates.
    covariance_type
        ``"full"``, ``"diag"``, ``"spherical"`` or ``"low_rank"`` (of rank 1; for another give
        ``LowRankNormalFamily(rank)`` as the family); not used for a scalar target, nor where the family is none of a
        single name. ``"diag"`` is there for each name of a scalar family.

    Raises
    ------
    MixturaError
        ``E-family-unknown`` for a name or combination that is not registered.

    Examples
    --------
    >>> get_family("normal"), get_family("normal", event_size=2, covariance_type="diag")
    (normal, normal/diag)
    >>> get_family("student_t", event_size=2, covariance_type="diag")
    product/diag(families=(student_t, student_t))
    >>> get_family(["normal", "student_t"], event_size=2)
    product/diag(families=(normal, student_t))
    """
    if isinstance(family, Sequence) and not isinstance(family, str):
        family = ProductFamily(tuple(get_family(part) for part in family))  # pyright: ignore[reportArgumentType]
    if isinstance(family, Family):
        suits = isinstance(family, VectorFamily) == (event_size is not None)
        if suits and (not isinstance(family, ProductFamily) or len(family.families) == event_size):
            return family
        got = f"the family {family!r} and event_size={event_size}"
        fix = "name the family by a string, or one for each coordinate"
        raise MixturaError("E-family-unknown", got, "a family that suits the target", fix)
    named = {candidate.covariance_type: candidate for candidate in FAMILIES if candidate.name == family}
    wanted = None if event_size is None else covariance_type
    if wanted in named and family != ProductFamily.name:
        return named[wanted]
    scalar = named.get(None)
    if event_size is not None and covariance_type == "diag" and isinstance(scalar, ScalarFamily):
        return ProductFamily((scalar,) * event_size)
    known = ", ".join(sorted({candidate.name for candidate in FAMILIES} - {ProductFamily.name, WarpedFamily.name}))
    got = f"family={family!r} with covariance_type={covariance_type!r}"
    fix = "choose a registered family" if scalar is None else "take covariance_type='diag'"
    raise MixturaError("E-family-unknown", got, f"one of {known}", fix)


def describe(family: AnyFamily) -> dict[str, Any]:
    """A family as JSON can hold it.

    Raises
    ------
    MixturaError
        ``E-save-family`` for a `WarpedFamily` with a transform other than `ExpTransform`, `SigmoidTransform` or the
        inverse of `BoxCoxTransform`.
    """
    options: dict[str, Any] = {}
    for name, value in ((field.name, getattr(family, field.name)) for field in fields(family)):
        if isinstance(value, Family):
            options[name] = describe(value)
        elif isinstance(value, Transform):
            options[name] = _describe_transform(value)
        elif isinstance(value, tuple):
            options[name] = [describe(part) if isinstance(part, Family) else part for part in value]
        else:
            options[name] = value
    return {"family": type(family).__name__, **options}


def from_description(description: dict[str, Any]) -> AnyFamily:
    """The family that `describe` described."""

    def restore(value: Any) -> Any:
        if isinstance(value, list):
            return tuple(restore(part) for part in value)
        if isinstance(value, dict):
            return from_description(value) if "family" in value else _TRANSFORMS[value["transform"]](*value["options"])
        return value

    kinds = {type(family).__name__: type(family) for family in FAMILIES}
    options = {name: restore(value) for name, value in description.items() if name != "family"}
    return kinds[description["family"]](**options)


_TRANSFORMS: dict[str, Callable[..., Transform]] = {
    "exp": ExpTransform,
    "sigmoid": SigmoidTransform,
    "inverse box-cox": lambda lmbda: BoxCoxTransform(lmbda).inv,
}


def _describe_transform(transform: Transform) -> dict[str, Any]:
    if isinstance(transform.inv, BoxCoxTransform):
        return {"transform": "inverse box-cox", "options": [transform.inv.lmbda]}
    for name, kind in _TRANSFORMS.items():
        if type(transform) is kind:
            return {"transform": name, "options": []}
    raise MixturaError("E-save-family", f"the transform {transform}", "exp, sigmoid or Box-Cox", "save its base alone")


def family_of(components: Distribution) -> AnyFamily:
    """The family that answers for these torch distributions.

    Raises
    ------
    MixturaError
        ``E-family-unknown`` where none is registered for them.
    """
    for candidate in FAMILIES:
        if candidate.owns(components):
            return candidate.of(components, family_of)
    got = f"components of type {type(components).__name__}"
    fix = "see the families' own laws, or register a family (CONTRIBUTING.md)"
    raise MixturaError("E-family-unknown", got, "the law of a registered family, such as Normal", fix)


__all__ = [
    "FAMILIES",
    "AnyFamily",
    "AsymmetricLaplace",
    "AsymmetricLaplaceFamily",
    "BetaFamily",
    "BoundedFamily",
    "BoxCoxTransform",
    "DiagNormalFamily",
    "Family",
    "FullNormalFamily",
    "GammaFamily",
    "LaplaceFamily",
    "LogNormalFamily",
    "Logistic",
    "LogisticFamily",
    "LowRankNormal",
    "LowRankNormalFamily",
    "MultivariateStudentT",
    "MultivariateStudentTFamily",
    "NegativeBinomialFamily",
    "NormalFamily",
    "PoissonFamily",
    "Product",
    "ProductFamily",
    "ScalarFamily",
    "ScaledBeta",
    "SphericalNormalFamily",
    "StudentTFamily",
    "TruncatedNormal",
    "TruncatedNormalFamily",
    "VectorFamily",
    "VonMises",
    "VonMisesFamily",
    "Warped",
    "WarpedFamily",
    "describe",
    "family_of",
    "from_description",
    "get_family",
]
