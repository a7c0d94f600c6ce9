"""scikit-learn: random features as a transformer, and ridge regression on them for data of any length."""

from randfeat._hints import needs

try:
    import sklearn as sklearn
except ImportError as error:
    raise ImportError(needs("sklearn", "scikit-learn", "sklearn")) from error

from randfeat.integrations.sklearn.classifier import RandomFeatureRidgeClassifier
from randfeat.integrations.sklearn.ridge import RandomFeatureRidge
from randfeat.integrations.sklearn.transformer import RandomFeatures

__all__ = ["RandomFeatureRidge", "RandomFeatureRidgeClassifier", "RandomFeatures"]
