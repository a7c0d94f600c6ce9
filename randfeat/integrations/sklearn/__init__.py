"""scikit-learn: random features as a transformer, and ridge regression on them for data of any length."""

try:
    import sklearn as sklearn
except ImportError as error:
    raise ImportError("randfeat.integrations.sklearn needs scikit-learn: pip install 'randfeat[sklearn]'.") from error

from randfeat.integrations.sklearn.ridge import RandomFeatureRidge, RandomFeatureRidgeClassifier
from randfeat.integrations.sklearn.transformer import RandomFeatures

__all__ = ["RandomFeatureRidge", "RandomFeatureRidgeClassifier", "RandomFeatures"]
