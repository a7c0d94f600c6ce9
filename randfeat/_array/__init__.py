"""The only package that knows array libraries: namespaces, dtypes, devices, casting, in-place arithmetic.

Everything else is written once, against the array API standard, with the namespace `xp` that `namespace` finds.
NumPy 2 is itself such a namespace; CuPy, PyTorch, JAX, Dask and array-api-strict come through array-api-compat,
which imports none of them.
"""

from randfeat._array.arguments import as_count, as_generator, broadcasts_to
from randfeat._array.arithmetic import (
    cumulative_sum,
    exp_in_place,
    log_of,
    peak,
    replace_minus_inf,
    squared_norm,
    times_exp,
)
from randfeat._array.conversion import (
    as_floating,
    as_host,
    as_integers,
    cast,
    compute_dtype,
    host_or_none,
    host_to,
    move_to,
    to_numpy,
)
from randfeat._array.cuda import (
    compiled_cuda,
    on_device_of,
)
from randfeat._array.loops import (
    autocast_dtype,
    compiled,
    finish,
    fold,
    gradients,
    is_compiling,
    is_traced,
    looped_fold,
    stop_gradient,
)
from randfeat._array.namespaces import (
    Array,
    Arrays,
    Drawn,
    device_name,
    device_of,
    devices,
    dtype_name,
    is_on_cupy,
    is_on_host,
    is_sparse,
    library_of,
    namespace,
    namespace_named,
)

__all__ = [
    "Array",
    "Arrays",
    "Drawn",
    "as_count",
    "as_floating",
    "as_generator",
    "as_host",
    "as_integers",
    "autocast_dtype",
    "broadcasts_to",
    "cast",
    "compiled",
    "compiled_cuda",
    "compute_dtype",
    "cumulative_sum",
    "device_name",
    "device_of",
    "devices",
    "dtype_name",
    "exp_in_place",
    "finish",
    "fold",
    "gradients",
    "host_or_none",
    "host_to",
    "is_compiling",
    "is_on_cupy",
    "is_on_host",
    "is_sparse",
    "is_traced",
    "library_of",
    "log_of",
    "looped_fold",
    "move_to",
    "namespace",
    "namespace_named",
    "on_device_of",
    "peak",
    "replace_minus_inf",
    "squared_norm",
    "stop_gradient",
    "times_exp",
    "to_numpy",
]
