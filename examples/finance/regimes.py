"""A mixture whose components can be read as calm and crisis: their laws stay as they are, and only the weights move."""

from __future__ import annotations

import pandas as pd
import torch
from torch import Tensor, nn
from torch.distributions import Normal

from mixtura import Mixture, nll


class Regimes(nn.Module):
    """p(y | x) = Σₖ πₖ(x) N(y; μₖ, σₖ²): two regimes, and a logistic model of their weights.

    Where the scales depend on x as well, as those of an `MDNRegressor` do, the data do not say which component is
    which: a wild day may be the wider of two calm laws, or the narrower of two wild ones. Here it is the second law.
    """

    def fit(self, X: pd.DataFrame, y: pd.Series) -> Regimes:
        """Maximum likelihood, with a weak normal prior on the weights' coefficients, by L-BFGS."""
        self.centre, self.spread = torch.tensor(X.mean().to_numpy()), torch.tensor(X.std().to_numpy())
        x, target = self._standardise(X), torch.tensor(y.to_numpy())
        self.gate = nn.Linear(x.shape[1], 1, dtype=x.dtype)
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)
        self.loc = nn.Parameter(target.mean().repeat(2))
        self.log_scale = nn.Parameter(target.std().log() + torch.tensor([-0.5, 0.5], dtype=x.dtype))
        optimiser = torch.optim.LBFGS(self.parameters(), max_iter=500, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimiser.zero_grad()
            loss = nll(self(x), target) + self.gate.weight.square().sum() / (2 * len(x))
            loss.backward()
            return loss

        optimiser.step(closure)
        return self

    def forward(self, x: Tensor) -> Mixture:
        """From standardised features, shape (n, p), to a mixture of batch_shape (n,)."""
        odds = self.gate(x)
        laws = Normal(self.loc.expand(len(x), 2), self.log_scale.exp().expand(len(x), 2))
        return Mixture(torch.cat([-odds, odds], -1) / 2, laws)

    @torch.no_grad()
    def predict_dist(self, X: pd.DataFrame) -> Mixture:
        """The predicted density of each row."""
        return self(self._standardise(X)).detach()

    def _standardise(self, X: pd.DataFrame) -> Tensor:
        return (torch.tensor(X.to_numpy()) - self.centre) / self.spread
