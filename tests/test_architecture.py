"""The directions of the design: who may import whom, and what an import may cost."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY_FOR_DATA = ("torch", "transformers", "sentence_transformers", "prefect", "datasets")
HEAVY_FOR_TRAINING = ("polars", "prefect")


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imported_by(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def packages_imported_by(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported_by(path)}


def loaded_after_importing(package: str) -> set[str]:
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in modules(package)
    ]
    names = [name for name in names if not name.endswith("__main__")]
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
    offenders = {
        str(path.relative_to(ROOT)): packages_imported_by(path) & banned
        for path in modules(package)
        if packages_imported_by(path) & banned
    }
    assert offenders == {}


def test_importing_the_curation_loads_no_training_library() -> None:
    assert loaded_after_importing("dpo_data") & set(HEAVY_FOR_DATA) == set()


def test_importing_the_trainer_loads_neither_polars_nor_prefect() -> None:
    assert loaded_after_importing("dpo_train") & set(HEAVY_FOR_TRAINING) == set()


def test_losses_and_log_probabilities_know_torch_and_nothing_of_the_store() -> None:
    allowed = {"torch", "dpo_train", "pydantic", *sys.stdlib_module_names}
    for path in [*(ROOT / "dpo_train" / "losses").glob("*.py"), ROOT / "dpo_train" / "logprobs.py"]:
        assert packages_imported_by(path) <= allowed, path.name


def test_sentence_transformers_is_imported_in_one_place() -> None:
    importers = [path.name for path in modules("dpo_data") if "sentence_transformers" in packages_imported_by(path)]
    assert importers == ["embeddings.py"]


MEASURES = ("agreement", "duplicates", "similarity", "prompts", "cycles", "lengths", "style", "length_bias", "splits")


@pytest.mark.parametrize("name", MEASURES)
def test_measures_never_import_each_other(name: str) -> None:
    others = {f"dpo_data.{other}" for other in MEASURES if other != name}
    source = ROOT / "dpo_data" / f"{name}.py"
    assert imported_by(source) & others == set()


def test_flows_do_no_arithmetic_on_tables() -> None:
    for path in modules("flows"):
        assert packages_imported_by(path) & {"polars", "numpy", "torch", "pyarrow"} == set(), path.name


def test_nothing_unpickles_or_runs_code_from_a_model_repository() -> None:
    banned = ("import pickle", "cloudpickle", "trust_remote_code=True", "weights_only=False", "allow_pickle=True")
    for package in ("dpo_data", "dpo_train", "flows"):
        for path in modules(package):
            text = path.read_text(encoding="utf-8")
            assert not [word for word in banned if word in text], path
