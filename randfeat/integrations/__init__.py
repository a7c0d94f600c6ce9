"""Linear attention and random features behind the interfaces of other libraries, each imported when it is used.

    randfeat.integrations.torch          an nn.Module, and a function called like PyTorch's attention
    randfeat.integrations.jax            a function with the signature of JAX's attention, and one for Flax
    randfeat.integrations.torch_autograd, .jax_autograd   backward passes that store only the inputs
    randfeat.integrations.sklearn        a transformer, and ridge regression on random features
    randfeat.integrations.transformers   an attention implementation for pretrained models
    randfeat.integrations.dask           features, moments and attention of arrays in chunks

Each module needs its library; if it is missing, the error names the command, such as `pip install '.[torch]'`, to be
run in a clone.
"""

from typing import TYPE_CHECKING

from randfeat._hints import lazy_modules

__all__ = ["dask", "jax", "jax_autograd", "sklearn", "torch", "torch_autograd", "transformers"]

if TYPE_CHECKING:
    from randfeat.integrations import dask, jax, jax_autograd, sklearn, torch, torch_autograd, transformers
else:
    __getattr__, __dir__ = lazy_modules("randfeat.integrations", __all__)
