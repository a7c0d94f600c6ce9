"""Answers to near misses: the word of this library for a name or a keyword that other libraries have.

Hints are messages of errors, never aliases: what is accepted is what is documented.
"""

from randfeat._hints.caller import warn_caller
from randfeat._hints.keywords import Hinted, hinted
from randfeat._hints.names import lazy_modules

__all__ = ["Hinted", "hinted", "lazy_modules", "warn_caller"]
