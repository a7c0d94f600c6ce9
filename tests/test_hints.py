"""What a newcomer guesses: it works, or one line names the right word."""

import copy
import inspect
import pickle
import re

import numpy as np
import pytest

import randfeat as rf
from randfeat._hints import Hinted, hinted
from randfeat._hints.words import HOMES, KEYWORDS, NAMES, NOTES, OF_A_MAP, OF_LIBRARIES

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
    "rf.clustered_attention(X, X, X, is_causal=True)": "is rf.linear_attention or rf.compressed_attention",
    "rf.adapt(X, X, seed=0)": "the word here is rng",
    "rf.adapt(X, X, level='centre')": None,
    "rf.adapt(X, X, n_features=8)": "the word here is num_features",
    "rf.PoissonFeatures.fit(q=X, key=X)": "argument 'q'; the word here is query",
    "rf.OptimalPositiveFeatures.fit(X, k=X)": "the word here is key",
    "rf.BalancedFeatures.fit(X, X, temperature=2.0)": "the word here is scale (scale = 1/temperature)",
    "rf.ComplexExponentialFeatures.for_pair(X[0], X[1], orthogonal=True)": "the word here is coupling",
    "rf.HybridFeatures.multipolar(X, lengthscale=1.0)": "it takes anchors, coupling, kernel, num_frequencies",
    "rf.FeatureMoments.of(PHI, X, targets=X)": "it takes dtype, features, sample_weight, x, y",
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
    "rf.KVCache": "are rf.KeyCache, made by rf.compress",
    "rf.OPRF": "OPRF is rf.OptimalPositiveFeatures",
    "rf.RBFSampler": "rf.integrations.sklearn.RandomFeatures",
    "rf.RBFKernel": "is rf.GaussianKernel(length_scale=...)",
    "rf.OrthogonalRandomFeatures": 'rf.TrigonometricFeatures(coupling="orthogonal")',
    "rf.performer_attention": "attention through random features is rf.linear_attention",
    "rf.scaled_dot_product_attention": "exact attention is rf.softmax_attention",
    "rf.SoftmaxAttention": "did you mean rf.softmax_attention?",
    "rf.GaussianKernal": "did you mean rf.GaussianKernel?",
    "rf.Matern": "did you mean rf.MaternKernel?",
    "rf.elu_feature_map": 'rf.ActivationFeatures(rf.ActivationKernel("elu_plus_one"))',
    "rf.ScaleKernel": "a multiple of a kernel is rf.kernels.ScaledKernel",
    "rf.SelfAttention": "is rf.linear_attention, and as a module of PyTorch rf.integrations.torch.LinearAttention",
    "rf.MultiHeadAttention": "as a module of PyTorch rf.integrations.torch.LinearAttention",
    "rf.FastAttention": "as a module of PyTorch rf.integrations.torch.LinearAttention",
    "rf.RecurrentLinearAttention": "rf.linear_attention(..., is_causal=True), and rf.AttentionState",
    "rf.causal_linear": "rf.linear_attention(..., is_causal=True), and rf.AttentionState",
    "rf.SmoothedRandomFourierFeatures": "rf.PositiveFeatures are never negative",
    "rf.generalized_kernel": 'rf.ActivationFeatures(rf.ActivationKernel("relu"))',
    "rf.gaussian_orthogonal_random_matrix": "rf.Orthogonal().sample(num_rows, dim, rng=...)",
    "rf.Nystroem": "landmarks are not used here; random features as a transformer of scikit-learn are",
    "rf.GaussianProcessRegressor": "are rf.prior_functions(features)",
    "rf.torch": "it is rf.integrations.torch",
    "rf.sklearn": "it is rf.integrations.sklearn",
    "rf.Positive": "did you mean rf.PositiveFeatures?",
    "PHI.transform(X)": "the features are phi(x)",
    "PHI.fit_transform(X)": "the features are phi(x)",
    "PHI.feature_map": "the features are phi(x)",
    "PHI.redraw_projection_matrix()": "a new, independent map is phi.redraw(rng)",
    "PHI.projection_matrix": 'the rows are phi.arrays["rows"]',
    "PHI.kernel": "it belongs to phi.estimator",
    "PHI.esitmate(X, X)": "did you mean estimate?",
    "PHI.__array__": "object has no attribute '__array__'",
    "rf.PositiveFeatures(num_features=32)": "num_features and dim go to draw(...): PositiveFeatures(...).draw(dim,",
    "rf.PositiveFeatures(dim=3)": "num_features and dim go to draw(...)",
    "rf.PositiveFeatures(nb_features=32)": "num_features and dim go to draw(...)",
    "rf.PositiveFeatures(seed=0)": "rng goes to draw(...)",
    "rf.PositiveFeatures().draw(3, n_dims=4)": "the word here is num_features (the length of φ(x))",
    "rf.PositiveFeatures().draw(3, num_samples=4)": "num_features (the length of φ(x), for waves twice the number of",
    "rf.PositiveFeatures().draw(3, num_rows=4)": "estimator.num_features(num_rows) converts",
    "rf.PositiveFeatures().draw(query_dimensions=3, num_features=4)": "the word here is dim",
    "rf.PositiveFeatures(ortho_scaling=0)": 'coupling (coupling="orthogonal" for 0, "orthogonal-constant" for 1)',
    "rf.montecarlo.sample_errors(rf.PositiveFeatures(), X, X, num_features=4, num_samples=3)": "here is num_draws",
    "rf.linear_attention(X, X, X, PHI, dropout_p=0.1)": "single weights are never computed",
    "rf.linear_attention(X, X, X, PHI, eps=1e-6)": "there is none, because features carry their scale",
    "rf.SkewedChi2Sampler": "are rf.SpectralFeatures(rf.SkewedChi2Kernel(offset))",
    "rf.Chi2Kernel": "rf.AdditiveChi2Kernel() and rf.SkewedChi2Kernel(offset)",
    "rf.SkewedChi2Kernel(skewedness=2.0)": "the word here is offset",
    "rf.catalog": "did you mean rf.catalogue?",
    "rf.FourierEstimator": "it is rf.estimators.FourierEstimator",
    "rf.check_estimator": "it is rf.testing.check_estimator",
    "rf.plot_error_curve": "it is rf.plotting.plot_error_curve",
    "rf.StateCache": "it is rf.integrations.transformers.StateCache",
    "rf.CompressedAttention": "it is rf.integrations.torch.CompressedAttention",
    "rf.feature_moments": "it is rf.integrations.dask.feature_moments",
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


# a thing of another kind, or another name for a choice ---------------------------------------------------------

MISTAKES = {
    "rf.PositiveFeatures('orthogonal')": "got 'orthogonal'; write coupling='orthogonal'",
    "rf.PositiveFeatures(rf.Simplex())": "got Simplex(); write coupling=Simplex()",
    "rf.PositiveFeatures('softmax')": "(an object, not a name) for PositiveFeatures, got 'softmax'.",
    "rf.PositiveFeatures(coupling=rf.Orthogonal)": "got the class Orthogonal; write Orthogonal().",
    "rf.PositiveFeatures(kernel=rf.SoftmaxKernel)": "got the class SoftmaxKernel; write SoftmaxKernel().",
    "rf.PositiveFeatures(coupling='ortogonal')": "'spherical-radial'; perhaps 'orthogonal' was meant.",
    "rf.BalancedFeatures(base=rf.PositiveFeatures)": "got the class PositiveFeatures; write PositiveFeatures().",
    "rf.ScaledFeatures(rf.PositiveFeatures, 2.0)": "got the class PositiveFeatures; write PositiveFeatures().",
    "rf.linear_attention(X, X, X, rf.PositiveFeatures)": "write PositiveFeatures().draw(dim, num_features).",
    "rf.linear_attention(X, X, X, features=rf.PositiveFeatures())": "from estimator.draw(...), got PositiveFeatures.",
    "rf.linear_attention_vjp(X, X, X, rf.PositiveFeatures, X)": "write PositiveFeatures().draw(dim, num_features).",
    "rf.attention_diagnostics(X, X, features=rf.PositiveFeatures)": "write PositiveFeatures().draw(dim, num_features)",
    "rf.recommend(X, X, X, kernel=rf.GaussianKernel)": "got the class GaussianKernel; write GaussianKernel().",
}


@pytest.mark.parametrize(("mistake", "answer"), MISTAKES.items(), ids=str)
def test_mistakes(mistake, answer):
    with pytest.raises((TypeError, ValueError), match=re.escape(answer)):
        eval(mistake)


MODULES = {
    "torch.LinearAttention(rf.PositiveFeatures(), dim=3, num_features=4, num_heads=2)": "the word here is heads",
    "torch.LinearAttention(rf.PositiveFeatures(), dim=3, nb_features=4)": "the word here is num_features",
    "torch.LinearAttention(rf.PositiveFeatures(), embed_dim=3, num_features=4)": "the word here is dim (of one head)",
    "torch.LinearAttention(rf.PositiveFeatures(), dim_heads=3, num_features=4)": "the word here is dim",
    "torch.LinearAttention(rf.PositiveFeatures(), head_dim=3, num_features=4)": "the word here is dim",
    "torch.LinearAttention(rf.PositiveFeatures(), 3, 4, seed=0)": "the word here is rng",
    "torch.LinearAttention(rf.PositiveFeatures(), 3, 4, causal=True)": "causal: the word here is is_causal.",
    "torch.LinearAttention(rf.PositiveFeatures(), 3, 4, windows=3)": "windows: perhaps window was meant.",
    "torch.LinearAttention(rf.PositiveFeatures(), 3, 4, dropout_p=0.1)": "dropout_p: single weights are never computed",
    "torch.LinearAttention(rf.PositiveFeatures(), 3, 4, beta=1)": ", method, num_threads.",
    "sklearn.RandomFeatures(length_scale=2.0)": "the word here is gamma (gamma = 1/(2 length_scale²))",
    "sklearn.RandomFeatures(lengthscale=2.0)": "the word here is gamma (gamma = 1/(2 length_scale²))",
    "sklearn.RandomFeatures(num_features=10)": "the word here is n_components",
    "sklearn.RandomFeatures(seed=0)": "the word here is random_state",
    "sklearn.RandomFeatures(rng=0)": "the word here is random_state",
    "sklearn.RandomFeatureRidge(alphas=[1.0])": "RandomFeatureRidge() got an unexpected keyword argument 'alphas'; the",
    "sklearn.RandomFeatureRidgeClassifier(num_features=10)": "the word here is n_components",
    "sklearn.RandomFeatures('gausian').fit(X)": "unknown kernel 'gausian'; expected a Kernel, or one of rbf, ",
    "sklearn.RandomFeatures('Gaussiann').fit(X)": "; perhaps 'rbf' was meant.",
    "sklearn.RandomFeatures('matern').fit(X)": "; perhaps 'matern32' was meant.",
    "sklearn.RandomFeatures('arccos').fit(X)": "; perhaps 'arccos1' was meant.",
    "sklearn.RandomFeatures('matern33').fit(X)": "; perhaps 'matern32' was meant.",
    "sklearn.RandomFeatures('wavelet').fit(X)": ", skewed_chi2.",
    "sklearn.RandomFeatures('SkewedChi2Sampler').fit(X)": "; perhaps 'skewed_chi2' was meant.",
    "sklearn.RandomFeatures(rf.GaussianKernel).fit(X)": "got the class GaussianKernel; write GaussianKernel().",
    "sklearn.RandomFeatures(estimator='TrigonometricFeature').fit(X)": "; perhaps 'trigonometric' was meant.",
    "sklearn.RandomFeatureRidgeClassifier(class_weights='balanced')": "the word here is class_weight",
    "sklearn.RandomFeatureRidge().fit(X, X[:, 0], sample_weights=X[:, 0])": "the word here is sample_weight",
    "sklearn.RandomFeatureRidge().partial_fit(X, X[:, 0], weights=X[:, 0])": "the word here is sample_weight",
    "sklearn.RandomFeatures(estimator=rf.PositiveFeatures).fit(X)": "got the class PositiveFeatures; write",
}


@pytest.mark.parametrize(("mistake", "answer"), MODULES.items(), ids=str)
def test_mistakes_in_the_words_of_other_libraries(mistake, answer):
    library = mistake.partition(".")[0]
    pytest.importorskip(library)
    with pytest.raises((TypeError, ValueError), match=re.escape(answer)):
        eval(mistake, {"rf": rf, "X": X, library: getattr(rf.integrations, library)})


def test_hints_leave_transformers_of_scikit_learn_alone():
    sklearn = pytest.importorskip("sklearn.base")
    ours = rf.integrations.sklearn.RandomFeatures("rbf", gamma=0.3, n_components=8, random_state=0)
    again = sklearn.clone(ours)
    assert again.get_params() == ours.get_params()
    assert list(inspect.signature(type(ours)).parameters) == list(inspect.signature(type(ours).__init__).parameters)[1:]
    copied = pickle.loads(pickle.dumps(again.fit(X)))
    np.testing.assert_array_equal(copied.transform(X), ours.fit_transform(X))


def test_an_error_inside_a_property_of_a_map_is_its_own(monkeypatch):
    monkeypatch.setattr(type(PHI), "batch_shape", property(lambda phi: phi.nothing_of_this_kind))
    with pytest.raises(AttributeError, match="nothing_of_this_kind"):
        PHI.batch_shape  # noqa: B018


# the tables say what is there --------------------------------------------------------------------------------------


@pytest.mark.parametrize("library", OF_LIBRARIES)
def test_hints_know_the_names_of_integrations(library):
    pytest.importorskip(library)
    assert OF_LIBRARIES[library].split() == getattr(rf.integrations, library).__all__


def test_hints_know_every_library():
    assert {*OF_LIBRARIES} == {name for name in rf.integrations.__all__ if not name.endswith("_autograd")}


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
    assert not set(dir(PHI)) & {name for names in OF_A_MAP for name in names.split()}
    for name in NAMES:
        assert not hasattr(rf, name), name
    for home in HOMES:
        assert getattr(rf, home).__all__


def is_error(thing):
    return inspect.isclass(thing) and issubclass(thing, Exception)


BOTH = {("query", "queries")}
"""compressed_attention has queries of the call, and references; what a function has is never a slip."""


def test_right_words_are_words_of_the_library():
    """Every right word is a keyword of something public, and no slip is one where its right word is one, too."""
    things = [getattr(rf, name) for name in rf.__all__]
    things += [getattr(rf.montecarlo, name) for name in rf.montecarlo.__all__]
    things += [rf.Estimator.draw, rf.regression.SampleFunctions.given]
    things += [rf.FeatureMoments.of]
    classes = ("RandomFeatures", "RandomFeatureRidge", "RandomFeatureRidgeClassifier")
    for library, names in (("sklearn", classes), ("torch", ("LinearAttention",))):
        pytest.importorskip(library)
        things += [getattr(getattr(rf.integrations, library), name) for name in names]
    signatures = [
        set(inspect.signature(thing).parameters) for thing in things if callable(thing) and not is_error(thing)
    ]
    for word, others in KEYWORDS.items():
        assert any(word in signature for signature in signatures), word
        for slip in others.split():
            both = [signature for signature in signatures if {word, slip} <= signature]
            assert not both or (word, slip) in BOTH, (word, slip)


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


def test_fitted_estimators_hint_in_every_class_method():
    """Class methods that take any option hand it to others, which hint themselves."""
    for name in rf.estimators.__all__:
        for method, thing in inspect.getmembers(getattr(rf.estimators, name), inspect.ismethod):
            signature = inspect.signature(thing)
            takes_options = any(each.kind is each.KEYWORD_ONLY for each in signature.parameters.values())
            if takes_options:
                with pytest.raises(TypeError, match=r"unexpected keyword argument 'no_such_word'; it takes "):
                    thing(no_such_word=1)
            assert takes_options or method not in ("fit", "for_pair", "for_pairs", "multipolar"), (name, method)


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
