"""The directions of the design: which folder may import which, and what an import may cost."""

import ast
import subprocess
import sys
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("dpo_data", "dpo_train", "flows")
HEAVY_FOR_DATA = ("torch", "transformers", "sentence_transformers", "prefect", "datasets")
HEAVY_FOR_TRAINING = ("polars", "prefect")

# A folder or module of a package imports only from those before it. "*" is every module at the package's root that is
# not named; foundations, which import nothing of their package but each other, may be imported from everywhere.
ORDER = {
    "dpo_data": (
        *("reading", "formats", "store", "ingest", "text", "votes", "measures", "config", "curate"),
        *("release", "analysis", "audit", "publish", "review"),
    ),
    "dpo_train": (
        "losses",
        "data",
        "policy",
        "logs",
        "*",
        "slices",
        "attribution",
        "train",
        "ablation",
        "promotion",
        "report",
    ),
    "flows": ("*", "cli"),
}
FOUNDATIONS = {
    "dpo_data": {"schema", "settings", "ids", "intervals", "executor"},
    "dpo_train": {"config", "statistics", "atomic", "distributed", "progress", "run"},
    "flows": set[str](),
}
# Measures do not import each other, except the two that share a model of bias.
MEASURES_MAY_IMPORT = {("style_bias", "length_bias")}


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def modules(package: str) -> dict[str, Path]:
    return {name_of(path): path for path in sorted((ROOT / package).rglob("*.py"))}


def imported_by(path: Path) -> set[str]:
    """Dotted names that a file imports, at its top or inside functions; `from package import name` gives both."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imports_within(package: str) -> dict[str, set[str]]:
    """Module -> modules of the same package that it imports; a package counts where its own names are taken."""
    known = modules(package)
    graph: dict[str, set[str]] = {}
    for name, path in known.items():
        taken = {found for found in imported_by(path) if found in known and found != name}
        # `from package import module` names the package too, though only the module is used
        graph[name] = {
            found
            for found in taken
            if not (known[found].name == "__init__.py" and any(f"{found}." in x for x in taken))
        }
    return graph


def part_of(module: str, package: str) -> str:
    """The folder or root module that a module belongs to, as named in ORDER."""
    first = module.removeprefix(f"{package}.").split(".")[0]
    is_folder = (ROOT / package / first).is_dir()
    return first if is_folder or first in ORDER[package] or first in FOUNDATIONS[package] else "*"


def against_the_order(package: str, graph: Mapping[str, set[str]]) -> set[tuple[str, str]]:
    order, foundations = ORDER[package], FOUNDATIONS[package]
    offenders = set()
    for module, taken in graph.items():
        here = part_of(module, package)
        for other in taken:
            there = part_of(other, package)
            if there in foundations or here == there or other == package:
                continue
            if here in foundations or order.index(there) > order.index(here):
                offenders.add((module, other))
    return offenders


@pytest.mark.parametrize("package", PACKAGES)
def test_a_folder_imports_only_folders_before_it(package: str) -> None:
    folders = {path.name for path in (ROOT / package).iterdir() if (path / "__init__.py").exists()}
    assert folders <= set(ORDER[package]), "a new folder has no place in ORDER"
    assert against_the_order(package, imports_within(package)) - _allowed(package) == set()


def _allowed(package: str) -> set[tuple[str, str]]:
    # the settings compose those of the losses
    return {("dpo_train.config", "dpo_train.losses")} if package == "dpo_train" else set()


@pytest.mark.parametrize("package", PACKAGES)
def test_no_modules_import_each_other_in_a_cycle(package: str) -> None:
    try:
        tuple(TopologicalSorter(imports_within(package)).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_imports_of_a_module_through_its_package_are_seen(tmp_path: Path) -> None:
    path = tmp_path / "example.py"
    path.write_text("def late():\n    from dpo_data.measures import length_bias\n")
    assert "dpo_data.measures.length_bias" in imported_by(path)


def test_measures_do_not_import_each_other() -> None:
    graph = imports_within("dpo_data")
    pairs = {
        (module.rsplit(".", 1)[1], other.rsplit(".", 1)[1])
        for module, taken in graph.items()
        for other in taken
        if module.startswith("dpo_data.measures.") and other.startswith("dpo_data.measures.")
    }
    assert pairs == MEASURES_MAY_IMPORT


def packages_imported_by(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported_by(path)}


def loaded_after_importing(package: str) -> set[str]:
    names = [name for name in modules(package) if not name.endswith("__main__")]
    program = "import importlib, sys\n" + "\n".join(f"importlib.import_module({name!r})" for name in names)
    program += "\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("package", "banned"),
    [
        ("dpo_data", {"dpo_train", "flows", "prefect", "torch"}),
        ("dpo_train", {"dpo_data", "flows", "prefect", "polars"}),
    ],
)
def test_the_two_packages_meet_only_at_the_version_folder(package: str, banned: set[str]) -> None:
    taken = {name: packages_imported_by(path) & banned for name, path in modules(package).items()}
    assert {name: found for name, found in taken.items() if found} == {}


def test_importing_the_curation_loads_no_training_library() -> None:
    assert loaded_after_importing("dpo_data") & set(HEAVY_FOR_DATA) == set()


def test_importing_the_trainer_loads_neither_polars_nor_prefect() -> None:
    assert loaded_after_importing("dpo_train") & set(HEAVY_FOR_TRAINING) == set()


def test_losses_and_log_probabilities_import_torch_and_nothing_of_the_store() -> None:
    allowed = {"torch", "dpo_train", "pydantic", *sys.stdlib_module_names}
    for path in [*(ROOT / "dpo_train" / "losses").glob("*.py"), ROOT / "dpo_train" / "policy" / "logprobs.py"]:
        assert packages_imported_by(path) <= allowed, path.name


def test_sentence_transformers_is_imported_in_one_place() -> None:
    importers = [
        name for name, path in modules("dpo_data").items() if "sentence_transformers" in packages_imported_by(path)
    ]
    assert importers == ["dpo_data.text.embeddings"]


def test_flows_do_no_arithmetic_on_tables() -> None:
    for name, path in modules("flows").items():
        assert packages_imported_by(path) & {"polars", "numpy", "torch", "pyarrow"} == set(), name


def test_nothing_unpickles_or_runs_code_from_a_model_repository() -> None:
    banned = ("import pickle", "cloudpickle", "trust_remote_code=True", "weights_only=False", "allow_pickle=True")
    for package in PACKAGES:
        for name, path in modules(package).items():
            text = path.read_text(encoding="utf-8")
            assert not [word for word in banned if word in text], name
