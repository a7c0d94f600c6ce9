"""Tensors and JAX arrays on the CPU: the NumPy executor on views of their numbers, where nobody watches them."""

import numpy as np
import pytest

import randfeat as rf
from randfeat._array import host_twins
from randfeat.attention.executors import GenericExecutor
from randfeat.attention.host.executor import HostExecutor
from randfeat.attention.numpy.tables import Tables
from randfeat.attention.problem import Problem
from tests.arrays import asarray, eps_of, to_numpy
from tests.conftest import load_backend

L, D, DV, M = 70, 5, 3, 16
PRESENT = np.arange(L) % 3 != 1
OPTIONS = {
    "full": {},
    "causal": {"is_causal": True},
    "mask": {"key_mask": PRESENT},
    "causal mask": {"is_causal": True, "key_mask": PRESENT},
    "lengths": {"key_lengths": np.array([40, 70])},
    "state": {"is_causal": True, "return_state": True},
    "grouped": {"enable_gqa": True, "is_causal": True},
    "layout": {"layout": "blhd"},
    "offset": {"is_causal": True, "causal_offset": 2},
    "decay": {"is_causal": True, "decay": 0.9},
    "window": {"is_causal": True, "window": 4},
    "ends": {"key_ends": np.arange(L)[::-1].copy()},
    "bias": {"key_bias": np.linspace(-1, 1, L)},
    "packed": {"cu_seqlens": [0, 30, L]},
}


@pytest.fixture(params=["torch", "jax.numpy"])
def xp(request):
    return load_backend(request.param)


@pytest.fixture
def answers(recorded):
    """What the host executor found, call by call; None where it left a problem to the next one."""
    return recorded(HostExecutor, "attend")


def numbers(rng, options):
    """Query, key and value of two sequences with four heads; with two key heads where heads are grouped."""
    shapes = [(2, 4, L, D), *((2, 2 if "enable_gqa" in options else 4, L, width) for width in (D, DV))]
    arrays = [rng.standard_normal(shape) for shape in shapes]
    return [np.swapaxes(x, 1, 2) for x in arrays] if "layout" in options else arrays


def moved(xp, options, dtype):
    """Arrays of the options in a library."""
    return {
        name: (asarray(xp, x, dtype) if x.dtype == np.float64 else xp.asarray(x)) if isinstance(x, np.ndarray) else x
        for name, x in options.items()
    }


@pytest.mark.parametrize("case", OPTIONS)
def test_jax_arrays_give_the_numbers_of_numpy(jax, answers, rng, case):
    """To the last bit, every relation."""
    options = OPTIONS[case]
    host = numbers(rng, options)
    phi = rf.PositiveFeatures().draw(D, M, rng=0, like=host[0], batch_shape=(4,))
    given = [jax.numpy.asarray(x) for x in host]
    out = rf.linear_attention(*given, phi.to(given[0]), **moved(jax.numpy, options, "float64"))
    assert answers[0] is not None
    expected = rf.linear_attention(*host, phi, **options)
    for ours, theirs in zip(
        [out[0], *out[1].arrays] if isinstance(out, tuple) else [out],
        [expected[0], *expected[1].arrays] if isinstance(out, tuple) else [expected],
        strict=True,
    ):
        assert isinstance(ours, jax.Array)
        assert np.array_equal(to_numpy(ours), theirs)


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("case", OPTIONS)
def test_tensors_give_the_numbers_of_numpy_and_of_the_generic_pass(torch, rng, case, dtype):
    """Where the NumPy executor takes the problem, to the last bit, and of the generic one up to rounding."""
    xp, options = load_backend("torch"), OPTIONS[case]
    given = [asarray(xp, x, dtype) for x in numbers(rng, options)]
    phi = rf.PositiveFeatures().draw(D, M, rng=0, like=given[0], batch_shape=(4,))
    before = [x.clone() for x in given]
    problem = Problem.of(*given, phi, **moved(xp, options, dtype))
    found, (outputs, state) = HostExecutor().attend(problem), GenericExecutor().attend(problem)
    whole = rf.linear_attention(*given, phi, **moved(xp, options, dtype))
    whole, after = whole if "return_state" in options else (whole, None)
    size = 2**-7 if dtype == "bfloat16" else 64 * eps_of(dtype)
    generic = to_numpy(problem.inputs.restore(outputs))
    np.testing.assert_allclose(to_numpy(whole), generic, rtol=size, atol=size)
    assert whole.dtype == given[2].dtype
    assert all(map(torch.equal, given, before))
    if after is not None:
        for ours, theirs in zip(after.arrays, state.arrays, strict=True):
            np.testing.assert_allclose(to_numpy(ours), to_numpy(theirs), rtol=size, atol=64 * size)
    if found is None or dtype == "bfloat16":
        return
    host, of_host = [x.numpy() for x in given], {}
    for name, x in options.items():
        of_host[name] = x.astype(dtype) if isinstance(x, np.ndarray) and x.dtype == np.float64 else x
    expected = rf.linear_attention(*host, phi.to(host[0]), **of_host)
    assert np.array_equal(whole.numpy(), expected if after is None else expected[0])


@pytest.mark.parametrize("is_causal", [False, True])
def test_gradients_equal_those_of_numpy_and_the_generic_pass(xp, rng, is_causal):
    given = [asarray(xp, x) for x in rng.standard_normal((4, 2, L, D))]
    phi = rf.PositiveFeatures().draw(D, M, rng=0, like=given[0])
    found = rf.linear_attention_vjp(*given[:3], phi, given[3], is_causal=is_causal)
    host = [to_numpy(x) for x in given]
    of_numpy = rf.linear_attention_vjp(*host[:3], phi.to(host[0]), host[3], is_causal=is_causal)
    problem = Problem.of(*host[:3], phi.to(host[0]), is_causal=is_causal)
    generic = GenericExecutor().pull_back(problem, host[3], None, None)
    for ours, theirs, slow in zip(found, of_numpy, generic, strict=True):
        assert type(ours) is type(given[0])
        assert np.array_equal(to_numpy(ours), theirs)
        np.testing.assert_allclose(theirs, slow, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("stride", ["transposed", "every second", "repeated"])
def test_any_strides(torch, answers, rng, stride):
    """Heads after the length, numbers apart from one another, and one number for many."""
    wide = torch.from_numpy(rng.standard_normal((3, 2, L, 4, 2 * D)))
    if stride == "transposed":
        given = [x[..., :D].transpose(1, 2) for x in wide]
    elif stride == "every second":
        given = [x[..., ::2].transpose(1, 2) for x in wide]
    else:
        given = [x[:1, :, :1, :D].transpose(1, 2).expand(2, 4, L, D) for x in wide]
    phi = rf.PositiveFeatures().draw(D, M, rng=0, like=given[0])
    for is_causal in (False, True):
        out = rf.linear_attention(*given, phi, is_causal=is_causal)
        expected = rf.linear_attention(*(x.contiguous() for x in given), phi, is_causal=is_causal)
        assert torch.equal(out, expected)
    assert None not in answers


def test_inputs_are_not_copied_and_outputs_own_their_memory(torch, rng):
    given = [torch.from_numpy(x) for x in rng.standard_normal((3, L, D))]
    phi = rf.PositiveFeatures().draw(D, M, rng=0, like=given[0])
    problem = Problem.of(*given, phi, return_state=True)
    twin = problem.on_host()
    for view, x in zip((twin.inputs.query, twin.inputs.key, twin.inputs.value), given, strict=True):
        assert np.shares_memory(view, x.numpy())
    (out,), state = HostExecutor().attend(problem)
    kept = out.clone()
    for x in (*given, *phi.arrays.values()):
        x.zero_()
    assert torch.equal(out, kept)
    out += 1  # no warning, no view of something that others hold
    assert all(np.shares_memory(x.numpy(), x.numpy()) and x.numpy().flags.writeable for x in state.arrays)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # by PyTorch's own jvp
def test_what_is_watched_stays_in_its_library(torch, answers, rng):
    """Forward mode, transformations, other modes of dispatch, subclasses; not inference. What is recorded is asked for
    again, as the numbers of an operator.
    """
    from torch.utils.flop_counter import FlopCounterMode

    x = torch.from_numpy(rng.standard_normal((L, D)))
    phi = rf.PositiveFeatures().draw(D, M, rng=0, like=x)

    def attend(x):
        return rf.linear_attention(x, x, x, phi)

    expected = attend(x)
    assert answers.pop() is not None
    with torch.inference_mode():
        assert torch.equal(attend(x), expected)
    with torch.no_grad():
        assert torch.equal(attend(x.clone().requires_grad_()), expected)
    assert None not in answers
    answers.clear()
    assert attend(x.clone().requires_grad_()).requires_grad
    assert [answer is None for answer in answers] == [True, False]
    answers.clear()
    torch.func.jvp(attend, (x,), (x,))
    torch.func.vmap(attend)(x[None])
    with FlopCounterMode(display=False) as counter:
        attend(x)
    assert counter.get_total_flops() > 0
    with torch.autograd.forward_ad.dual_level():
        attend(torch.autograd.forward_ad.make_dual(x, x))
    assert answers == [None] * 4
    assert host_twins(x.as_subclass(type("Marked", (torch.Tensor,), {}))) is None
    assert host_twins(x.to("meta")) is None


def test_rows_that_record_stay_in_their_library(torch, answers, rng):
    x = torch.from_numpy(rng.standard_normal((L, D)))
    phi = rf.PositiveFeatures().draw(D, M, rng=0, like=x)
    rows = phi.arrays["rows"].clone().requires_grad_()
    rf.linear_attention(x, x, x, rf.FeatureMap(phi.estimator, D, M, {"rows": rows})).sum().backward()
    assert answers == [None]
    assert rows.grad.abs().max() > 0


def test_arrays_of_two_libraries_are_refused(torch, rng):
    x = rng.standard_normal((L, D))
    phi = rf.PositiveFeatures().draw(D, M, rng=0)
    for call in (lambda y: rf.linear_attention(y, y, y, phi), phi):
        with pytest.raises(TypeError, match="one array library"):
            call(torch.from_numpy(x))


def test_writes_into_a_map_are_noticed(torch, rng):
    """What is kept with a map is that of its numbers, also where PyTorch does not count the writes."""
    x = torch.from_numpy(rng.standard_normal((L, D)))
    phi, other = (rf.PositiveFeatures().draw(D, M, rng=seed, like=x) for seed in (0, 1))
    first = rf.linear_attention(x, x, x, phi)
    kept = phi.kept[Tables]
    assert torch.equal(rf.linear_attention(x, x, x, phi), first)
    assert phi.kept[Tables] is kept
    phi.arrays["rows"].data.copy_(other.arrays["rows"])
    assert torch.equal(rf.linear_attention(x, x, x, phi), rf.linear_attention(x, x, x, other))
    assert not torch.equal(first, rf.linear_attention(x, x, x, phi))
    half = phi.kept[Tables]
    rf.linear_attention(*[x.float()] * 3, phi)
    assert phi.kept[Tables] is not half  # of another dtype
    for name in ("scale", "dtype"):
        options = {"scale": 0.7} if name == "scale" else {}
        y = x if name == "scale" else x.float()
        fresh = rf.PositiveFeatures().draw(D, M, rng=1, like=x)
        assert torch.equal(rf.linear_attention(y, y, y, phi, **options), rf.linear_attention(y, y, y, fresh, **options))


def test_threads_are_those_of_the_library(torch, monkeypatch, rng):
    x = torch.from_numpy(rng.standard_normal((L, D)))
    problem = Problem.of(x, x, x, rf.PositiveFeatures().draw(D, M, rng=0, like=x))
    monkeypatch.delenv("RANDFEAT_NUM_THREADS", raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert problem.on_host().num_threads == 3
    monkeypatch.setenv("RANDFEAT_NUM_THREADS", "5")
    assert problem.on_host().num_threads == 5
    given = Problem.of(x, x, x, problem.features, num_threads=7)
    assert given.on_host().num_threads == 7


@pytest.mark.parametrize("estimator", [rf.PositiveFeatures(), rf.TrigonometricFeatures(rf.GaussianKernel())], ids=repr)
def test_features_equal_those_of_numpy(xp, rng, estimator):
    host = rng.standard_normal((3000, D)).astype(np.float32)
    phi = estimator.draw(D, 64, rng=0, like=host)
    x = xp.asarray(host)
    out = phi.to(x)(x)
    assert np.array_equal(to_numpy(out), phi(host))
    assert out.dtype == x.dtype
