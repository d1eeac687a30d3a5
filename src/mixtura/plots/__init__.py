"""Pictures of conditional densities. Every function draws on one matplotlib axes and returns it."""

from .checks import plot_coverage, plot_pit, plot_reliability, plot_sharpness, plot_skill
from .densities import plot_density, plot_density_map, plot_fan, plot_mixture, plot_ridges
from .effects import plot_feature_effect, plot_importance, plot_uncertainty
from .fits import plot_component_usage, plot_fit, plot_selection
from .style import BLUE, GREY, INK, ORANGE

__all__ = [
    "BLUE",
    "GREY",
    "INK",
    "ORANGE",
    "plot_component_usage",
    "plot_coverage",
    "plot_density",
    "plot_density_map",
    "plot_fan",
    "plot_feature_effect",
    "plot_fit",
    "plot_importance",
    "plot_mixture",
    "plot_pit",
    "plot_reliability",
    "plot_ridges",
    "plot_selection",
    "plot_sharpness",
    "plot_skill",
    "plot_uncertainty",
]
