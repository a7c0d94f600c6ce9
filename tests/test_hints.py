"""What a newcomer guesses: it works, or one line names the right word."""

import copy
import inspect
import pickle
import re

import numpy as np
import pytest

import randfeat as rf
from randfeat._hints import Hinted, hinted
from randfeat._hints.words import HOMES, KEYWORDS, NAMES, NOTES

X = np.ones((4, 3))
PHI = rf.PositiveFeatures().draw(3, 4, rng=0)


# twenty guesses, and what is answered; None where the guess is right -----------------------------------------------

GUESSES = {
    "rf.MaternKernel(nu=2.5)": "the word here is smoothness",
    "rf.GaussianKernel(gamma=0.5)": r"the word here is length_scale (gamma = 1/(2 length_scale²))",
    "rf.GaussianKernel(lengthscale=2.0)": "the word here is length_scale",
    "rf.GaussianKernel(2.0)": None,
    "rf.GaussianKernel(sigma=2.0)": "the word here is length_scale",
    "rf.linear_attention(X, X, X, PHI, causal=True)": "the word here is is_causal",
    "rf.linear_attention(X, X, X, PHI, attn_mask=None)": "the word here is key_mask (one mask for all queries",
    "rf.softmax_attention(X, X, X, mask=None)": "the word here is key_mask (bool, True = take part)",
    "rf.softmax_attention(X, X, X, is_causal=True, enable_gqa=False)": None,
    "rf.linear_attention_vjp(X, X, X, PHI, X, causal=True)": "the word here is is_causal",
    "rf.attention_method(X, X, X, PHI, sliding_window=3)": "the word here is window",
    "rf.PositiveFeatures().draw(3, 4, seed=0)": "the word here is rng",
    "rf.PositiveFeatures().draw(3, 4, random_state=0)": "the word here is rng",
    "rf.PositiveFeatures().draw(3, 4, rng=np.random.default_rng(0))": None,
    "rf.PositiveFeatures().draw(3, n_components=4)": "the word here is num_features",
    "rf.PositiveFeatures().draw(3, m=4)": "the word here is num_features (the length of φ(x); estimator.num_features",
    "rf.PositiveFeatures().draw(3, 4, dtype='float32')": "the word here is like (an array whose library, dtype",
    "rf.PositiveFeatures().draw(3, 4, num_heads=8)": "the word here is batch_shape (batch_shape=(num_heads,))",
    "rf.PositiveFeatures(coupling='orthogonal')": None,
    "rf.PositiveFeatures(orthogonal=True)": 'the word here is coupling (coupling="orthogonal")',
    "rf.PositiveFeatures().variance(X, X, num_rows=4)": "the word here is num_features (the length of φ(x)",
    "rf.prior_functions(PHI, seed=0)": "the word here is rng",
    "rf.prior_functions(PHI).given(X, X[:, 0], noise=0.1)": "the word here is noise_variance (the square of",
    "rf.adapt(X, X, seed=0)": "the word here is rng",
    "rf.adapt(X, X, level='centre')": None,
    "rf.adapt(X, X, n_features=8)": "the word here is num_features",
    "rf.recommend(X, X, X, causal=True)": "the word here is is_causal",
    "rf.montecarlo.sample_errors(rf.PositiveFeatures(), X, X, num_features=4, repeats=3)": "the word here is num_draws",
    "rf.linear_attention(X, X, X, PHI, n_jobs=2)": "the word here is num_threads",
    "rf.linear_attention(X, X, X, PHI, num_threads=1)": None,
    "rf.linear_attention(X, X, X, PHI, scal=1.0)": "perhaps scale was meant",
    "rf.GaussianKernel(nu=1.5)": "it takes length_scale",
    "rf.RFF": "RFF is rf.TrigonometricFeatures",
    "rf.RandomFourierFeatures": "random Fourier features are rf.TrigonometricFeatures",
    "rf.FAVOR": "(FAVOR+) are rf.PositiveFeatures, and rf.linear_attention is attention with them",
    "rf.FAVORPlus": "FAVOR+ is rf.PositiveFeatures",
    "rf.Performer": "(FAVOR+) are rf.PositiveFeatures",
    "rf.OPRF": "OPRF is rf.OptimalPositiveFeatures",
    "rf.RBFSampler": "rf.integrations.sklearn.RandomFeatures",
    "rf.RBFKernel": "is rf.GaussianKernel(length_scale=...)",
    "rf.OrthogonalRandomFeatures": 'rf.TrigonometricFeatures(coupling="orthogonal")',
    "rf.performer_attention": "attention through random features is rf.linear_attention",
    "rf.scaled_dot_product_attention": "exact attention is rf.softmax_attention",
    "rf.SoftmaxAttention": "did you mean rf.softmax_attention?",
    "rf.GaussianKernal": "did you mean rf.GaussianKernel?",
    "rf.Matern": "did you mean rf.MaternKernel?",
    "rf.catalog": "did you mean rf.catalogue?",
    "rf.ScaledKernel": "it is rf.kernels.ScaledKernel",
    "rf.check_estimator": "it is rf.testing.check_estimator",
    "rf.integrations.pytorch": "did you mean rf.integrations.torch?",
}


@pytest.mark.parametrize(("guess", "answer"), GUESSES.items(), ids=str)
def test_guesses(guess, answer):
    if answer is None:
        eval(guess)
        return
    with pytest.raises((TypeError, AttributeError), match=re.escape(answer)) as caught:
        eval(guess)
    message = str(caught.value)
    assert "\n" not in message
    assert "got an unexpected keyword argument" in message or "has no attribute" in message


# the tables say what is there --------------------------------------------------------------------------------------


def mentioned(text):
    """Every `rf....` in a text, without its arguments."""
    return re.findall(r"\brf(?:\.\w+)+", text)


@pytest.mark.parametrize("sentence", sorted({*NAMES.values(), *NOTES.values()}))
def test_hints_name_what_exists(sentence):
    for path in mentioned(sentence):
        thing = rf
        for part in path.split(".")[1:]:
            if getattr(thing, "__name__", "") == "randfeat.integrations":
                pytest.importorskip(part)
            thing = getattr(thing, part)
    assert "rf." in sentence or sentence in NOTES.values()


def test_no_alias_is_silent():
    for name in NAMES:
        assert not hasattr(rf, name), name
    for home in HOMES:
        assert getattr(rf, home).__all__


def is_error(thing):
    return inspect.isclass(thing) and issubclass(thing, Exception)


def test_right_words_are_words_of_the_library():
    """Every right word is a keyword of something public, and no slip is one where its right word is one, too."""
    things = [getattr(rf, name) for name in rf.__all__]
    things += [getattr(rf.montecarlo, name) for name in rf.montecarlo.__all__]
    things += [rf.Estimator.draw, rf.regression.SampleFunctions.given]
    signatures = [
        set(inspect.signature(thing).parameters) for thing in things if callable(thing) and not is_error(thing)
    ]
    for word, others in KEYWORDS.items():
        assert any(word in signature for signature in signatures), word
        for slip in others.split():
            both = [signature for signature in signatures if {word, slip} <= signature]
            assert not both, (word, slip)


# nothing else is changed -------------------------------------------------------------------------------------------


def test_signatures_pickles_and_examples_stay():
    assert list(inspect.signature(rf.MaternKernel).parameters) == ["smoothness", "length_scale"]
    assert list(inspect.signature(rf.adapt).parameters)[:2] == ["query", "key"]
    for thing in (rf.linear_attention, rf.adapt, rf.MaternKernel(2.5), rf.PositiveFeatures()):
        assert pickle.loads(pickle.dumps(thing)) == thing
        assert copy.deepcopy(thing) == thing
    assert rf.linear_attention.__globals__ is vars(inspect.getmodule(rf.linear_attention))  # doctest asks this
    assert isinstance(rf.MaternKernel.__signature__, inspect.Signature)  # Sphinx shows it
    assert list(inspect.signature(rf.MaternKernel()).parameters) == ["x", "y"]


def test_errors_from_inside_are_left_alone():
    @hinted
    def strict(scale=1.0):
        return "a" + scale

    with pytest.raises(TypeError, match="can only concatenate str"):
        strict(scale=1.0)
    with pytest.raises(TypeError, match="takes from 0 to 1 positional arguments but 2 were given"):
        strict(1.0, 2.0)


def test_constructors_that_take_any_keyword_say_themselves_what_they_take():
    class Open(Hinted):
        def __init__(self, **options):
            self.options = options

    class Plain(Hinted):
        pass

    assert Open(nu=1).options == {"nu": 1}
    assert isinstance(Plain(), Plain)
    with pytest.raises(TypeError, match=r"Plain\(\) got an unexpected keyword argument 'nu'; it takes none"):
        Plain(nu=1)
    with pytest.raises(TypeError, match="takes 1 positional argument but 2 were given"):
        Plain(1)
    assert str(inspect.signature(rf.Coupling)) == "() -> None"
