"""From rows as users have them to what networks learn: one task, and the networks that take it up."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from .checkpoint import Checkpoint
from .errors import MixturaError, MixturaWarning
from .families import AnyFamily, ScalarFamily, get_family
from .learner import Learner
from .nets import MDN, MLP, BatchEnsemble, MixtureHead
from .presets import Preset
from .rows import Rows, groups_of, rows_of
from .tables import TableEncoder
from .targets import (
    Target,
    Units,
    check_support,
    find_atoms,
    fit_target_scaler,
    is_free,
    scalar_families,
    smallest_scales,
)
from .training import starting_mixture, train

_FEWEST_ROWS_TO_HOLD_OUT, _MOST_ROWS_TO_DOUBT = 20, 20_000
_LEAST_TOLD_APART, _LARGEST_GROUP = 0.9, 0.1
Family = str | AnyFamily | Sequence[str | AnyFamily]


@dataclass(frozen=True)
class Sample:
    """Rows as users have them, checked one by one, each of positive weight."""

    X: pd.DataFrame | NDArray[np.float64]
    target: Target
    weight: NDArray[np.float64]
    """Shape (n,), of mean 1."""

    def __len__(self) -> int:
        return len(self.target)

    def take(self, index: NDArray[Any]) -> "Sample":
        """Some of the rows."""
        X = self.X.iloc[index] if isinstance(self.X, pd.DataFrame) else self.X[index]
        return Sample(X, self.target.take(index), self.weight[index] / self.weight[index].mean())


@dataclass(frozen=True)
class Frame:
    """How rows become numbers for a network, and of which law its components are: learned from a sample, and kept."""

    encoder: TableEncoder
    scaler: StandardScaler
    """Of the target."""
    family: AnyFamily
    """In the user's units, as are the atoms."""
    atoms: NDArray[np.float64]
    event_size: int | None
    """None for a scalar target, else D."""

    @classmethod
    def fit(
        cls,
        sample: Sample,
        event_size: int | None,
        family: Family,
        covariance_type: str,
        atoms: Sequence[float] | str | None,
        ranks: bool = False,
    ) -> "Frame":
        """Parameters are those of `MDNRegressor` and `TableEncoder`."""
        target, weight = sample.target, sample.weight
        law, values = get_family(family, event_size, covariance_type), np.empty(0)
        if atoms is not None and event_size is not None:
            got, fix = f"atoms={atoms!r} with a vector target", "fit each coordinate, or leave them out"
            raise MixturaError("E-parameter", got, "atoms of a scalar target", fix)
        if isinstance(atoms, str):
            values = np.array(find_atoms(target, weight, of_few=True))
        elif atoms is not None:
            values = np.unique(np.asarray(atoms, dtype=np.float64))
        check_support(law, target, values)
        encoder = TableEncoder(ranks).fit(sample.X, weight)
        return cls(encoder, fit_target_scaler(target.points, weight, target.names, law), law, values, event_size)

    @property
    def units(self) -> Units:
        """Between the user's units of the target and the network's."""
        return Units(self.family, self.atoms, np.asarray(self.scaler.mean_), np.asarray(self.scaler.scale_))

    def rows(self, sample: Sample) -> Rows:
        """A sample in the network's units."""
        check_support(self.family, sample.target, self.atoms)
        return self.units.rows(self.encoder.transform(sample.X), sample.target, sample.weight)

    def network(
        self,
        recipe: Preset,
        k: int,
        places: Tensor,
        floor: Tensor,
        generator: torch.Generator | None = None,
        device: str = "cpu",
    ) -> MDN:
        """An untrained network with k components."""
        sizes, n_inputs = [int(size) for size in recipe.hidden_layer_sizes], self.encoder.n_encoded
        with torch.device(device):
            if recipe.n_members is None:
                backbone = MLP(n_inputs, sizes, generator)
            else:
                backbone = BatchEnsemble(n_inputs, sizes, recipe.n_members, places, generator)
            head = MixtureHead(
                backbone.out_features,
                k,
                self.event_size,
                self.units.network_family,
                atoms=self.units.network_atoms,
                scale_floor=floor if self.event_size else floor[0],
                weight_floor=float(recipe.weight_floor),
                n_members=recipe.n_members,
                generator=generator,
            )
        return MDN(backbone, head).float()

    def repeats(self, sample: Sample) -> MixturaWarning | None:
        """Where values repeat beyond what a density allows, and may not be atoms."""
        is_discrete = isinstance(self.family, ScalarFamily) and self.family.is_discrete
        repeated = [] if self.event_size is not None or is_discrete else find_atoms(sample.target, sample.weight)
        if not repeated:
            return None
        fix = 'give atoms="auto", or these values, and they get a probability of their own'
        got = f"values that repeat beyond what a density allows: {_shares(repeated, sample)}"
        return MixturaWarning("W-repeated-values", got, "a continuous target", fix)


@dataclass(frozen=True)
class Task:
    """What is to be learned, in the network's units."""

    frame: Frame
    rows: Rows
    learn: Tensor
    """Indices of rows, as is judge."""
    judge: Tensor | None
    group: Tensor
    """Of each row, which it belongs to of those that are held out together, as are copies of one row; shape (n,)."""
    floor: Tensor
    """Smallest scale of each coordinate."""
    places: Tensor
    """Indices of the features that take more than two values."""
    told: list[str]
    """Events for the report."""
    seed: int
    random: np.random.RandomState

    @classmethod
    def of(
        cls,
        sample: Sample,
        frame: Frame,
        scale_floor: float | None,
        validation_fraction: float,
        random: np.random.RandomState,
        eval_sample: Sample | None = None,
    ) -> "Task":
        """Put a sample into the network's units, and hold rows out, unless there are others to judge by."""
        seed, told, n = int(random.randint(2**31 - 1)), [], len(sample)
        if len(frame.atoms):
            told.append(f"atoms, with their shares of the rows: {_shares(frame.atoms, sample)}")
        scale = frame.units.scale
        floors = np.full_like(scale, float(scale_floor or 0))
        if scale_floor is None:
            floors, why = smallest_scales(frame.family, sample.target, scale)
            told += why
        floor = torch.as_tensor(floors / scale, dtype=torch.float32)
        rows, learn, judge = frame.rows(sample), torch.arange(n), None
        group = _copies(frame.encoder.numbers(sample.X), rows)
        n_groups = int(group.max()) + 1
        told += frame.encoder.told
        if n_groups < n:
            told.append(f"{n - n_groups} rows repeat others in all values: copies stay on one side of each split")
        if eval_sample is not None:
            rows = rows.followed_by(frame.rows(eval_sample))
            judge = torch.arange(n, len(rows))
            group = torch.cat([group, n_groups + torch.arange(len(judge))])
        elif validation_fraction > 0 and n_groups >= _FEWEST_ROWS_TO_HOLD_OUT:
            n_held_out = min(max(1, round(float(validation_fraction) * n_groups)), n_groups - 2)
            parts = train_test_split(np.arange(n_groups), test_size=n_held_out, random_state=random)
            learn, judge = (rows_of(torch.as_tensor(part), group) for part in parts)
        many = [j for j, values in enumerate(rows.x[learn].T) if len(values.unique()) > 2]
        return cls(frame, rows, learn, judge, group, floor, torch.tensor(many, dtype=torch.long), told, seed, random)

    def n_different(self, rows: Tensor) -> int:
        """How many of some rows there are without their copies."""
        return len(groups_of(rows, self.group))

    def learner(self, recipe: Preset, k: int, seed: int, learn: Tensor, judge: Tensor | None) -> Learner:
        """A network with k components and a start near the marginal density of its rows."""
        generator = torch.Generator().manual_seed(seed)
        network = self.frame.network(recipe, k, self.places, self.floor, generator)
        head, own = network.head, self.rows.take(learn)
        head.start_from(starting_mixture(own.points(head.family), k, head.family, own.weight, seed, head.atoms))
        return Learner(network, learn, judge, generator)

    def learners(self, recipe: Preset, k: int, others_judge: bool) -> list[Learner]:
        """One for each restart; where all are pooled, and others may judge, each holds out other rows."""
        made = [self.learner(recipe, k, self.seed, self.learn, self.judge)]
        for _ in range(recipe.n_restarts - 1):
            seed, learn, judge = int(self.random.randint(2**31 - 1)), self.learn, self.judge
            if recipe.pool_restarts and judge is not None and others_judge:
                groups, n_judge = groups_of(torch.cat([judge, learn]), self.group), len(groups_of(judge, self.group))
                parts = groups.roll(-len(made) * n_judge).tensor_split([n_judge])
                judge, learn = (rows_of(part, self.group) for part in parts)
            made.append(self.learner(recipe, k, seed, learn, judge))
        return made

    @torch.no_grad()
    def background(self, recipe: Preset) -> MDN:
        """The density of the target without features, as a network whose answer is the same for all rows."""
        recipe = replace(recipe, hidden_layer_sizes=(), n_members=None)
        network: MDN = self.learner(recipe, 1, self.seed, self.learn, None).network.double()  # pyright: ignore
        network.head.linear.weight.zero_()
        return network

    @torch.no_grad()
    def doubt(
        self, background: MDN, kept: Sequence[Learner]
    ) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"], Float[Tensor, "n"]]:
        """Of held-out rows the log density, that of the background, and the weight."""
        held_out = [one.judge[: _MOST_ROWS_TO_DOUBT if one.report.n_valid_rows else 0] for one in kept]
        _, place, counts = torch.cat(held_out).unique(return_inverse=True, return_counts=True)
        found = []
        for learner, judge, times in zip(kept, held_out, counts[place].split([*map(len, held_out)]), strict=True):
            some, network = self.rows.take(judge).double(), learner.network.double()
            found.append((-some.nll(network(some.x)), -some.nll(background(some.x)), some.weight / times))
        log_prob, log_background, weight = (torch.cat(parts) for parts in zip(*found, strict=True))
        return log_prob, log_background, weight

    def train(
        self,
        learners: Sequence[Learner],
        recipe: Preset,
        checkpoint: Checkpoint | None = None,
        catches_interrupt: bool = True,
    ) -> None:
        """As a recipe says; with a progress bar, where one is wanted and can be seen."""
        n_learn = len(learners[0].learn)
        judged = self.frame.units.log_scale(self.rows.take(learners[0].judge))
        may_move = (
            all(map(is_free, scalar_families(self.frame.family, 1)))
            and self.rows.upper is None
            and not len(self.frame.atoms)
        )
        noise = recipe.noise_for(self.n_different(learners[0].learn))
        max_epochs, patience, n_annealed = recipe.epochs(math.ceil(n_learn / recipe.batch_size))
        console = Console(stderr=True)
        hidden = not (recipe.verbose and (console.is_terminal or console.is_jupyter))
        with Progress(console=console, transient=True, disable=hidden) as bar:
            shown = bar.add_task("fitting", total=max_epochs)

            def show() -> None:
                lowest = min(learner.report.valid_nll[-1] for learner in learners) + judged
                n_epochs = max(learner.report.n_epochs for learner in learners)
                bar.update(shown, completed=n_epochs, description=f"fitting, held-out NLL {lowest:.4f}")

            train(
                learners,
                self.rows,
                max_epochs=max_epochs,
                batch_size=recipe.batch_size,
                learning_rate=float(recipe.learning_rate),
                weight_decay=float(recipe.weight_decay),
                patience=patience,
                n_annealed=n_annealed,
                revives=bool(recipe.revive),
                x_noise=noise,
                y_noise=noise if may_move else 0.0,
                checkpoint=checkpoint,
                catches_interrupt=catches_interrupt,
                on_epoch=None if hidden else show,
            )


def _copies(numbers: pd.DataFrame, rows: Rows) -> Tensor:
    """Of each row, a number that it shares with its copies: rows equal in all values, where most rows have some.

    Fewer may be as frequent among the rows to come. Nor are rows copies, whose features and target are made of few
    categories and whole numbers, so that neither the numbers among the features nor the target tell nine in ten of the
    different rows apart; nor are more than a tenth of all rows that are equal, such as dry days.
    """

    def codes(values: pd.DataFrame) -> NDArray[np.int64]:
        return pd.factorize(pd.util.hash_pandas_object(values, index=False))[0]

    n = len(rows)
    y = torch.cat([part.reshape(n, -1) for part in (rows.y, rows.upper) if part is not None], 1)
    group, *tellers = map(codes, (pd.DataFrame(torch.cat([rows.x, y], 1).numpy()), numbers, pd.DataFrame(y.numpy())))
    n_groups, n_equal = group.max() + 1, np.bincount(group)[group]
    is_copy = (n_equal > 1) & (n_equal <= _LARGEST_GROUP * n)
    if 2 * is_copy.sum() <= n or all(part.max() + 1 < _LEAST_TOLD_APART * n_groups for part in tellers):
        return torch.arange(n)
    group[~is_copy] = n_groups + np.arange(n - is_copy.sum())
    return torch.as_tensor(pd.factorize(group)[0])


def _shares(values: Sequence[float] | NDArray[np.float64], sample: Sample) -> str:
    """Values of a target with their shares of the rows, in words."""
    total = sample.weight.sum()
    shares = [(value, sample.weight[sample.target.values == value].sum() / total) for value in values]
    return ", ".join(f"{value:g} ({share:.1%})" for value, share in shares)
