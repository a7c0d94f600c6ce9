"""The words of other libraries and papers, and what is meant by them here."""

HOMES = ("kernels", "estimators", "couplings", "features", "attention", "selection", "regression", "montecarlo",
         "plotting", "testing", "bounds", "integrations")  # fmt: skip
"""Packages and modules of `randfeat` whose public names are looked up where the top level has none of that name."""

OF_LIBRARIES = {
    "torch": "CachedAttention CompressedAttention LinearAttention scaled_dot_product_attention",
    "jax": "attention_fn dot_product_attention",
    "sklearn": "RandomFeatureRidge RandomFeatureRidgeClassifier RandomFeatures",
    "transformers": "CompressedCache ModelAttention StateCache calibrate register save_pretrained",
    "dask": "feature_moments features linear_attention",
}
"""Public names of the modules of `randfeat.integrations`; listed, so that a hint imports none of their libraries."""

MOVED = {
    ("kernels", "0.2", "0.4"): "IsotropicKernel ProductKernel ScaledKernel SeparableKernel ShiftInvariantKernel "
    "SoftmaxFamily SumKernel",
    ("estimators", "0.2", "0.4"): "AngularMixer GaussianMixer Mixer SoftmaxEstimator UncoupledEstimator",
    ("features", "0.2", "0.4"): "concatenate tensor_product",
    ("attention", "0.2", "0.4"): "AttentionMethod",
    ("selection", "0.2", "0.4"): "AttentionDiagnostics",
    ("regression", "0.2", "0.4"): "SampleFunctions",
}
"""Names that were at the top level: by the package that has them now, the release that moved them, and the first one
in which only the package has them."""

FOURIER = "random Fourier features are rf.TrigonometricFeatures"
PERFORMER = (
    "the features of Performers (FAVOR+) are rf.PositiveFeatures, and rf.linear_attention is attention with them"
)
GAUSSIAN = "the Gaussian (RBF, squared exponential) kernel is rf.GaussianKernel(length_scale=...)"
MATERN = "the Matérn kernels are rf.MaternKernel(smoothness=..., length_scale=...)"
ORTHOGONAL = 'orthogonal rows are a coupling, rf.TrigonometricFeatures(coupling="orthogonal")'
HADAMARD = 'structured orthogonal rows are a coupling, rf.TrigonometricFeatures(coupling="hadamard")'
LINEAR = "attention through random features is rf.linear_attention"
MODULE = f"{LINEAR}, and as a module of PyTorch rf.integrations.torch.LinearAttention"
CAUSAL = "causal attention is rf.linear_attention(..., is_causal=True), and rf.AttentionState continues it step by step"
EXACT = (
    "exact attention is rf.softmax_attention, and linear attention with the arguments of PyTorch's function is "
    "rf.integrations.torch.scaled_dot_product_attention"
)
PROCESS = (
    "sample functions of a Gaussian process are rf.prior_functions(features), given data by their method given, and "
    "the mean alone is rf.integrations.sklearn.RandomFeatureRidge"
)
RIDGE = "ridge regression on random features is rf.integrations.sklearn.RandomFeatureRidge"
HISTOGRAMS = "its features, without a bias, are rf.SpectralFeatures(rf.{})"
SKLEARN = "random features as a transformer of scikit-learn are rf.integrations.sklearn.RandomFeatures"
STATE = "what is kept of the keys so far is rf.AttentionState"

NAMES = {
    "RandomFourierFeatures": FOURIER,
    "FourierFeatures": FOURIER,
    "RFFKernel": FOURIER,
    "RBFSampler": SKLEARN,
    "RandomFeatures": SKLEARN,
    "AdditiveChi2Sampler": HISTOGRAMS.format("AdditiveChi2Kernel()"),
    "SkewedChi2Sampler": HISTOGRAMS.format("SkewedChi2Kernel(offset)"),
    "Chi2Kernel": "the chi-squared kernels are rf.AdditiveChi2Kernel() and rf.SkewedChi2Kernel(offset)",
    "PolynomialCountSketch": "count sketches of the polynomial kernel are rf.TensorSketchFeatures",
    "FAVOR": PERFORMER,
    "Performer": PERFORMER,
    "PerformerAttention": PERFORMER,
    "Favor": PERFORMER,
    "RBF": GAUSSIAN,
    "RBFKernel": GAUSSIAN,
    "SquaredExponential": GAUSSIAN,
    "ExponentiatedQuadratic": GAUSSIAN,
    "Matern12": MATERN,
    "Matern32": MATERN,
    "Matern52": MATERN,
    "OrthogonalRandomFeatures": ORTHOGONAL,
    "ORF": ORTHOGONAL,
    "StructuredOrthogonalRandomFeatures": HADAMARD,
    "SORF": HADAMARD,
    "QuasiMonteCarlo": 'rows of quasi-Monte Carlo are couplings, rf.Sobol and rf.Halton: coupling="sobol"',
    "TaylorFeatures": "random Taylor features are rf.MaclaurinFeatures",
    "performer_attention": LINEAR,
    "favor_attention": LINEAR,
    "linear_attn": LINEAR,
    "LinearAttention": MODULE,
    "FastAttention": MODULE,
    "SelfAttention": MODULE,
    "MultiheadAttention": MODULE,
    "RecurrentLinearAttention": CAUSAL,
    "CausalLinearAttention": CAUSAL,
    "causal_linear": CAUSAL,
    "scaled_dot_product_attention": EXACT,
    "sdpa": EXACT,
    "dot_product_attention": "attention with the arguments of JAX's is rf.integrations.jax.dot_product_attention",
    "KernelRidge": RIDGE,
    "Ridge": RIDGE,
    "RandomFeatureRidge": RIDGE,
    "GaussianProcess": PROCESS,
    "GaussianProcessRegressor": PROCESS,
    "GPR": PROCESS,
    "Nystroem": f"landmarks are not used here; {SKLEARN}",
    "SmoothedRandomFourierFeatures": "nothing is added to an estimate here; rf.PositiveFeatures are never negative",
    "gaussian_orthogonal_random_matrix": "orthogonal rows are rf.Orthogonal().sample(num_rows, dim, rng=...)",
    "generalized_kernel": 'features of an activation are rf.ActivationFeatures(rf.ActivationKernel("relu"))',
    "elu_feature_map": 'the features elu + 1 are rf.ActivationFeatures(rf.ActivationKernel("elu_plus_one"))',
    "ScaleKernel": "a multiple of a kernel is rf.kernels.ScaledKernel, written 2.0 * kernel",
    "KVCache": "a few keys that stand for many are rf.KeyCache, made by rf.compress; the state of linear attention is "
    "rf.AttentionState",
    "RecurrentState": STATE,
    "fit": "an estimator fitted to queries and keys is rf.adapt(query, key)",
}
"""Names of other libraries, and what to use here. Acronyms of papers are found in `acronyms` of the estimators."""

KEYWORDS = {
    "sample_weight": "sample_weights weights freq_weights",
    "class_weight": "class_weights",
    "length_scale": "lengthscale lengthscales length_scales ell sigma bandwidth gamma",
    "smoothness": "nu",
    "offset": "skewedness coef0",
    "scale": "softmax_scale sm_scale scaling temperature",
    "is_causal": "causal autoregressive unidirectional",
    "key_mask": "attn_mask attention_mask mask key_padding_mask padding_mask",
    "enable_gqa": "gqa grouped_heads num_groups num_key_value_groups num_kv_heads",
    "rng": "seed random_seed random_state generator prng_key",
    "noise_variance": "noise noise_var noise_level sigma2 sigma_n alpha",
    "num_features": "m D num_rows n_components n_features nb_features n_dims num_random_features num_rff_samples "
    "num_samples",
    "num_threads": "n_jobs n_threads threads num_workers",
    "dim": "d input_dim in_features head_dim dim_heads dim_head dims embed_dim query_dimensions",
    "heads": "num_heads n_heads n_head nhead",
    "batch_shape": "batch_size num_heads n_heads heads",
    "like": "dtype device backend",
    "features": "phi feature_map estimator projection_matrix",
    "query": "q queries",
    "key": "k keys",
    "value": "v values",
    "initial_state": "state past_state past_key_values cache kv_cache",
    "return_state": "use_cache output_final_state return_final_state",
    "key_lengths": "lengths seq_lens seqlens",
    "window": "window_size sliding_window local_window_size",
    "coupling": "orthogonal couplings ortho_scaling",
    "num_draws": "n_draws repeats num_repeats num_samples trials",
    "estimators": "methods candidates",
    "level": "method",
    "gamma": "length_scale lengthscale lengthscales sigma bandwidth",
    "n_components": "num_features n_features nb_features D m num_samples",
    "random_state": "rng seed random_seed generator",
    "alpha": "alphas penalty noise_variance regularization",
}
"""Keywords as they are called here, and what else they are called."""

ROWS = "the length of φ(x); estimator.num_features({}) converts"
LIKE = "an array whose library, dtype and device are taken"
GAMMA = "gamma = 1/(2 length_scale²)"
PRESENT = "bool, True = take part"

NOTES = {
    ("length_scale", "gamma"): GAMMA,
    ("gamma", "length_scale"): GAMMA,
    ("gamma", "lengthscale"): GAMMA,
    ("gamma", "lengthscales"): GAMMA,
    ("gamma", "sigma"): "gamma = 1/(2 sigma²)",
    ("gamma", "bandwidth"): "gamma = 1/(2 bandwidth²)",
    ("scale", "temperature"): "scale = 1/temperature",
    ("key_mask", "attn_mask"): "one mask for all queries, True = take part; "
    "rf.integrations.torch.scaled_dot_product_attention takes attn_mask",
    ("key_mask", "key_padding_mask"): "True = take part, the opposite of PyTorch's",
    ("key_mask", "mask"): PRESENT,
    ("key_mask", "attention_mask"): PRESENT,
    ("num_features", "num_rows"): ROWS.format("num_rows"),
    ("num_features", "m"): ROWS.format("m") + " rows",
    ("num_features", "num_samples"): "the length of φ(x), for waves twice the number of frequencies that GPyTorch has",
    ("num_features", "num_rff_samples"): "the length of φ(x), for waves twice the number of frequencies",
    ("num_features", "n_dims"): "the length of φ(x)",
    ("n_components", "num_samples"): "the length of φ(x), for waves twice the number of frequencies that GPyTorch has",
    ("batch_shape", "heads"): "batch_shape=(heads,)",
    ("batch_shape", "num_heads"): "batch_shape=(num_heads,)",
    ("batch_shape", "n_heads"): "batch_shape=(n_heads,)",
    ("like", "dtype"): LIKE,
    ("like", "device"): LIKE,
    ("like", "backend"): LIKE,
    ("coupling", "orthogonal"): 'coupling="orthogonal"',
    ("coupling", "ortho_scaling"): 'coupling="orthogonal" for 0, "orthogonal-constant" for 1',
    ("noise_variance", "noise"): "the square of its standard deviation",
    ("noise_variance", "sigma_n"): "its square",
    ("dim", "embed_dim"): "of one head",
}
"""What is to be said beside the right word, by that word and the slip."""

NO_DROPOUT = "single weights are never computed, so they cannot be dropped; dropout of the output is possible"
NO_EPSILON = (
    "there is none, because features carry their scale: nothing is added to a denominator, so nothing is biased"
)

NO_FUTURE = (
    "causal attention is rf.linear_attention or rf.compressed_attention; "
    "what is fitted to a whole sequence has seen its future"
)

ABSENT = {
    "is_causal": NO_FUTURE,
    "causal": NO_FUTURE,
    "dropout": NO_DROPOUT,
    "dropout_p": NO_DROPOUT,
    "attn_dropout": NO_DROPOUT,
    "attention_dropout": NO_DROPOUT,
    "eps": NO_EPSILON,
    "epsilon": NO_EPSILON,
    "kernel_epsilon": NO_EPSILON,
    "stabilizer": NO_EPSILON,
}
"""Keywords of other libraries that have no word here, and why."""

KERNEL_NAMES = {
    "gaussian": "rbf",
    "gauss": "rbf",
    "squared_exponential": "rbf",
    "poly": "polynomial",
    "matern12": "exponential",
    "laplace": "laplacian",
    "rq": "rational_quadratic",
    "additive_chi_squared": "additive_chi2",
    "skewed_chi_squared": "skewed_chi2",
}
"""Other names of the kernels that are chosen by a name; they are accepted."""

NO_FEATURES = {
    "chi2": "scikit-learn's chi2 is exp(-γ Σ (x - y)²/(x + y)), and there are no unbiased features of it here: "
    'kernel="additive_chi2" is Σ 2xy/(x + y), kernel="skewed_chi2" is Π 2√((x+1)(y+1))/(x + y + 2), and features "rbf" '
    'with gamma=γ of the features "additive_chi2" approximate it, with a bias',
    "linear": "the features of the linear kernel are the inputs themselves: leave these features out",
    "cosine": "the features of the cosine are the inputs divided by their lengths: sklearn.preprocessing.normalize",
    "sigmoid": "tanh(γ x·y + c) is not positive definite, so it has no features",
    "precomputed": "features are computed from inputs, not from a matrix of kernel values",
}
"""Names of kernels of scikit-learn that have no features here, and why."""

SEVERAL = {
    "matern": "matern32",
    "MaternKernel": "matern32",
    "arccos": "arccos1",
    "ArcCosineKernel": "arccos1",
    "chi_squared": "additive_chi2",
    "AdditiveChi2Sampler": "additive_chi2",
    "SkewedChi2Sampler": "skewed_chi2",
}
"""Names of families of kernels, and the member that an error suggests."""

OF_A_MAP = {
    "transform fit_transform forward apply featurize feature_map features": "the features are phi(x), and with their "
    "scale phi.queries(x) and phi.keys(y)",
    "fit": "a map is drawn, not fitted: estimator.draw(dim, num_features)",
    "redraw_projection_matrix new_feature_map resample draw sample": "a new, independent map is phi.redraw(rng)",
    "rows projection_matrix projection omega weights random_weights_": 'the rows are phi.arrays["rows"]',
    "kernel coupling": "it belongs to phi.estimator",
    "variance relative_variance mse relative_mse mean": "closed forms belong to phi.estimator, as "
    "phi.estimator.variance(x, y, num_features=phi.num_features)",
    "gram kernel_matrix": "the estimated Gram matrix is phi.estimate(x, y)",
    "n_components num_rows nb_features": "the length of φ(x) is phi.num_features",
    "d input_dim": "the length of x is phi.dim",
    "cuda cpu numpy": "phi.to(like) moves a map to the library and device of an array",
}
"""What people ask of a feature map, and what to write instead."""
