"""The catalogue: what exists, and what each part promises, as records."""

import inspect
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from randfeat._hints import short
from randfeat.couplings import Coupling
from randfeat.couplings.base import coupling_names, resolve_coupling
from randfeat.couplings.laws import NoClosedForm
from randfeat.estimators.base import Estimator
from randfeat.kernels import Kernel
from randfeat.storage.registry import registered

DIM, ROWS = 4, 8


@dataclass(frozen=True)
class Entry:
    """One estimator, coupling or kernel, with the properties of its `example()`.

    name : the name of the class.
    kind : "estimator", "coupling" or "kernel".
    acronyms : the names that papers use; for a coupling, the names that the library accepts.
    kernel : the kernel that an estimator estimates.
    positive, bounded, symmetric : properties of the features.
    unbiased : for an estimator, with rows that have exact marginals; for a coupling, whether its marginals are exact.
    closed_form : for an estimator, the couplings with a known variance ("any row" if there is no coupling to choose);
        for a coupling, whether the joint laws of its rows are known.
    widths : the possible values of `num_features`.
    use : when to take it, in one sentence; of estimators and couplings.
    source : the paper.

    A field that does not apply is None. A coupling with several names is one entry, with the properties of the first.
    """

    name: str
    kind: str
    acronyms: tuple[str, ...] = ()
    kernel: str | None = None
    positive: bool | None = None
    bounded: bool | None = None
    unbiased: bool | None = None
    closed_form: tuple[str, ...] = ()
    symmetric: bool | None = None
    widths: str | None = None
    source: str | None = None
    use: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The record as plain data."""
        return asdict(self)


def catalogue(kind: str | None = None) -> list[Entry]:
    """All estimators, couplings and kernels of the library, and registered ones, in the order of their names.

    kind : "estimator", "coupling" or "kernel"; all of them by default.

    The entries are not a fixed list: each call computes them from the classes. Properties are those of an example of
    the class, `use` and `source` are parts of its docstring. A closed form is listed if calling it gives a result, for
    8 rows in dimension 4.

    >>> entry = next(entry for entry in catalogue("estimator") if "FAVOR+" in entry.acronyms)
    >>> entry.name, entry.positive, entry.unbiased, entry.widths
    ('PositiveFeatures', True, True, 'any')
    """
    kinds = {"estimator": estimator_entries, "coupling": coupling_entries, "kernel": kernel_entries}
    if kind is not None and kind not in kinds:
        raise ValueError(f"kind must be one of {', '.join(map(repr, kinds))}, got {short(kind)}.")
    return [entry for name, entries in kinds.items() if kind in (None, name) for entry in entries()]


def concrete(base: type) -> list[Any]:
    """The public classes of this library that derive from `base`, and registered ones, by name."""

    def leaves(cls: Any) -> Iterator[type]:
        for child in cls.__subclasses__():
            yield child
            yield from leaves(child)

    ours = {cls for cls in leaves(base) if cls.__module__.startswith("randfeat.") and not inspect.isabstract(cls)}
    public = [cls for cls in ours if not cls.__name__.startswith("_")]
    return sorted([*public, *registered(base)], key=lambda cls: cls.__name__)


def labelled(cls: type, label: str) -> str:
    """The text behind a label of the docstring, such as "Source:", in one line; an empty string without the label."""
    found = re.search(rf"^{label}: (.*?)(?:\n\s*\n|\nSource: |\Z)", inspect.getdoc(cls) or "", re.DOTALL | re.MULTILINE)
    return " ".join(found[1].split()).rstrip(".") if found else ""


def estimator_entries() -> list[Entry]:
    """One for each estimator."""
    entries = []
    for cls in concrete(Estimator):
        estimator = cls.example()
        entries.append(
            Entry(
                name=cls.__name__,
                kind="estimator",
                acronyms=estimator.acronyms,
                kernel=type(estimator.kernel).__name__,
                positive=estimator.positive,
                bounded=estimator.bounded,
                unbiased=is_unbiased(estimator),
                closed_form=known_variances(estimator),
                symmetric=estimator.symmetric,
                widths=widths(estimator),
                source=labelled(cls, "Source"),
                use=labelled(cls, "For"),
            )
        )
    return entries


def coupling_entries() -> list[Entry]:
    """One for each class of couplings that has a name."""
    names: dict[type[Coupling], list[str]] = {}
    for name in coupling_names():
        names.setdefault(type(resolve_coupling(name)), []).append(name)
    entries = []
    for acronyms in names.values():
        coupling = resolve_coupling(acronyms[0])
        rows = coupling.nearest_num_rows(ROWS, DIM)[-1]
        entries.append(
            Entry(
                name=type(coupling).__name__,
                kind="coupling",
                acronyms=tuple(acronyms),
                unbiased=coupling.exact_marginals,
                closed_form=("joint laws of its rows",) if has_laws(coupling, rows) else (),
                widths=row_numbers(coupling),
                source=labelled(type(coupling), "Source"),
                use=labelled(type(coupling), "For"),
            )
        )
    return entries


def kernel_entries() -> list[Entry]:
    """One for each kernel."""
    return [Entry(name=cls.__name__, kind="kernel", source=labelled(cls, "Source")) for cls in concrete(Kernel)]


def has_laws(coupling: Coupling, rows: int) -> bool:
    """Whether the joint laws of pairs of rows are known."""
    try:
        coupling.pair_laws(rows, DIM)
        coupling.row_law(DIM, rows)
    except NoClosedForm:
        return False
    return True


def is_unbiased(estimator: Estimator) -> bool:
    """Whether the mean is the kernel at a pair in general position."""
    x, y = example_pair(estimator)
    try:
        mean = estimator.mean_over_reference(x, y, example_width(estimator))
    except NoClosedForm:
        return False
    return bool(np.allclose(mean, estimator.kernel.relative(x, y), rtol=1e-9))


def known_variances(estimator: Estimator) -> tuple[str, ...]:
    """The couplings under which the variance has a closed form."""
    if not estimator.has_coupling:
        return ("any row",) if has_variance(estimator) else ()
    return tuple(name for name in coupling_names() if has_variance(estimator, name))


def has_variance(estimator: Estimator, coupling: str | None = None) -> bool:
    """Whether `variance` returns a number, with other rows if a coupling is named; not where they are refused."""
    try:
        estimator = estimator if coupling is None else estimator.with_coupling(coupling)
        estimator.variance_over_reference(*example_pair(estimator), example_width(estimator))
    except ValueError:  # NoClosedForm, or a coupling that the estimator refuses
        return False
    return True


def example_dim(estimator: Estimator) -> int:
    """The dimension that the parameters are for, or 4."""
    return estimator.parameter_dim or DIM


def example_pair(estimator: Estimator) -> tuple[np.ndarray, np.ndarray]:
    """Two short vectors in general position, of positive numbers where the kernel takes no others."""
    dim = example_dim(estimator)
    return np.linspace(0.1, 0.4, dim), np.linspace(0.3, -0.2 if estimator.kernel.takes_negative else 0.2, dim)


def example_width(estimator: Estimator) -> int:
    """A width of about 8 rows that the estimator can have."""
    dim = example_dim(estimator)
    assert isinstance(estimator.coupling, Coupling)
    wish = estimator.coupling.nearest_num_rows(ROWS, dim)[-1] * estimator.features_per_row
    return estimator.nearest_num_features(wish, dim)[-1]


def widths(estimator: Estimator) -> str:
    """The values that `num_features` can have, as a sentence, from the widths up to a few dozen."""
    dim = example_dim(estimator)
    possible = [width for width in range(1, 129) if estimator.nearest_num_features(width, dim) == (width,)]
    if possible == list(range(1, 129)):
        return "any"
    step = possible[0] if possible else estimator.features_per_row
    if possible == list(range(step, 129, step)):
        return f"multiples of {step}"
    if possible and possible == list(range(possible[0], 129)):
        return f"at least {possible[0]} in dimension {dim}"
    return "see the page"


def row_numbers(coupling: Coupling) -> str:
    """The numbers of rows that a coupling can have, as a sentence."""
    possible = [rows for rows in range(1, 129) if coupling.nearest_num_rows(rows, DIM) == (rows,)]
    if possible == list(range(1, 129)):
        return "any number of rows"
    if possible == list(range(2, 129, 2)):
        return "an even number of rows"
    return f"in dimension {DIM}: {', '.join(map(str, possible[:4]))}, ... rows"
