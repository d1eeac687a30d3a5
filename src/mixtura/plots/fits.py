"""Pictures of fits: their course, the number of components, and which of them are used."""

import numpy as np
import torch
from matplotlib.axes import Axes

from ..learner import FitReport
from ..mixture import Mixture, plain_mixture
from ..selection import Selection
from .style import ABOVE, BLUE, GREY, INK, ORANGE, axes


def plot_selection(selection: Selection, *, ax: Axes | None = None) -> Axes:
    """What each number of components costs above the best, and the fewest that are within one standard error of it.

    Of BIC, the criterion itself.

    Parameters
    ----------
    selection
        Of `select_components`.
    """
    ax = axes(ax)
    table = selection.table
    if selection.criterion == "bic":
        ax.plot(table.index, table["bic"], color=BLUE, marker="o")
        ax.set_ylabel("BIC, nats per row")
    else:
        ax.plot(table.index, table["excess"], color=BLUE, marker="o")
        within = table["standard_error"].iloc[int(table["excess"].argmin())]
        ax.axhspan(0, within, color=GREY, alpha=0.25, lw=0, label="one standard error of the best")
        ax.set_ylabel("NLL above the best, nats per row")
    ax.axvline(selection.n_components, color=INK, ls=":", label=f"chosen: {selection.n_components}")
    ax.set_xticks(table.index)
    ax.set_xlabel("components")
    ax.legend(ncols=2, **ABOVE)
    return ax


def plot_fit(report: FitReport, *, ax: Axes | None = None) -> Axes:
    """Loss curves of a fit: NLL on the training and held-out rows after each epoch, and the epoch that was kept.

    Parameters
    ----------
    report
        ``model.fit_report_``.
    ax
        Where to draw; a new figure by default.
    """
    ax = axes(ax)
    ax.plot(report.train_nll, color=GREY, lw=1.5, label="training rows")
    label = "held-out rows" if report.n_valid_rows else "training rows, after the epoch"
    ax.plot(report.valid_nll, color=BLUE, lw=1.5, label=label)
    ax.plot(report.best_epoch, report.best_nll, "o", color=ORANGE, label="weights kept")
    losses = np.array(report.train_nll + report.valid_nll)
    finite = losses[np.isfinite(losses)]
    ax.set_ylim(top=np.quantile(finite, 0.98) + 0.05 * np.ptp(finite))
    ax.set_xlabel("epoch")
    ax.set_ylabel("NLL, nats")
    ax.legend(frameon=False)
    return ax


def plot_component_usage(mixture: Mixture, *, ax: Axes | None = None) -> Axes:
    """Mean weight of each component, the heaviest first, and in which share of the rows it is the heaviest.

    A component of mean weight 0 is dead; one that is heavy in few rows belongs to a part of the features. Of a pool of
    networks each component is one of one network, and there are many small ones.

    Parameters
    ----------
    mixture
        Forecasts of many rows, batch_shape (n,). Atoms are named by their values.
    ax
        Where to draw; a new figure by default.
    """
    mixture = plain_mixture(mixture).detach().flat()
    weights, k = mixture.weights, mixture.n_components
    heaviest = torch.bincount(weights.argmax(-1), minlength=weights.shape[-1]) / len(weights)
    mean = weights.mean(0)
    order = mean.argsort(descending=True, stable=True).tolist()
    names = [str(i) for i in range(k)]
    if mixture.atoms is not None:
        names += [f"atom {value:.3g}" for value in mixture.atoms[0].tolist()]
    ax = axes(ax)
    positions = np.arange(len(order))
    ax.bar(positions, mean[order], color=BLUE, width=0.8, label="mean weight")
    ax.plot(positions, heaviest[order], "o", color=ORANGE, ms=5, label="share of rows where it is the heaviest")
    if len(order) <= 20:
        ax.set_xticks(positions, [names[i] for i in order])
    else:
        ax.set_xticks([])
    ax.set_ylim(0, 1.05 * max(mean.max().item(), heaviest.max().item()))
    ax.set_xlabel("component" if len(order) <= 20 else f"{len(order)} components, the heaviest first")
    ax.set_ylabel("share")
    handles, labels = ax.get_legend_handles_labels()
    ax.legend(handles[::-1], labels[::-1], ncols=2, **ABOVE)
    return ax
