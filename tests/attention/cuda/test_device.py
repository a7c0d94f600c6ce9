"""On a CUDA device: the fused kernels against the generic pass, on CuPy and on NumPy. `pytest -m gpu`."""

import numpy as np
import pytest

import randfeat as rf
from randfeat.attention import executors
from randfeat.attention.cuda import executor
from tests.arrays import asarray, dtype_of, eps_of, same_bits, to_numpy
from tests.attention.cuda.test_kernels import inputs_of, worst_error
from tests.attention.test_causal import FUTURES
from tests.attention.test_linear import LAYOUTS, MAPS, problem
from tests.attention.test_numpy_executor import DTYPES, EXTREMES, FORMS, MODES, draw
from tests.conftest import load_backend
from tests.reference import naive_attention

pytestmark = pytest.mark.gpu


@pytest.fixture
def cupy():
    return load_backend("cupy")


@pytest.fixture
def launched(monkeypatch):
    """The kernels that were launched."""
    names, launch = [], executor.launch_on_device

    def counted(kernel, blocks, *arguments):
        names.append(kernel)
        launch(kernel, blocks, *arguments)

    monkeypatch.setattr(executor, "launch_on_device", counted)
    return names


def on_device(cupy, query, key, value, phi, **options):
    """The output for these NumPy arrays, computed on the device."""
    arrays = [cupy.asarray(x) for x in (query, key, value)]
    if "key_mask" in options:
        options["key_mask"] = cupy.asarray(options["key_mask"])
    return to_numpy(rf.linear_attention(*arrays, phi.to(arrays[0]), **options))


@DTYPES
@MODES
@pytest.mark.parametrize("name", FORMS)
def test_every_form(monkeypatch, cupy, launched, rng, name, is_causal, dtype):
    phi, options = draw(name, (3,), num_features=256, dtype=dtype)
    inputs = inputs_of(rng, 3, 1000, 1000, 5, 64, dtype)
    options |= {"is_causal": is_causal, "key_mask": rng.random((3, 1000)) < 0.8}
    out = on_device(cupy, *inputs, phi, **options)
    assert launched
    assert worst_error(monkeypatch, *inputs, phi, out, **options) < 1


@DTYPES
@MODES
@pytest.mark.parametrize(
    "sizes", [(1, 1, 1, 1), (300, 64, 64, 256), (4097, 128, 128, 1000), (513, 256, 256, 77)], ids=str
)
def test_the_generic_pass_on_the_device(monkeypatch, cupy, launched, rng, sizes, is_causal, dtype):
    length, dim, value_dim, num_features = sizes
    inputs = inputs_of(rng, 2, length, length, dim, value_dim, dtype)
    phi = rf.PositiveFeatures().draw(dim, num_features, rng=0, like=inputs[0])
    fused = on_device(cupy, *inputs, phi, is_causal=is_causal)
    assert launched
    launched.clear()
    monkeypatch.setattr(executors, "EXECUTORS", executors.EXECUTORS[-1:])
    generic = on_device(cupy, *inputs, phi, is_causal=is_causal)
    assert not launched
    for out in (fused, generic):
        assert worst_error(monkeypatch, *inputs, phi, out, is_causal=is_causal) < 1


@MODES
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(cupy, rng, layout, is_causal):
    query, key, value, options = problem(rng, layout)
    for batch_shape in [(), *(shape for name, shape in MAPS if name == layout)]:
        phi, _ = draw("hyperbolic", batch_shape)
        expected = naive_attention(phi, query, key, value, is_causal=is_causal, **options)
        expected.check(on_device(cupy, query, key, value, phi, is_causal=is_causal, **options), 2.0**-52)


@MODES
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision(cupy, launched, rng, dtype, is_causal):
    kind = dtype_of(cupy, dtype)
    arrays = [asarray(cupy, x, dtype) for x in inputs_of(rng, 2, 300, 300, 64, 64, "float64")]
    phi = rf.PositiveFeatures().draw(64, 256, rng=0, like=np.zeros(1, "float32"))
    out = rf.linear_attention(*arrays, phi.to(arrays[0]), is_causal=is_causal)
    assert launched
    assert out.dtype == kind
    wide = [to_numpy(x) for x in arrays]
    expected = rf.linear_attention(*wide, phi.to(wide[0]), is_causal=is_causal)
    rounding = 0.5 * eps_of(dtype) * np.abs(expected) + 1000 * eps_of("float32") * np.abs(wide[2]).max()
    assert np.all(np.abs(to_numpy(out) - expected) <= rounding)


@MODES
@DTYPES
@pytest.mark.parametrize("extreme", EXTREMES)
def test_extremes(monkeypatch, cupy, rng, extreme, dtype, is_causal):
    query, key = rng.standard_normal((2, 40, 5))
    inputs = [x.astype(dtype) for x in EXTREMES[extreme](query, key, rng.standard_normal((40, 3)))]
    phi, _ = draw("centered", num_features=16, dtype=dtype)
    out = on_device(cupy, *inputs, phi, is_causal=is_causal)
    assert worst_error(monkeypatch, *inputs, phi, out, is_causal=is_causal) < 1


@pytest.mark.parametrize("future", FUTURES)
def test_outputs_never_see_the_future(cupy, rng, future):
    phi, _ = draw("positive", num_features=200)
    inputs = 3 * rng.standard_normal((3, 2, 700, 5))
    clean = on_device(cupy, *inputs, phi, is_causal=True)
    for now in (0, 7, 15, 31, 63, 64, 300, 555):
        changed = inputs.copy()
        with np.errstate(invalid="ignore"):
            changed[:, :, now + 1 :] = FUTURES[future](changed[:, :, now + 1 :])
        out = on_device(cupy, *changed, phi, is_causal=True)
        assert same_bits(out[:, : now + 1], clean[:, : now + 1])


@MODES
def test_runs_repeat_and_states_go_on(cupy, rng, is_causal):
    """A race would show: the same bits in twenty runs. States pass from call to call."""
    arrays = [cupy.asarray(x) for x in inputs_of(rng, 4, 2000, 2000, 64, 64, "float32")]
    phi = rf.PositiveFeatures().draw(64, 256, rng=0, like=arrays[0])
    options = {"is_causal": is_causal, "return_state": True}
    out, state = rf.linear_attention(*arrays, phi, **options)
    for _ in range(20):
        assert same_bits(rf.linear_attention(*arrays, phi, is_causal=is_causal), out)
    first, last = ([x[:, part] for x in arrays] for part in (slice(0, 777), slice(777, None)))
    _, middle = rf.linear_attention(*first, phi, **options)
    rest, end = rf.linear_attention(*last, phi, initial_state=middle, **options)
    np.testing.assert_allclose(to_numpy(rest), to_numpy(out)[:, 777:], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(to_numpy(end.total), to_numpy(state.total), rtol=1e-3)
