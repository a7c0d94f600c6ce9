"""The shape of the house: imports run downward, one package knows array libraries, modules are small and well named."""

import ast
import functools
import re
from pathlib import Path

import randfeat as rf

ROOT = Path(rf.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

# From the ground up. What stands on one line may not import each other.
LAYERS = [
    {"_hints"},
    {"_array"},
    {"features", "special"},
    {"_numpy"},
    {"couplings", "kernels"},
    {"maps", "variance"},
    {"estimators"},
    {"attention", "bounds"},
    {"compressed"},
    {"montecarlo", "regression"},
    {"storage"},
    {"selection"},
    {"plotting"},
    {"testing"},
    {"integrations"},
    {"cli"},
    {"__main__"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
LAYERS_OF_ATTENTION = [
    {"partial"},
    {"inputs"},
    {"state"},
    {"generic"},
    {"relations"},
    {"problem"},
    {"cuda", "exact", "generic_executor", "numpy"},
    {"packed_executor"},
    {"host"},
    {"torch"},
    {"executors"},
    {"cost_model"},
    {"gradient", "linear"},
    {"decoder"},
]
LEVEL_OF_ATTENTION = {name: level for level, names in enumerate(LAYERS_OF_ATTENTION) for name in names}
LEVEL_OF_EXECUTORS = LEVEL_OF_ATTENTION["numpy"]
ARRAY_LIBRARIES = {
    "torch",
    "jax",
    "jaxlib",
    "cupy",
    "cupyx",
    "dask",
    "array_api_compat",
    "array_api_strict",
    "tensorflow",
}
MOST_LINES = 350


SOURCES = {path: path.read_text(encoding="utf-8") for path in FILES}
parsed = functools.cache(ast.parse)  # each source is looked at by many tests


def ids(path):
    return str(path.relative_to(ROOT))


def package_of(path):
    """The part of the house a file belongs to: "attention" for attention/state.py; "" for the package itself."""
    first = path.relative_to(ROOT).parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


def imports(source):
    """Names of modules that running the source imports, at any depth; those for type checkers only are left out."""
    tree = parsed(source)
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            if node.module != "randfeat":
                yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def upward(package, source, within="randfeat", level=LEVEL):
    """Imports of our own that do not go down; within a folder, of its own parts."""
    for name in imports(source):
        if not name.startswith(f"{within}."):
            continue
        other = name.removeprefix(f"{within}.").split(".")[0]
        by_way_of_the_package = other not in level
        if by_way_of_the_package or (other != package and level[other] >= level[package]):
            yield name


def test_every_part_has_its_place():
    parts = {package_of(path) for path in FILES} - {""}
    assert parts <= set(LEVEL), f"not in the order of layers: {sorted(parts - set(LEVEL))}"
    assert len(FILES) > 20


def test_imports_run_downward():
    sources = {path: source for path, source in SOURCES.items() if package_of(path)}
    found = {ids(path): sorted(set(upward(package_of(path), source))) for path, source in sources.items()}
    assert {name: up for name, up in found.items() if up} == {}
    whole = [ids(path) for path, source in sources.items() if "randfeat" in set(imports(source))]
    assert whole == [], "these import the whole package"


def test_upward_imports_are_seen():
    assert list(upward("kernels", "from randfeat.couplings import Orthogonal"))
    assert list(upward("features", "def f():\n    import randfeat.maps"))
    assert list(upward("variance", "from randfeat import maps"))
    assert list(upward("attention", "from randfeat import PositiveFeatures"))
    assert (
        list(upward("maps", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import randfeat.attention")) == []
    )
    assert (
        list(upward("attention", "from randfeat.kernels import Kernel\nfrom randfeat.attention.state import X")) == []
    )


def parts_of_attention():
    """(part, path) of every file of attention but its face."""
    for path in sorted((ROOT / "attention").rglob("*.py")):
        part = path.relative_to(ROOT / "attention").parts[0].removesuffix(".py")
        if part != "__init__":
            yield part, path


def test_imports_within_attention_run_downward():
    """A part that is not in the list is taken for one more executor."""
    parts = list(parts_of_attention())
    levels = {part: LEVEL_OF_EXECUTORS for part, _ in parts} | LEVEL_OF_ATTENTION
    assert set(levels) == {part for part, _ in parts}, "in the list, and gone"
    for part, path in parts:
        found = set(upward(part, SOURCES[path], "randfeat.attention", levels))
        assert sorted(found) == [], path


def module_of(path):
    return ".".join(("randfeat", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")


def cycles(sources):
    """Modules that lie on or behind a circle of imports, at any depth, also inside of functions."""
    graph = {}
    for module, source in sources.items():
        names = {name for name in imports(source) if name in sources}
        folders = {name.rpartition(".")[0] for name in names}  # `from folder import module` needs the module alone
        graph[module] = names - folders - {module}
    while free := {module for module, used in graph.items() if not used & set(graph)}:
        graph = {module: used for module, used in graph.items() if module not in free}
    return sorted(graph)


def test_no_circle_of_imports():
    assert cycles({module_of(path): source for path, source in SOURCES.items()}) == []


def test_circles_are_seen():
    hidden = {"randfeat.a": "def f():\n    from randfeat.b import g", "randfeat.b": "import randfeat.a"}
    assert cycles(hidden) == ["randfeat.a", "randfeat.b"]
    assert cycles(hidden | {"randfeat.b": ""}) == []


def test_one_module_knows_array_libraries():
    others = {path: text for path, text in SOURCES.items() if package_of(path) not in ("_array", "integrations")}
    known = {
        ids(path): {name.split(".")[0] for name in imports(text)} & ARRAY_LIBRARIES for path, text in others.items()
    }
    assert {name: libraries for name, libraries in known.items() if libraries} == {}


def test_array_module_imports_no_library_itself():
    names = {name.split(".")[0] for path in (ROOT / "_array").glob("*.py") for name in imports(SOURCES[path])}
    assert names & ARRAY_LIBRARIES == {"array_api_compat"}


def test_modules_are_small_and_named_after_what_they_hold():
    nameless = {"utils", "util", "misc", "common", "helpers", "core", "base_utils"}
    assert [ids(path) for path in FILES if path.stem in nameless] == []
    lines = {ids(path): len(source.splitlines()) for path, source in SOURCES.items()}
    long = {name: count for name, count in lines.items() if count > MOST_LINES}
    assert long == {}, f"a file that grows past {MOST_LINES} lines usually hides two ideas"


EPSILON = re.compile(r"^(eps|epsilon|jitter|stabili[sz]er)\w*$", re.IGNORECASE)


def epsilons(source):
    """Names and small positive constants that are added to something, or that something is clamped by."""
    for node in ast.walk(parsed(source)):
        added = []
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            added = [node.left, node.right]
        elif isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Add):
            added = [node.value]
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("clip", "clamp", "maximum", "clamp_min"):
            added = [*node.args, *(keyword.value for keyword in node.keywords)]
        for operand in added:
            name = getattr(operand, "id", getattr(operand, "attr", ""))
            number = operand.value if isinstance(operand, ast.Constant) else None
            if EPSILON.match(name) or (isinstance(number, float) and 0 < number < 1e-2):
                yield node.lineno, ast.unparse(node)


def parameters(source):
    """Names of all parameters of functions."""
    for node in ast.walk(parsed(source)):
        if isinstance(node, ast.arguments):
            yield from (arg.arg for arg in (*node.args, *node.kwonlyargs))


def test_no_epsilon_is_added():
    """A constant added against division by zero hides an underflow and biases the result."""
    added = {ids(path): list(epsilons(source)) for path, source in SOURCES.items()}
    assert {name: found for name, found in added.items() if found} == {}
    asked = {
        ids(path): [name for name in parameters(source) if EPSILON.match(name)] for path, source in SOURCES.items()
    }
    assert {name: found for name, found in asked.items() if found} == {}


def test_epsilons_are_seen():
    for source in ("y = x / (z + 1e-6)", "y = x + eps", "x += self.eps", "xp.clip(x, 1e-4)", "torch.clamp(x, min=EPS)"):
        assert list(epsilons(source)), source
    for source in ("y = x + 1", "y = x - 1e-6", "y = 0.5 + x", "xp.clip(x, 0.0, 700.0)"):
        assert not list(epsilons(source)), source


def checks_by_assertion(source):
    """Assertions that do more than narrow a type."""
    for node in ast.walk(parsed(source)):
        if isinstance(node, ast.Assert):
            condition = ast.unparse(node.test)
            if "isinstance" not in condition and not condition.endswith("is not None"):
                yield node.lineno, condition


def test_errors_are_raised_not_asserted():
    """Assertions only narrow types: they never check what a caller passed. In `testing` they are the product."""
    asserted = {
        ids(path): list(checks_by_assertion(source))
        for path, source in SOURCES.items()
        if package_of(path) != "testing"
    }
    assert {name: found for name, found in asserted.items() if found} == {}


def test_assertions_are_seen():
    assert list(checks_by_assertion("assert x > 0")) == [(1, "x > 0")]
    assert list(checks_by_assertion("assert isinstance(x, int)\nassert y is not None")) == []
