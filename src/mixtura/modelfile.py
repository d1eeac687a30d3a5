"""A fitted model as JSON and tensors, and back."""

from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from .checkpoint import under
from .constraints import is_int
from .families import describe, from_description, get_family
from .learner import FitReport
from .mixture import Mixture
from .nets import MDN
from .presets import Preset
from .tables import TableEncoder


def state_of(model: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """All of a fitted `MDNRegressor`: what JSON can hold, and tensors."""
    columns, arrays = model.encoder_.get_state()
    parameters = model.get_params()
    if parameters["n_components"] != "auto":
        parameters["n_components"] = model.n_components_
    layers = [layer for layer in model.networks_[0].backbone.modules() if isinstance(layer, nn.Linear)]
    sizes = [layer.out_features for layer in layers]
    parameters["hidden_layer_sizes"] = None if model.hidden_layer_sizes is None else sizes
    if isinstance(model.random_state, np.random.RandomState):
        parameters["random_state"] = None  # a generator that has moved on is no setting
    if not isinstance(model.family, str):
        parameters["family"] = describe(model.family_)
    if model.atoms is not None and not isinstance(model.atoms, str):
        parameters["atoms"] = [float(atom) for atom in model.atoms]
    manifest = {
        "parameters": {name: plain(value) for name, value in parameters.items()},
        "columns": columns,
        "has_feature_names": hasattr(model, "feature_names_in_"),
        "target_names": model.target_names_,
        "family": describe(model.family_),
        "n_components": model.n_components_,
        "hidden_layer_sizes": sizes,
        "n_members": model.networks_[0].head.n_members,
        "background_share": model.background_share_,
        "y_shape": list(model._y_shape),
        "report": asdict(model.fit_report_),
    }
    tensors = {f"encoder.{name}": torch.as_tensor(array) for name, array in arrays.items()}
    tensors["atoms"] = torch.as_tensor(model.atoms_)
    tensors["y_scaler.loc"] = torch.as_tensor(model.y_scaler_.mean_)
    tensors["y_scaler.scale"] = torch.as_tensor(model.y_scaler_.scale_)
    if model.background_ is not None:
        tensors |= {f"background.{name}": tensor for name, tensor in model.background_.state_dict().items()}
    for i, network in enumerate(model.networks_):
        tensors |= {f"network.{i}.{name}": tensor for name, tensor in network.state_dict().items()}
    return manifest, tensors


def restore(model: Any, manifest: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Make a new `MDNRegressor`, of the parameters in the manifest, the fitted one that `state_of` described.

    Raises whatever an ill-formed description leads to.
    """
    sizes, n_members = manifest["hidden_layer_sizes"], manifest["n_members"]
    if model.hidden_layer_sizes is not None:
        model.hidden_layer_sizes = tuple(model.hidden_layer_sizes)
        if model.hidden_layer_sizes != tuple(sizes):
            raise ValueError("the network has other layers than were announced")
    if isinstance(model.family, dict):
        model.family = from_description(model.family)
    model._check_parameters()
    model.encoder_ = TableEncoder.from_state(
        manifest["columns"], {name: tensor.numpy() for name, tensor in under("encoder.", tensors).items()}
    )
    model.n_features_in_ = len(model.encoder_.columns_)
    if manifest["has_feature_names"]:
        model.feature_names_in_ = np.array([column.name for column in model.encoder_.columns_], dtype=object)
    model.n_components_ = int(manifest["n_components"])
    if model.n_components not in ("auto", model.n_components_):
        raise ValueError("the network has another number of components than was announced")
    model.target_names_ = manifest["target_names"]
    if model.target_names_ is not None and not all(isinstance(name, str) for name in model.target_names_):
        raise ValueError("target names are no text")
    model._y_shape = tuple(manifest["y_shape"])
    model.family_ = get_family(from_description(manifest["family"]), model._event_size, model.covariance_type)
    if model.family != "auto" and model.family_ != get_family(model.family, model._event_size, model.covariance_type):
        raise ValueError("the components are of another family than was announced")
    model.atoms_ = tensors["atoms"].numpy()
    scaler = under("y_scaler.", tensors)
    if not scaler["loc"].shape == scaler["scale"].shape == (model._event_size or 1,):
        raise ValueError("the target's scaler does not fit its shape")
    if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
        raise ValueError("a tensor holds NaN or infinity")
    if not all(bool((tensors[name] > 0).all()) for name in ("y_scaler.scale", "encoder.scale") if name in tensors):
        raise ValueError("a scale is not positive")
    parts = {name.split(".", 1)[0] for name in under("network.", tensors)}
    if parts != {str(i) for i in range(max(1, len(parts)))}:
        raise ValueError("the networks are not numbered from 0 on")
    if not all(map(is_int(1), sizes)) or not (n_members is None or is_int(1)(n_members)):
        raise ValueError("sizes and members are no numbers")
    n_tensors = 2 * len(sizes) + 3 + bool(len(model.atoms_)) + 5 * (n_members is not None)
    if len(under("network.", tensors)) != len(parts) * n_tensors:
        raise ValueError("the network has other layers than were announced")
    if model.atoms_.ndim != 1:
        raise ValueError("the atoms are no list")
    model.y_scaler_ = StandardScaler().fit(np.zeros((1, model._event_size or 1)))
    model.y_scaler_.mean_, model.y_scaler_.scale_ = scaler["loc"].numpy(), scaler["scale"].numpy()
    model.y_scaler_.var_ = model.y_scaler_.scale_**2
    floor = torch.zeros(model._event_size or 1)  # which is among the tensors

    def network(recipe: Preset, k: int, own: dict[str, Tensor]) -> MDN:
        places = own.get("backbone.embedding.places", torch.empty(0))
        built = model._frame.network(recipe, k, places, floor, device="meta")
        built.load_state_dict(own, assign=True)  # sizes are compared before any memory is taken
        return built.double().eval()

    recipe = replace(model._recipe(1), hidden_layer_sizes=sizes, n_members=n_members)
    model.networks_ = [network(recipe, model.n_components_, under(f"network.{i}.", tensors)) for i in range(len(parts))]
    model.background_, model.background_share_ = None, float(manifest["background_share"])
    if not 0 <= model.background_share_ < 1:
        raise ValueError("the background has no share")
    if model.background_share_ or under("background.", tensors):
        recipe = replace(recipe, hidden_layer_sizes=(), n_members=None)
        model.background_ = network(recipe, 1, under("background.", tensors))
    model.fit_report_ = FitReport(**manifest["report"])
    if not np.isfinite(model.fit_report_.best_nll):
        raise ValueError("the report has no finite NLL")


def mixture_state(mixture: Mixture) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A mixture: its family as JSON can hold it, and its tensors."""
    parameters = mixture.family.parameters(mixture.components)
    tensors = {"logits": mixture.logits, **{f"parameter.{i}": parameter for i, parameter in enumerate(parameters)}}
    if mixture.atoms is not None:
        tensors["atoms"] = mixture.atoms
    return describe(mixture.family), {name: tensor.contiguous() for name, tensor in tensors.items()}


def restore_mixture(description: dict[str, Any], tensors: dict[str, Tensor]) -> Mixture:
    """The mixture that `mixture_state` described."""
    parameters = under("parameter.", tensors)
    components = from_description(description).from_parameters(*(parameters[str(i)] for i in range(len(parameters))))
    return Mixture(tensors["logits"], components, tensors.get("atoms"), validate_args=True)


def plain(value: Any) -> Any:
    """Of NumPy's numbers, Python's."""
    return value.item() if isinstance(value, np.generic) else value
