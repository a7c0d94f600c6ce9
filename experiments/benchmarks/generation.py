"""Time of a generated token after prompts of several lengths: caches with all keys, with sums, and with merged keys."""

import importlib.util
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import numpy as np

from experiments.benchmarks.goals import Goal, goal_table
from experiments.benchmarks.timing import Call, NotHere, Times, interleaved, medians, ratio
from experiments.results import Summary
from randfeat._hints import how_to_install
from randfeat._numpy.threads import resolve_num_threads

__all__ = ["continuations", "generation_tables"]

SDPA, SUMS, MERGED = "SDPA, DynamicCache", "randfeat, StateCache", "randfeat, CompressedCache"
LENGTHS, QUICK_LENGTHS = (256, 1024, 4096, 8192), (256,)
TOKENS, QUICK_TOKENS = 32, 4  # of a timed call
ROUNDS, QUICK_ROUNDS = 7, 3
SIZES = {
    "vocab_size": 1000,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "max_position_embeddings": 16384,
}
FEATURES = 256
MERGING: dict[str, Any] = {"num_keys": 64, "window": TOKENS, "num_sinks": 4}  # so every timed call merges keys once

LONG_OVER_SHORT = 1.2
FASTER_FROM = 4096  # tokens


def generation_tables(*, quick: bool, report: Callable[[str], None]) -> tuple[list[Summary], list[str]]:
    """A table of milliseconds for each token, of the goals, and notes."""
    if not all(importlib.util.find_spec(name) for name in ("torch", "transformers")):
        raise NotHere(f"the benchmark generate needs transformers: {how_to_install('transformers')}.")
    lengths, tokens, rounds = (QUICK_LENGTHS, QUICK_TOKENS, QUICK_ROUNDS) if quick else (LENGTHS, TOKENS, ROUNDS)
    models = make_models()
    columns: dict[int, Times] = {}
    for length in lengths:
        report(f"generate, after {length} tokens")
        columns[length] = interleaved(continuations(models, length, tokens), rounds)
    return [time_table(columns, tokens), goal_table("Generated tokens", goals(columns))], [
        f"Llama-like model with random weights: {SIZES}. StateCache: {FEATURES} positive features for each key head. "
        f"CompressedCache: {MERGING}.",
        f"A timed call generates {tokens} tokens after all earlier ones, which the cache has. The prompt is not timed. "
        f"With all rounds a text grows by up to {2 * tokens * (rounds + 1)} tokens.",
    ]


def make_models() -> dict[str, Any]:
    """The same weights with exact attention, and with linear and compressed attention."""
    import torch
    import transformers

    from randfeat.integrations.transformers import register

    torch.set_num_threads(resolve_num_threads(None))
    register(num_features=FEATURES, method="linear", share_maps=True, name="randfeat-benchmark-linear")
    register(method="compressed", name="randfeat-benchmark-compressed", **MERGING)
    models: dict[str, Any] = {}
    for name, attention in (
        (SDPA, "sdpa"),
        (SUMS, "randfeat-benchmark-linear"),
        (MERGED, "randfeat-benchmark-compressed"),
    ):
        config = transformers.LlamaConfig(**SIZES, pad_token_id=0, eos_token_id=None)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            models[name] = transformers.LlamaForCausalLM(config).eval()
        models[name].set_attn_implementation(attention)
    return models


def make_cache(name: str, model: Any) -> Any:
    """An empty cache for `generate`."""
    if name == SDPA:
        from transformers import DynamicCache

        return DynamicCache(config=model.config)
    caches: Any = import_module("randfeat.integrations.transformers")
    return caches.StateCache(model.config) if name == SUMS else caches.CompressedCache(model.config)


def continuations(models: Mapping[str, Any], length: int, tokens: int) -> dict[str, Call]:
    """Calls that generate more tokens, each after all that its contender has read and written so far."""
    import torch

    prompt = torch.from_numpy(np.random.default_rng(0).integers(1, SIZES["vocab_size"], size=(1, length)))
    calls: dict[str, Call] = {}
    for name, model in models.items():
        cache = make_cache(name, model)
        calls[name] = continuation(model, cache, generated(model, cache, prompt, 1), tokens)
    return calls


def generated(model: Any, cache: Any, text: Any, tokens: int) -> Any:
    """The text with so many more tokens; the cache has all but the last of its tokens, or none."""
    import torch

    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # later versions call the argument `cache`, older ones do not
        return model.generate(text, past_key_values=cache, max_new_tokens=tokens, do_sample=False)


def continuation(model: Any, cache: Any, text: Any, tokens: int) -> Call:
    """A call that generates `tokens` tokens, and remembers them."""
    texts = [text]

    def call() -> object:
        texts[0] = generated(model, cache, texts[0], tokens)
        return texts[0]

    return call


def time_table(columns: Mapping[int, Times], tokens: int) -> Summary:
    """Milliseconds for a token."""
    names = list(next(iter(columns.values())))
    rows = [(name, *(f"{1e3 * medians(times)[name] / tokens:.2f}" for times in columns.values())) for name in names]
    header = ("cache", *(f"after {length}" for length in columns))
    return Summary("Milliseconds for a generated token, batch of 1, by the length of the prompt", header, tuple(rows))


def goals(columns: Mapping[int, Times]) -> list[Goal]:
    """Constant time for a token, and less than with all keys after long prompts."""
    short, long = min(columns), max(columns)
    found = []
    for name in (SUMS, MERGED):
        if long > short:
            value = medians(columns[long])[name] / medians(columns[short])[name]
            what = f"{name}: time after {long} over that after {short} tokens"
            found.append(Goal(what, value, LONG_OVER_SHORT if name == SUMS else None, at_least=False))
        for length, times in columns.items():
            bound = 1.0 if name == SUMS and length >= FASTER_FROM else None
            found.append(Goal(f"{name} over {SDPA}, after {length}", ratio(times, name, SDPA), bound, at_least=False))
    return found
