"""What is left to be said of a row whose features mislead: the density of y without them, with a small share."""

from jaxtyping import Float
from torch import Tensor

_DOUBTFUL_ROWS, _ROWS = 0.3, 100.0
"""As if so many rows of so many had been seen already: the share where nothing is held out is 0.3%."""
_N_STEPS = 100


def fit_share(log_prob: Float[Tensor, "n"], log_background: Float[Tensor, "n"], weight: Float[Tensor, "n"]) -> float:
    """Share of the background in a mixture of two given densities: its posterior mode under a weak beta prior, by EM.

    A density that is sharp nearly everywhere is far off in a few rows, each of which costs more than all the others
    have gained: a row ten scales away has an NLL of 50. With a share of the density that y has without features it is
    5 to 10; and what that costs in all other rows is the share itself.

    Parameters
    ----------
    log_prob, log_background
        Of rows that were not learned from.
    weight
        Of the rows.

    References
    ----------
    Huber (1964), Robust estimation of a location parameter: contamination. Dempster, Laird and Rubin (1977) for EM.
    """
    share = log_prob.new_tensor(_DOUBTFUL_ROWS / _ROWS)
    for _ in range(_N_STEPS):
        log_odds = share.log() + log_background - (-share).log1p() - log_prob
        doubt = log_odds.sigmoid().nan_to_num(0)  # of a row that is impossible to both
        share = ((doubt * weight).sum() + _DOUBTFUL_ROWS) / (weight.sum() + _ROWS)
    return share.item()
