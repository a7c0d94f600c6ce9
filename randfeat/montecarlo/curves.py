"""error_curve: errors of kernel estimates, or of attention outputs, against the number of features."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from randfeat._array import as_count, as_generator
from randfeat._hints import hinted, shown
from randfeat.estimators.base import Estimator
from randfeat.kernels import Kernel
from randfeat.montecarlo.attention_draws import AttentionDraws
from randfeat.montecarlo.curve import ErrorCurve
from randfeat.montecarlo.kernel_draws import KernelDraws
from randfeat.montecarlo.measured import Measured
from randfeat.montecarlo.progress import Progress


@hinted
def error_curve(
    estimators: Estimator | Sequence[Estimator] | Mapping[str, Estimator],
    x: Any = None,
    y: Any = None,
    *,
    num_features: int | Sequence[int],
    num_draws: int = 100,
    rng: Any = None,
    query: Any = None,
    key: Any = None,
    value: Any = None,
    scale: float | None = None,
    is_causal: bool = False,
    key_mask: Any = None,
    progress: bool | Callable[[int, int], None] | None = None,
) -> ErrorCurve:
    """Errors of estimators against the number of features, measured over draws, with standard errors.

    Give pairs `x`, `y` for the errors of kernel estimates, or `query`, `key`, `value` for those of attention outputs.

    Parameters
    ----------
    estimators : one, several, or a dictionary from names to estimators. All are drawn from the same seeds: those with
        the same coupling and number of rows use the same rows, so `curve.ratio` compares them with less noise.
    x, y (..., d) : pairs, broadcast against each other, in the inputs' own units.
    num_features : one or several widths. ValueError if an estimator cannot have one of them.
    num_draws : independent maps for each estimator and width, at least 2.
    query (..., L, d), key (..., S, d), value (..., S, dv), scale, is_causal, key_mask : as for `linear_attention`. Each
        head has maps of its own.
    progress : False for none; True for a line on stderr; or a function that is called with the numbers of finished and
        of all cells. By default a line if stderr is a terminal and the work takes more than 2 seconds.

    Returns an `ErrorCurve` with these measures. Let e = K̂ - K and ref = exp(kernel.log_reference), which is K itself in
    the softmax family. Means are over pairs and draws.

    | pairs | is | closed form |
    |---|---|---|
    | relative_mse | mean of (e / ref)² | yes |
    | relative_bias | mean of e / ref | yes |
    | relative_sup | mean over draws of the largest abs(e / ref) of all pairs | no |
    | mse, bias, sup | the same without the division | mse, bias |

    | attention | is |
    |---|---|
    | error | `√(mean over draws and heads of ‖ô - o‖² / ‖o‖²)`, Frobenius norms over the queries |
    | median_error | median over draws of the same for one draw |
    | relative_sup | mean over draws of the largest `‖ô_i - o_i‖`, over the root mean square of `‖o_i‖` |
    | relative_mse | the square of `error`; `curve.ratio` is of this |

    o is the exact output (`kernel_attention`), of one kernel for all estimators. Signed features have rare denominators
    near 0: `error` is then ruled by single draws, and `median_error` says more. Where |x + y|² is large, the errors of
    positive features have heavy tails, and a measured `mse` is typically too low: the closed form is beside it.

    Threads: RANDFEAT_NUM_THREADS, or one for each core; the result does not depend on it.

    >>> import numpy as np, randfeat as rf
    >>> x, y = np.random.default_rng(0).standard_normal((2, 50, 8)) / 4
    >>> estimators = [rf.PositiveFeatures(), rf.TrigonometricFeatures()]
    >>> curve = error_curve(estimators, x, y, num_features=[16, 64], num_draws=200, rng=0)
    >>> print(curve)
    relative_mse           16 features     64
    PositiveFeatures       0.114 ± 0.007   0.0342 ± 0.004
      closed form          0.128           0.032
    TrigonometricFeatures  0.0249 ± 0.001  0.00675 ± 0.0003
      closed form          0.0252          0.00629
    200 draws; ± is one standard error
    >>> z = curve["relative_mse"].z(curve.closed_forms["relative_mse"])
    >>> bool(np.all(np.abs(z) < 5))
    True
    >>> q, k, v = np.random.default_rng(1).standard_normal((3, 4, 60, 8)) / 2
    >>> inputs = {"query": q, "key": k, "value": v}
    >>> favor = {"FAVOR+": rf.PositiveFeatures()}
    >>> of_outputs = error_curve(favor, **inputs, num_features=[16, 256], num_draws=20, rng=0)
    >>> of_outputs.measures, bool(of_outputs["error"].value[0, 1] < of_outputs["error"].value[0, 0])
    (('error', 'median_error', 'relative_sup', 'relative_mse'), True)
    """
    named = named_estimators(estimators)
    several = list(num_features) if isinstance(num_features, Iterable) else [num_features]
    widths = [as_count(width, "num_features") for width in several]
    if not widths:
        raise ValueError("num_features must hold one width at least.")
    if as_count(num_draws, "num_draws") < 2:
        raise ValueError(f"num_draws must be at least 2 for a standard error, got {num_draws}.")
    kernels = [estimator.kernel for estimator in named.values()]
    draws = source(x, y, query, key, value, kernels, scale=scale, is_causal=is_causal, key_mask=key_mask)
    for estimator in named.values():
        for width in widths:
            estimator.check_dim(draws.dim)
            estimator.num_rows(width, draws.dim)
    shown_progress = Progress.of(progress, len(named) * len(widths))
    seeds = as_generator(rng).bit_generator.seed_seq.spawn(len(widths))  # type: ignore[attr-defined]
    found = []
    with shown_progress:
        for width, seed in zip(widths, seeds, strict=True):
            sizes = draws.batch_sizes(list(named.values()), width, num_draws)
            children = seed.spawn(len(sizes))
            for estimator in named.values():
                generators = [np.random.default_rng(child) for child in children]
                found.append(draws.cell(estimator, width, sizes, generators))
                shown_progress.advance()
    shape = len(widths), len(named)
    measured, closed_forms = {}, {}
    for measure in found[0].measured:
        cells = [cell.measured[measure] for cell in found]
        numbers = [cell.value for cell in cells], [cell.standard_error for cell in cells]
        measured[measure] = Measured(*(np.reshape(column, shape).T for column in numbers))
    for measure in found[0].closed_forms:
        closed_forms[measure] = np.reshape([cell.closed_forms[measure] for cell in found], shape).T
    squares = np.reshape([cell.squares for cell in found], (*shape, num_draws)).swapaxes(0, 1)
    return ErrorCurve(tuple(named), np.asarray(widths), num_draws, measured, closed_forms, squares, draws.average_error)


def source(
    x: Any, y: Any, query: Any, key: Any, value: Any, kernels: Sequence[Kernel], **options: Any
) -> KernelDraws | AttentionDraws:
    """The pairs or the sequences; exactly one of the two must be given."""
    pairs, sequences = [each is not None for each in (x, y)], [each is not None for each in (query, key, value)]
    if all(pairs) and not any(sequences):
        for name, option in options.items():
            if option is not None and option is not False:
                raise ValueError(f"{name} is for attention outputs; kernel values at pairs x, y have none.")
        return KernelDraws.of(x, y)
    if all(sequences) and not any(pairs):
        if any(kernel != kernels[0] for kernel in kernels):
            raise ValueError("attention is compared for one kernel; give estimators of one kernel.")
        return AttentionDraws.of(query, key, value, kernels[0], **options)
    raise TypeError("give x and y for kernel values, or query, key and value for attention outputs.")


def named_estimators(estimators: Any) -> dict[str, Estimator]:
    """The estimators by name: the shortest of class, class with coupling, and representation that tells them apart."""
    if isinstance(estimators, Mapping):
        named = dict(estimators)
    else:
        each = [estimators] if isinstance(estimators, Estimator | type | str) else list(estimators)
        named = dict(enumerate(each))
    if not named:
        raise ValueError("there are no estimators.")
    for estimator in named.values():
        if not isinstance(estimator, Estimator):
            raise TypeError(f"estimators must be objects such as rf.PositiveFeatures(), got {shown(estimator)}.")
    if isinstance(estimators, Mapping):
        texts = {str(name): estimator for name, estimator in named.items()}
        if len(texts) < len(named):
            raise ValueError(f"two names are the same as text: {', '.join(map(repr, named))}.")
        return texts
    names = [type(e).__name__ for e in named.values()]
    with_coupling = [
        f"{name}, {type(e.coupling).__name__}" if e.has_coupling else name
        for name, e in zip(names, named.values(), strict=True)
    ]
    for candidates in (names, with_coupling, [repr(e) for e in named.values()]):
        if len(set(candidates)) == len(candidates):
            return dict(zip(candidates, named.values(), strict=True))
    raise ValueError("two estimators are equal; give each one once, or a dictionary with names.")
