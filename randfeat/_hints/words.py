"""The words of other libraries and papers, and what is meant by them here."""

HOMES = ("kernels", "estimators", "couplings", "features", "attention", "selection", "regression", "montecarlo",
         "testing", "bounds")  # fmt: skip
"""Packages and modules of `randfeat` whose public names are looked up where the top level has none of that name."""

FOURIER = "random Fourier features are rf.TrigonometricFeatures"
PERFORMER = (
    "the features of Performers (FAVOR+) are rf.PositiveFeatures, and rf.linear_attention is attention with them"
)
GAUSSIAN = "the Gaussian (RBF, squared exponential) kernel is rf.GaussianKernel(length_scale=...)"
MATERN = "the Matérn kernels are rf.MaternKernel(smoothness=..., length_scale=...)"
ORTHOGONAL = 'orthogonal rows are a coupling, rf.TrigonometricFeatures(coupling="orthogonal")'
HADAMARD = 'structured orthogonal rows are a coupling, rf.TrigonometricFeatures(coupling="hadamard")'
LINEAR = "attention through random features is rf.linear_attention"
EXACT = (
    "exact attention is rf.softmax_attention, and linear attention with the arguments of PyTorch's function is "
    "rf.integrations.torch.scaled_dot_product_attention"
)
RIDGE = "ridge regression on random features is rf.integrations.sklearn.RandomFeatureRidge"
SKLEARN = "random features as a transformer of scikit-learn are rf.integrations.sklearn.RandomFeatures"
STATE = "what is kept of the keys so far is rf.AttentionState"

NAMES = {
    "RandomFourierFeatures": FOURIER,
    "FourierFeatures": FOURIER,
    "RFFKernel": FOURIER,
    "RBFSampler": SKLEARN,
    "RandomFeatures": SKLEARN,
    "PolynomialCountSketch": "count sketches of the polynomial kernel are rf.TensorSketchFeatures",
    "FAVOR": PERFORMER,
    "Performer": PERFORMER,
    "PerformerAttention": PERFORMER,
    "FastAttention": PERFORMER,
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
    "LinearAttention": "attention as a module of PyTorch is rf.integrations.torch.LinearAttention",
    "scaled_dot_product_attention": EXACT,
    "sdpa": EXACT,
    "dot_product_attention": "attention with the arguments of JAX's is rf.integrations.jax.dot_product_attention",
    "KernelRidge": RIDGE,
    "Ridge": RIDGE,
    "RandomFeatureRidge": RIDGE,
    "GaussianProcess": "sample functions of Gaussian processes are rf.prior_functions(features)",
    "KVCache": STATE,
    "RecurrentState": STATE,
    "fit": "an estimator fitted to queries and keys is rf.adapt(query, key)",
}
"""Names of other libraries, and what to use here. Acronyms of papers are found in `acronyms` of the estimators."""

KEYWORDS = {
    "length_scale": "lengthscale lengthscales length_scales ell sigma bandwidth gamma",
    "smoothness": "nu",
    "scale": "softmax_scale sm_scale scaling temperature",
    "is_causal": "causal autoregressive unidirectional",
    "key_mask": "attn_mask attention_mask mask key_padding_mask padding_mask",
    "enable_gqa": "gqa grouped_heads num_groups num_key_value_groups num_kv_heads",
    "rng": "seed random_seed random_state generator prng_key",
    "noise_variance": "noise noise_var noise_level sigma2 sigma_n alpha",
    "num_features": "m D num_rows n_components n_features nb_features num_random_features num_rff_samples",
    "num_threads": "n_jobs n_threads threads num_workers",
    "dim": "d input_dim in_features head_dim dim_heads dims",
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
    "coupling": "orthogonal couplings",
    "num_draws": "n_draws repeats num_repeats num_samples trials",
    "estimators": "methods candidates",
    "level": "method",
}
"""Keywords as they are called here, and what else they are called."""

NOTES = {
    "gamma": "gamma = 1/(2 length_scale²)",
    "temperature": "scale = 1/temperature",
    "attn_mask": "one mask for all queries, True = take part; "
    "rf.integrations.torch.scaled_dot_product_attention takes attn_mask",
    "key_padding_mask": "True = take part, the opposite of PyTorch's",
    "mask": "bool, True = take part",
    "attention_mask": "bool, True = take part",
    "num_rows": "the length of φ(x); estimator.num_features(num_rows) converts",
    "m": "the length of φ(x); estimator.num_features(m) converts rows",
    "heads": "batch_shape=(heads,)",
    "num_heads": "batch_shape=(num_heads,)",
    "n_heads": "batch_shape=(n_heads,)",
    "dtype": "an array whose library, dtype and device are taken",
    "device": "an array whose library, dtype and device are taken",
    "backend": "an array whose library, dtype and device are taken",
    "orthogonal": 'coupling="orthogonal"',
    "noise": "the square of its standard deviation",
    "sigma_n": "its square",
}
"""What is to be said beside the right word."""
