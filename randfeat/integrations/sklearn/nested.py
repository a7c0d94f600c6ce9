"""Fields of kernels, estimators and couplings as parameters of a model: `kernel__length_scale` in a grid."""

import dataclasses
from collections import defaultdict
from typing import Any, Self

from sklearn.base import BaseEstimator

from randfeat._hints import shown, translated
from randfeat.couplings import Coupling
from randfeat.couplings.base import coupling_names, resolve_coupling
from randfeat.estimators.base import Estimator
from randfeat.integrations.sklearn.laws import estimator_classes, object_of
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
        example = f"{name}=rf.{instead_of(law, name)}"
        raise ValueError(f"{name}={shown(law)} has no fields to set; give an object, as {example}.")
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


def instead_of(given: Any, name: str) -> str:
    """The object of a kernel, an estimator or a coupling that was given by its name, as it is written; or another."""
    if name == "kernel":
        return repr(object_of(given) or object_of("rbf"))
    if name == "coupling":
        return repr(resolve_coupling(given if given in coupling_names() else "orthogonal"))
    return f"{estimator_classes().get(given, estimator_classes()['trigonometric']).__name__}()"
