"""Answers to near misses: the word of this library for a name or a keyword that other libraries have.

Hints are messages of errors: what is accepted is what is documented. Names of kernels and estimators of scikit-learn's
classes have documented aliases.
"""

from randfeat._hints.caller import warn_caller
from randfeat._hints.deprecation import Deprecation, renamed_keywords
from randfeat._hints.installing import how_to_install, needs
from randfeat._hints.keywords import Hinted, hinted, keyword_hint, translated
from randfeat._hints.names import attribute_error, lazy_modules
from randfeat._hints.similar import choice_hint
from randfeat._hints.things import described, short, shown

__all__ = [
    "Deprecation",
    "Hinted",
    "attribute_error",
    "choice_hint",
    "described",
    "hinted",
    "how_to_install",
    "keyword_hint",
    "lazy_modules",
    "needs",
    "renamed_keywords",
    "short",
    "shown",
    "translated",
    "warn_caller",
]
