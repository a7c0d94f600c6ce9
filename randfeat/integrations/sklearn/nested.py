"""Fields of kernels, estimators and couplings as parameters of a model: `kernel__length_scale` in a grid."""

import dataclasses
from collections import defaultdict
from typing import Any, Self

from sklearn.base import BaseEstimator

from randfeat._hints import shown, translated
from randfeat.couplings import Coupling
from randfeat.couplings.base import resolve_coupling
from randfeat.estimators.base import Estimator
from randfeat.integrations.sklearn.laws import DEFAULTS, Law, estimator_classes
from randfeat.kernels import Kernel

LAWS = ("kernel", "estimator", "coupling")


class NestedLaws(BaseEstimator):
    """Parameters `kernel__length_scale`, `estimator__coupling`, `estimator__kernel__length_scale`, ... of objects.

    Kernels, estimators and couplings are immutable: `set_params` replaces them by changed copies, so an object that
    two models share stays as it is.
    """

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters of the constructor; with `deep` also the fields of objects among them."""
        parameters = super().get_params(deep=deep)
        if deep:
            for name in LAWS:
                if is_law(law := parameters.get(name)):
                    parameters |= {f"{name}__{field}": value for field, value in nested_fields(law).items()}
        return parameters

    def set_params(self, **parameters: Any) -> Self:
        """Set parameters, by name or by the name of a field of an object: `kernel__length_scale=2.0`."""
        nested: dict[str, dict[str, Any]] = defaultdict(dict)
        own = {}
        for key, value in parameters.items():
            name, _, field = key.partition("__")
            if field and name in LAWS:
                nested[name][field] = value
            else:
                own[key] = value
        self._check_words(own)
        super().set_params(**own)
        for name, changes in nested.items():
            setattr(self, name, changed(getattr(self, name), name, changes))
        return self

    def _check_words(self, parameters: dict[str, Any]) -> None:
        """A ValueError for another word for a parameter, or for the field of an object without its path."""
        known = self.get_params()
        for slip in parameters:
            paths = [path for path in known if path.split("__")[-1] == slip]
            hint = f"it is {' or '.join(paths)}" if paths else translated(slip, frozenset(known))
            if slip not in known and "__" not in slip and hint:
                raise ValueError(f"Invalid parameter {slip!r} for {type(self).__name__}; {hint}.")


def example(name: str, given: Any) -> str:
    """The object for a parameter, in Python: of the kind that its name says, else one of many."""
    law: Any
    try:
        match name:
            case "kernel":
                law = Law(**{**DEFAULTS, "kernel": given, "estimator": "auto"}).kernel_of(0.5)
            case "estimator":
                law = estimator_classes()[Law(**{**DEFAULTS, "estimator": given}).estimator].example()
            case _:
                law = resolve_coupling(given)
    except (KeyError, TypeError, ValueError):
        return {"kernel": "rf.GaussianKernel()", "estimator": "rf.PositiveFeatures()"}.get(name, "rf.Orthogonal()")
    return f"rf.{law!r}"


def is_law(thing: Any) -> bool:
    """Whether a parameter is an object of a kernel, an estimator or a coupling, not a name or a class."""
    return isinstance(thing, Kernel | Estimator | Coupling) and dataclasses.is_dataclass(thing)


def nested_fields(law: Any) -> dict[str, Any]:
    """The fields of an object, and of the objects among them, by their path."""
    found = {}
    for field in dataclasses.fields(law):
        if field.init:
            found[field.name] = value = getattr(law, field.name)
            if is_law(value):
                found |= {f"{field.name}__{name}": inner for name, inner in nested_fields(value).items()}
    return found


def changed(law: Any, name: str, changes: dict[str, Any]) -> Any:
    """A copy of the object with other fields, given by their paths."""
    if not is_law(law):
        raise ValueError(f"{name}={shown(law)} has no fields to set; give an object, as {name}={example(name, law)}.")
    known = {field.name for field in dataclasses.fields(law) if field.init}
    fields: dict[str, Any] = {}
    deeper: dict[str, dict[str, Any]] = defaultdict(dict)
    for path, value in changes.items():
        field, _, rest = path.partition("__")
        if field not in known:
            raise ValueError(f"{type(law).__name__} has no field {field!r}; it has {', '.join(sorted(known))}.")
        if rest:
            deeper[field][rest] = value
        else:
            fields[field] = value
    law = dataclasses.replace(law, **fields)
    inner = {field: changed(getattr(law, field), field, paths) for field, paths in deeper.items()}
    return dataclasses.replace(law, **inner) if inner else law
