"""The command that installs what is missing, in one place."""


def how_to_install(extra: str) -> str:
    """The command for an extra; randfeat is on no index of packages, so it is installed from its clone."""
    return f"run pip install '.[{extra}]' in a clone of randfeat"


def needs(module: str, libraries: str, extra: str) -> str:
    """The message for a module of integrations whose library is missing."""
    return f"randfeat.integrations.{module} needs {libraries}: {how_to_install(extra)}."
