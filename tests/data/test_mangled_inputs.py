"""Whatever a raw file holds: every record a vote, a thumb or a reject, or one error for the file."""

import json

import pytest
from helpers import mangling
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dpo_data.formats import READERS


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_mangled_sample_is_accounted_for_or_one_error(
    name: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path, files = mangling.sample(name, tmp_path_factory.mktemp(name))
    choose = lambda options: data.draw(st.sampled_from(options))  # noqa: E731
    mangling.mangled(choose(files), choose, choose([1, 2]))
    assert mangling.problem(path, name) is None


@pytest.mark.parametrize("mapping", mangling.MAPPINGS)
@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_mangled_table_is_accounted_for_or_one_error(
    mapping: dict[str, str], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("columns") / "table.jsonl"
    rows = [mangling.TABLE | {"l": f"so {n}", "n": n / 4, "better": ("left", "right")[n % 2]} for n in range(4)]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    mangling.mangled(path, lambda options: data.draw(st.sampled_from(options)), data.draw(st.sampled_from([1, 2])))
    assert mangling.problem(path, None, mapping | {"prompt": "q"}) is None
