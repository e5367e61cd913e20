"""Raw records in which two annotators agree on everything but one comparison, and the recipe that reads them."""

import json
from pathlib import Path

import yaml

from flows.recipe import Recipe, load


def torn_recipe(folder: Path) -> Recipe:
    """Forty comparisons, one vote each of ann and bob; they differ on the first, which is set aside as torn."""
    raw = [
        {
            "prompt": f"Q {i}?",
            "response_a": f"Yes, {i} it is.",
            "response_b": f"No {i}.",
            "winner": winner,
            "annotator": who,
        }
        for i in range(40)
        for who, winner in (("ann", "a"), ("bob", "b" if i == 0 else "a"))
    ]
    (folder / "raw.jsonl").write_text("".join(json.dumps(record) + "\n" for record in raw))
    settings = {"tokenizer": None, "embedding_model": None, "duplicates": {"jaccard": 1.0}}
    recipe = {"sources": [{"name": "studio", "path": "raw.jsonl"}], "curation": settings}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return load(folder / "recipe.yaml")
