"""What a forecast has to beat: the density of y without features, and a line with normal noise."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold, cross_val_predict
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal

from .errors import MixturaError
from .families import AnyFamily, ScalarFamily, get_family
from .mixture import Mixture
from .tables import TableEncoder
from .targets import Target, check_support, scalar_families
from .training import starting_mixture

FEWEST_ROWS = 20
"""To learn a reference from."""
_MOST_COMPONENTS, _N_FOLDS = 5, 5
_PENALTIES = np.logspace(-3, 5, 9)
_LEAST_SHARE_OF_VARIANCE = 1e-12
"""That noise has, of the target's own: a line through all points is a density, too."""

Table = pd.DataFrame | NDArray[np.float64]


@dataclass(frozen=True)
class Reference:
    """Rows to learn from, and of which law the density without features is."""

    X: Table | None
    y: Tensor
    """Shape (n,) or (n, D), in the user's units."""
    family: AnyFamily
    atoms: Tensor | None
    """Shape (A,): the reference gives a mass to the same values as the forecast, so that their NLLs compare."""
    seed: int

    @classmethod
    def of(cls, X: Table | None, target: Target, forecast: object, law: AnyFamily | None, seed: int) -> "Reference":
        """With the atoms of a forecast, and of its components' law, if there is one that y may have."""
        y = torch.tensor(target.values)
        family = get_family("normal", y.shape[1] if y.ndim == 2 else None)
        atoms = shared_atoms(forecast)
        if law is not None:
            if any(isinstance(part, ScalarFamily) and part.is_circular for part in scalar_families(law, 1)):
                X = None  # angles have no line
            try:
                check_support(law, target, np.empty(0) if atoms is None else atoms.numpy())
                family = law
            except MixturaError:  # the forecast itself says that some y are impossible
                pass
        return cls(X, y, family, atoms, seed)

    def take(self, index: NDArray[np.int64]) -> "Reference":
        """Some of the rows."""
        X = self.X.iloc[index] if isinstance(self.X, pd.DataFrame) else None if self.X is None else self.X[index]
        return Reference(X, self.y[torch.as_tensor(index)], self.family, self.atoms, self.seed)

    @property
    def is_discrete(self) -> bool:
        """Whether y is a count."""
        return isinstance(self.family, ScalarFamily) and self.family.is_discrete

    @property
    def has_line(self) -> bool:
        """Whether there are features, and y is no angle."""
        return self.X is not None

    def unconditional(self) -> Mixture:
        """The density of y without features, by EM: at most five components, one for each 20 rows."""
        k = min(_MOST_COMPONENTS, max(1, len(self.y) // 20))
        weight = torch.ones(len(self.y), dtype=self.y.dtype)
        return starting_mixture(self.y, k, self.family, weight, self.seed, self.atoms)

    def line(self, X: Table) -> Mixture:
        """Of rows X: ridge regression with normal noise, everywhere the same, with a full covariance of vectors.

        The penalty is chosen by leave-one-out errors, and the noise is that of rows which the line has not seen, by
        cross-validation. Atoms have their shares of all rows, and the line is that of the others.
        """
        y, learn, logits = self.y, self, torch.zeros(1, dtype=self.y.dtype)
        atoms = None if self.is_discrete else self.atoms
        if atoms is not None:
            is_atom = (y[:, None] == atoms).any(-1)
            if int((~is_atom).sum()) >= 2:
                learn = self.take(np.flatnonzero(~is_atom.numpy()))
            masses = self.unconditional().logits[..., -len(atoms) :]
            logits = torch.cat([torch.log1p(-masses.exp().sum(-1, keepdim=True)), masses], -1)
        columns = learn.y.reshape(len(learn.y), -1).numpy()
        centre, spread = columns.mean(0), np.where(np.ptp(columns, axis=0) > 0, columns.std(0), 1.0)
        standard = (columns - centre) / spread
        encode = _encoder(learn.X)
        x, ridge = encode(learn.X), RidgeCV(_PENALTIES)
        folds = KFold(min(_N_FOLDS, len(x)), shuffle=True, random_state=self.seed)
        noise = standard - cross_val_predict(ridge, x, standard, cv=folds).reshape(standard.shape)
        covariance = noise.T @ noise / len(noise) + _LEAST_SHARE_OF_VARIANCE * np.eye(standard.shape[1])
        fitted = ridge.fit(x, standard).predict(encode(X)).reshape(-1, standard.shape[1])
        loc = torch.as_tensor(centre + spread * fitted)
        scale_tril = torch.as_tensor(spread[:, None] * np.linalg.cholesky(covariance))
        if y.ndim == 1:
            components = Normal(loc, scale_tril[0, 0].expand(loc.shape))
        else:
            components = MultivariateNormal(loc[:, None], scale_tril=scale_tril.expand(len(loc), 1, *scale_tril.shape))
        return Mixture(logits, components, atoms)

    def folds(self) -> Iterator[tuple["Reference", NDArray[np.int64]]]:
        """Rows to learn from, and the indices of the others, five times."""
        for learn, judge in KFold(_N_FOLDS, shuffle=True, random_state=self.seed).split(self.y):
            yield self.take(learn), judge


def shared_atoms(forecast: object) -> Tensor | None:
    """The atoms of a batch of distributions, shape (A,), ascending; None without any.

    Raises
    ------
    MixturaError
        ``E-atoms-differ`` where they are not the same in all rows.
    """
    atoms: Tensor | None = getattr(forecast, "atoms", None)
    if atoms is None:
        return None
    if bool((atoms != atoms.reshape(-1, atoms.shape[-1])[0]).any()):
        got, fix = "atoms that differ between rows", "evaluate the rows of each set of atoms by themselves"
        raise MixturaError("E-atoms-differ", got, "the same atoms in all rows", fix)
    return atoms.reshape(-1, atoms.shape[-1])[0].unique()


def _encoder(X: Table | None) -> Callable[[Table | None], NDArray[np.float64]]:
    """Columns that have a value, as standardised numbers."""
    table = pd.DataFrame(X)
    has_value = table.notna().any().to_numpy()

    def present(X: Table | None) -> Table:
        return X.loc[:, has_value] if isinstance(X, pd.DataFrame) else np.asarray(X, dtype=np.float64)[:, has_value]

    if not has_value.any():
        return lambda X: np.zeros((len(pd.DataFrame(X)), 1))
    encoder = TableEncoder().fit(present(X), np.ones(len(table)))
    return lambda X: encoder.transform(present(X))
