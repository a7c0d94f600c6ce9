"""Examples of integrations are collected where their library is installed."""

from importlib.util import find_spec

EXAMPLES = {
    "randfeat/integrations/torch.py": ("torch",),
    "randfeat/integrations/torch_autograd.py": ("torch",),
    "randfeat/integrations/jax.py": ("jax",),
    "randfeat/integrations/jax_autograd.py": ("jax",),
    "randfeat/integrations/transformers.py": ("torch", "transformers"),
    "randfeat/integrations/sklearn": ("sklearn",),
    "randfeat/integrations/dask.py": ("dask",),
    "randfeat/integrations/dask_blocks.py": ("dask",),
    "docs/integrations.md": ("torch", "jax", "sklearn", "dask"),
    "docs/larger_than_memory.md": ("dask",),
    "docs/coming_from/performer_pytorch.md": ("torch",),
    "docs/coming_from/gpytorch.md": ("torch",),
    "docs/coming_from/sklearn.md": ("sklearn",),
    "docs/faq.md": ("torch",),
}

collect_ignore = [path for path, libraries in EXAMPLES.items() if not all(map(find_spec, libraries))]
