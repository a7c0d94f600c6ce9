"""Kernels and estimators by name, in the conventions of scikit-learn."""

import inspect
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np

from randfeat import kernels
from randfeat._hints import choice_hint, short, shown
from randfeat._hints.similar import squeezed
from randfeat._hints.words import KERNEL_NAMES, NO_FEATURES, SEVERAL
from randfeat.estimators.base import Estimator
from randfeat.estimators.fourier import FourierEstimator
from randfeat.kernels import Kernel
from randfeat.selection.entries import concrete

__all__ = ["DEFAULTS", "KERNELS", "Law", "estimator_classes", "resolve_law"]

WAVES_AND_EXPONENTIALS = (
    "dense_exponential", "hyperbolic", "importance_sampled", "optimal_positive", "positive", "posterior",
    "regularized_softmax", "spectral", "student_positive", "trigonometric",
)  # fmt: skip
DEFAULTS: dict[str, Any] = {"kernel": "rbf", "gamma": "scale", "degree": 2, "coef0": 0.0, "coupling": "orthogonal"}


@dataclass(frozen=True)
class NamedKernel:
    """A kernel that can be chosen by name.

    make : function of gamma, degree and coef0 that returns the kernel.
    gamma : the quantity that gamma multiplies. "squares": Euclidean distances, `exp(-γ r²)`, `γ = 1/2ℓ²`.
        "differences": absolute differences of coordinates, `γ = 1/ℓ`. "products": inner products. None: the kernel has
        no gamma.
    estimator : name of the default features.
    """

    make: Callable[[float, int, float], Kernel]
    gamma: Literal["squares", "differences", "products"] | None
    estimator: str


def of_length(make: Callable[[float], Kernel], estimator: str = "spectral") -> NamedKernel:
    """A named kernel with a length scale."""
    return NamedKernel(lambda gamma, degree, coef0: make(1 / math.sqrt(2 * gamma)), "squares", estimator)


def fixed(kernel: Kernel, estimator: str) -> NamedKernel:
    """A named kernel without parameters."""
    return NamedKernel(lambda gamma, degree, coef0: kernel, None, estimator)


KERNELS = {
    "rbf": of_length(kernels.GaussianKernel, "trigonometric"),
    "laplacian": NamedKernel(lambda gamma, *_: kernels.LaplacianKernel(1 / gamma), "differences", "spectral"),
    "exponential": of_length(kernels.ExponentialKernel),
    "matern32": of_length(lambda length: kernels.MaternKernel(1.5, length)),
    "matern52": of_length(lambda length: kernels.MaternKernel(2.5, length)),
    "rational_quadratic": of_length(lambda length: kernels.RationalQuadraticKernel(1.0, length)),
    "cauchy": of_length(kernels.CauchyKernel),
    "polynomial": NamedKernel(
        lambda gamma, degree, coef0: kernels.PolynomialKernel(degree, coef0, gamma), "products", "tensor_sketch"
    ),
    "softmax": NamedKernel(lambda gamma, *_: kernels.SoftmaxKernel(gamma), "products", "positive"),
    "arccos0": fixed(kernels.ArcCosineKernel(0), "arc_cosine"),
    "arccos1": fixed(kernels.ArcCosineKernel(1), "arc_cosine"),
    "arccos2": fixed(kernels.ArcCosineKernel(2), "arc_cosine"),
    "angular": fixed(kernels.AngularKernel(), "sign"),
    "relu": fixed(kernels.ActivationKernel("relu"), "activation"),
    "optical": fixed(kernels.OpticalKernel(), "optical"),
    "additive_chi2": fixed(kernels.AdditiveChi2Kernel(), "spectral"),
    "skewed_chi2": fixed(kernels.SkewedChi2Kernel(1.0), "spectral"),
}


@dataclass(frozen=True)
class Law:
    """The parameters of a transformer that determine the law of its features; names as they are called here."""

    kernel: Any
    gamma: Any
    degree: Any
    coef0: Any
    estimator: Any
    coupling: Any

    def __post_init__(self) -> None:
        others = kernel_classes() | KERNEL_NAMES | {name: name for name in NO_FEATURES}
        object.__setattr__(self, "kernel", named_here(self.kernel, KERNELS, others))
        object.__setattr__(self, "estimator", named_here(self.estimator, estimator_classes(), other_names()))

    @property
    def bandwidth(self) -> Literal["squares", "differences", "products"] | None:
        """The quantity that gamma multiplies; None if there is no gamma, since objects carry their own scale."""
        if isinstance(self.estimator, Estimator) or not isinstance(self.kernel, str):
            return None
        return KERNELS[self.kernel].gamma

    @property
    def takes_sparse(self) -> bool:
        """Whether sparse rows are possible: features that need only inner products and the length of a row."""
        kernel = self.known_kernel
        return self.takes_products and (kernel is None or kernel.unit_factor is not None)

    @property
    def takes_negative(self) -> bool:
        """Whether inputs may be negative."""
        return self.known_kernel is None or self.known_kernel.takes_negative

    @property
    def known_kernel(self) -> Kernel | None:
        """The kernel, one of its family where it is named; None for what is no kernel."""
        if isinstance(self.estimator, Estimator):
            return self.estimator.kernel
        if isinstance(self.kernel, str):
            return KERNELS[self.kernel].make(1.0, 2, 0.0) if self.kernel in KERNELS else None
        return self.kernel if isinstance(self.kernel, Kernel) else None

    @property
    def takes_products(self) -> bool:
        """Whether the features are waves or exponentials, of inner products and the length of a row."""
        if isinstance(self.estimator, Estimator):
            return type(self.estimator) in (estimator_classes()[name] for name in WAVES_AND_EXPONENTIALS)
        name = self.estimator
        if name == "auto" and isinstance(self.kernel, str) and self.kernel in KERNELS:
            name = KERNELS[self.kernel].estimator
        elif name == "auto":
            name = "spectral" if isinstance(self.kernel, kernels.SpectralKernel | kernels.SoftmaxFamily) else name
        return isinstance(name, str) and name in WAVES_AND_EXPONENTIALS

    @property
    def can_shift(self) -> bool:
        """Whether features of shifted inputs have the same law: a kernel of x - y, no parameters with a place."""
        if isinstance(self.estimator, Estimator):
            return is_stationary(self.estimator)
        return self.kernel_of(1.0).shift_invariant

    def kernel_of(self, gamma: float) -> Kernel:
        """The kernel, with this gamma where it has one."""
        if isinstance(self.estimator, Estimator):
            return self.estimator.kernel
        return (
            KERNELS[self.kernel].make(gamma, self.degree, self.coef0) if isinstance(self.kernel, str) else self.kernel
        )

    def check(self) -> None:
        """Raise ValueError or TypeError for unknown names, and for parameters that an object already carries."""
        if isinstance(self.estimator, Estimator):
            self._check_unused("estimator", "kernel", "gamma", "degree", "coef0", "coupling")
            if self.estimator.batch_shape:
                raise ValueError(f"estimator must be a single law, got batch_shape {self.estimator.batch_shape}.")
            check_symmetric(self.estimator)
            return
        if not isinstance(self.estimator, str):
            raise TypeError(f"estimator must be a name or an Estimator, got {shown(self.estimator)}.")
        if self.estimator not in ("auto", *estimator_classes()):
            names = ", ".join(["auto", *estimator_classes()])
            hint = choice_hint(self.estimator, estimator_classes(), other_names())
            raise ValueError(f"unknown estimator {self.estimator!r}; expected an Estimator, or one of {names}{hint}.")
        if isinstance(self.kernel, Kernel):
            self._check_unused("kernel", "gamma", "degree", "coef0")
        elif not isinstance(self.kernel, str):
            raise TypeError(f"kernel must be a name or a Kernel, got {shown(self.kernel)}.")
        elif self.kernel in NO_FEATURES:
            raise ValueError(f"kernel={self.kernel!r} has no features here: {NO_FEATURES[self.kernel]}.")
        elif self.kernel not in KERNELS:
            hint = choice_hint(self.kernel, KERNELS, kernel_classes() | KERNEL_NAMES | SEVERAL)
            raise ValueError(
                f"unknown kernel {self.kernel!r}; expected a Kernel, or one of {', '.join(KERNELS)}{hint}."
            )
        elif KERNELS[self.kernel].gamma is None and self.gamma != DEFAULTS["gamma"]:
            raise ValueError(f"the kernel {self.kernel!r} has no scale: leave out gamma, got {short(self.gamma)}.")

    def _check_unused(self, given: str, *names: str) -> None:
        changed = [name for name in names if name != given and not is_default(name, getattr(self, name))]
        if changed:
            law = getattr(self, given)
            own = ", ".join(f"{given}__{field.name}" for field in fields(law) if field.init)
            raise ValueError(
                f"{given} is an object, {law!r}, which carries its own {', '.join(changed)}: leave out "
                f"{' and '.join(changed)}{f', and set {own}' if own else ''}."
            )


def resolve_law(law: Law, gamma: float, width: int, sample: Callable[[], np.ndarray]) -> Estimator:
    """The estimator for a checked law, with this gamma and number of features.

    sample : function that returns some rows of the data, for estimators that are fitted to data.
    """
    if isinstance(law.estimator, Estimator):
        return law.estimator
    kernel, name = law.kernel_of(gamma), law.estimator
    if name == "auto":
        name = natural_estimator(kernel)
    cls = estimator_classes()[name]
    known = {field.name for field in fields(cls) if field.init}
    if "kernel" not in known:
        raise ValueError(f"{name!r} is made of other estimators: give the object, {cls.__name__}(...), as estimator.")
    if not isinstance(kernel, cls.kernel_type):
        fitting = [key for key, named in KERNELS.items() if isinstance(named.make(1.0, 2, 0.0), cls.kernel_type)]
        raise ValueError(
            f"the features {name!r} estimate a {cls.kernel_type.__name__} ({', '.join(fitting) or 'as an object'}), "
            f'got {short(kernel)}; estimator="auto" has features for every kernel.'
        )
    arguments: dict[str, Any] = {"kernel": kernel}
    if "coupling" in known:
        arguments["coupling"] = law.coupling
    elif law.coupling != DEFAULTS["coupling"]:
        raise ValueError(f"the features {name!r} have no coupling to choose: leave it out, got {short(law.coupling)}.")
    check_symmetric(cls)
    if law.estimator == "auto" and issubclass(cls, FourierEstimator) and width % 2:
        arguments["variant"] = "phase"
    fit = getattr(cls, "fit", None)
    if fit is None:
        return cls(**arguments)
    rows = sample()
    return fit(rows, rows, scale=1.0, **arguments)


def natural_estimator(kernel: Kernel) -> str:
    """Name of the default features for a kernel object."""
    for named in KERNELS.values():
        if isinstance(kernel, type(named.make(1.0, 2, 0.0))):
            return named.estimator
    for family, name in ((kernels.SpectralKernel, "spectral"), (kernels.SoftmaxFamily, "positive")):
        if isinstance(kernel, family):
            return name
    if isinstance(kernel, kernels.DotProductKernel):
        return "maclaurin"
    raise ValueError(f"no features are the natural ones of {kernel!r}: give an Estimator object as estimator.")


def object_of(kernel: str) -> Kernel | None:
    """The kernel of a name, with length scale 1 where it has one; None for other names."""
    named = KERNELS.get(named_here(kernel, KERNELS, kernel_classes() | KERNEL_NAMES))
    return None if named is None else named.make(0.5 if named.gamma == "squares" else 1.0, 2, 0.0)


def estimator_classes() -> dict[str, type[Estimator]]:
    """All estimators of the library by name: the class name without "Features", in snake case."""
    return {snake_case(cls.__name__.removesuffix("Features")): cls for cls in concrete(Estimator)}


def other_names() -> dict[str, str]:
    """The names of the classes, and acronyms of papers, with the name of each estimator."""
    classes = estimator_classes()
    acronyms = {acronym: name for name, cls in classes.items() for acronym in cls.example().acronyms}
    return acronyms | {cls.__name__: name for name, cls in classes.items()}


def kernel_classes() -> dict[str, str]:
    """The name of each kernel by that of its class, for classes that have one name."""
    classes = [type(named.make(1.0, 2, 0.0)).__name__ for named in KERNELS.values()]
    return {cls: name for cls, name in zip(classes, KERNELS, strict=True) if classes.count(cls) == 1}


def named_here(given: Any, names: Iterable[str], others: Mapping[str, str]) -> Any:
    """The name here of what was given by another name, whatever its case and underscores; else what was given."""
    if not isinstance(given, str):
        return given
    known = {squeezed(other): name for other, name in others.items()} | {squeezed(name): name for name in names}
    return known.get(squeezed(given), given)


def snake_case(name: str) -> str:
    """`optimal_positive` for `OptimalPositive`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def is_stationary(estimator: Estimator) -> bool:
    """Whether an estimator is made of waves alone, of kernels of x - y: its error depends on x - y, too."""
    if isinstance(estimator, FourierEstimator):
        return estimator.kernel.shift_invariant
    parts = getattr(estimator, "parts", None) or [part for part in [getattr(estimator, "base", None)] if part]
    return bool(parts) and estimator.kernel.shift_invariant and all(map(is_stationary, parts))


def check_symmetric(estimator: Estimator | type[Estimator]) -> None:
    """Raise ValueError for estimators with different features for queries and keys."""
    if not inspect.isdatadescriptor(estimator.symmetric) and not estimator.symmetric:
        name = estimator.__name__ if isinstance(estimator, type) else type(estimator).__name__
        raise ValueError(
            f"{name} has different features for queries and keys, and a transformer has one: choose an estimator whose "
            "catalogue entry says symmetric, or use the feature map itself (draw, queries, keys)."
        )


def is_default(name: str, value: Any) -> bool:
    """Whether a parameter has its default value."""
    return isinstance(value, str | int | float) and value == DEFAULTS[name]
