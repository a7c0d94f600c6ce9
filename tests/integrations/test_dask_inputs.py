"""Arrays and tables of Dask where others are expected: nothing loads them silently, and errors name the way."""

import numpy as np
import pytest

import randfeat as rf
from tests.arrays import same_bits

INSTALL = "pip install '.[dask]'"
da = pytest.importorskip("dask.array", reason=INSTALL)
from randfeat.integrations import dask as integration  # noqa: E402
from randfeat.integrations.sklearn import (  # noqa: E402
    RandomFeatureRidge,
    RandomFeatureRidgeClassifier,
    RandomFeatures,
)

DATA = np.linspace(-1, 1, 36).reshape(12, 3)
MAP = rf.PositiveFeatures().draw(3, 8, rng=0)
TRANSFORMER = RandomFeatures(n_components=8, random_state=0).fit(DATA)
RIDGE = RandomFeatureRidge(n_components=8, random_state=0).fit(DATA, DATA[:, 0])
CLASSIFIER = RandomFeatureRidgeClassifier(n_components=8, random_state=0).fit(DATA, DATA[:, 0] > 0)


class Lazy:
    """What Dask and Polars have in common: NumPy can convert it, and that computes everything."""

    def __init__(self, data):
        self.shape, self.ndim = data.shape, data.ndim

    def __len__(self):
        return self.shape[0]

    def __array__(self, dtype=None, copy=None):
        raise AssertionError("a table was loaded")


class Table(Lazy):
    """As a DataFrame of `dask.dataframe`."""

    def __dask_graph__(self):
        return {}

    def to_dask_array(self, lengths=None):
        raise AssertionError("a table was loaded")


class Query(Lazy):
    """As a LazyFrame of Polars."""

    def collect(self):
        raise AssertionError("a table was loaded")


class Frame(Lazy):
    """As a DataFrame of pandas or Polars."""

    def to_numpy(self):
        raise AssertionError("a table was converted")


IN_MEMORY = {
    "a map": lambda x: MAP(x),
    "queries": lambda x: MAP.queries(x),
    "an estimate": lambda x: MAP.estimate(DATA, x),
    "a draw": lambda x: MAP.estimator.draw(3, 8, rng=0, like=x),
    "a kernel": lambda x: rf.GaussianKernel()(DATA, x),
    "a closed form": lambda x: MAP.estimator.variance(x, DATA, num_features=8),
    "moments": lambda x: rf.FeatureMoments.of(MAP, x),
    "attention": lambda x: rf.linear_attention(x, DATA, DATA, MAP),
    "exact attention": lambda x: rf.softmax_attention(DATA, DATA, x),
    "adapt": lambda x: rf.adapt(x, DATA),
    "recommend": lambda x: rf.recommend(DATA, x, num_features=8),
    "functions": lambda x: rf.prior_functions(MAP, 3, rng=0)(x),
    "diagnostics": lambda x: rf.attention_diagnostics(x, DATA, MAP),
    "a forecast": lambda x: rf.predict_attention_error(MAP.estimator, DATA, x, DATA, 8),
    "an audit": lambda x: rf.output_error(DATA, DATA, DATA, x),
    "a curve": lambda x: rf.montecarlo.error_curve(MAP.estimator, DATA, x, num_features=8, num_draws=2),
    "a curve of attention": lambda x: rf.montecarlo.error_curve(
        MAP.estimator, query=DATA, key=x, value=DATA, num_features=8, num_draws=2
    ),
    "numbers of features": lambda x: rf.num_features_for(MAP.estimator, x, DATA, rel_error=0.1),
}
MASKS = {
    "adapt": lambda x: rf.adapt(DATA, DATA, key_mask=x),
    "adapt, queries": lambda x: rf.adapt(DATA, DATA, query_mask=x),
    "recommend": lambda x: rf.recommend(DATA, DATA, num_features=8, key_mask=x),
    "diagnostics": lambda x: rf.attention_diagnostics(DATA, DATA, MAP, key_mask=x),
    "a forecast": lambda x: rf.predict_attention_error(MAP.estimator, DATA, DATA, DATA, 8, key_mask=x),
    "an audit": lambda x: rf.output_error(DATA, DATA, DATA, DATA, query_mask=x),
}
SKLEARN = {
    "RandomFeatures.fit": lambda x: RandomFeatures().fit(x),
    "RandomFeatures.partial_fit": lambda x: RandomFeatures().partial_fit(x),
    "RandomFeatures.fit_transform": lambda x: RandomFeatures().fit_transform(x),
    "RandomFeatureRidge.fit": lambda x: RandomFeatureRidge().fit(x, DATA[:, 0]),
    "RandomFeatureRidge.fit, targets": lambda x: RandomFeatureRidge().fit(DATA, x),
    "RandomFeatureRidge.predict": lambda x: RIDGE.predict(x),
    "RandomFeatureRidgeClassifier.fit": lambda x: RandomFeatureRidgeClassifier().fit(x, DATA[:, 0] > 0),
    "RandomFeatureRidgeClassifier.predict": lambda x: CLASSIFIER.predict(x),
    "RandomFeatureRidgeClassifier.decision_function": lambda x: CLASSIFIER.decision_function(x),
}
BLOCKWISE = {
    "features": lambda x: integration.features(MAP, x),
    "moments": lambda x: integration.feature_moments(MAP, x),
    "targets": lambda x: integration.feature_moments(MAP, da.from_array(DATA), x),
    "attention": lambda x: integration.linear_attention(da.from_array(DATA), x, da.from_array(DATA), MAP),
}


def cases(*tables):
    return pytest.mark.parametrize(
        "call", [call for t in tables for call in t.values()], ids=[k for t in tables for k in t]
    )


@cases(IN_MEMORY, SKLEARN, {"RandomFeatures.transform": lambda x: TRANSFORMER.transform(x)})
def test_tables_that_are_not_in_memory_are_refused_and_not_loaded(call):
    with pytest.raises(TypeError, match=r"must be in memory, got a .* Table; .*\.to_dask_array\(lengths=True\)\.$"):
        call(Table(DATA))
    with pytest.raises(TypeError, match=r"must be in memory, got a .* Query; \w+\.collect\(\) loads it\.$"):
        call(Query(DATA))


@cases(SKLEARN)
def test_estimators_of_scikit_learn_do_not_load_dask_arrays(call):
    with pytest.raises(
        TypeError, match=r"[Xy] must be in memory, got a dask Array; .*blocks\[i\]\.compute\(\) a block"
    ):
        call(da.from_array(DATA, chunks=(5, 3)))


def test_the_transformer_of_scikit_learn_works_block_by_block():
    data = DATA.astype(np.float32)
    x = da.from_array(data, chunks=(5, 2))
    z = TRANSFORMER.transform(x)
    assert (type(z), z.chunks, z.dtype) == (da.Array, ((5, 5, 2), (8,)), np.float32)
    assert same_bits(z.compute(), np.concatenate([TRANSFORMER.transform(part) for part in np.split(data, (5, 10))]))
    with pytest.raises(ValueError, match="x has dimension 2, but the features were drawn for 3"):
        TRANSFORMER.transform(x[:, :2])


@cases(
    {name: IN_MEMORY[name] for name in ("a closed form", "adapt", "recommend", "diagnostics", "a forecast", "an audit",
                                        "a curve", "a curve of attention", "numbers of features")},
    {f"a mask of {name}": call for name, call in MASKS.items()},
)  # fmt: skip
def test_what_is_computed_on_the_host_loads_no_dask_arrays(call):
    """With the name of the argument, and before any block is computed."""

    def block(block_id=None):
        raise AssertionError("a block was computed")

    x = da.map_blocks(block, chunks=((12,), (3,)), dtype=np.float64, meta=np.empty((0, 0)))
    with pytest.raises(TypeError, match=r"^\w+ must be in memory, got a dask Array; \w+\.compute\(\) loads it"):
        call(x)


@cases({name: IN_MEMORY[name] for name in ("a map", "queries", "an estimate", "moments", "attention", "functions")})
def test_a_map_of_numpy_arrays_names_the_module_for_dask_arrays(call):
    with pytest.raises(
        TypeError, match=r"got dask\.Array, numpy\.ndarray; .*integrations\.dask computes features\(phi, x\)"
    ):
        call(da.from_array(DATA, chunks=(5, 3)))


@cases(BLOCKWISE)
def test_the_module_for_dask_arrays_says_how_to_make_one(call):
    makes = {
        Table: r"\.to_dask_array\(lengths=True\)",
        Frame: r"from_array\(\w+\.to_numpy\(\)\)",
        np.asarray: r"from_array\(\w+\)",
    }
    for kind, expression in makes.items():
        with pytest.raises(TypeError, match=rf"must be a dask array, got \w+; .*{expression} makes one"):
            call(kind(DATA))


def test_a_mask_that_is_a_column_of_a_table_is_not_loaded():
    x = da.from_array(DATA, chunks=(5, 3))
    with pytest.raises(TypeError, match=r"key_mask must be in memory, .* key_mask\.to_dask_array\(lengths=True\)"):
        integration.linear_attention(x, x, x, MAP, key_mask=Table(DATA[:, 0]))
