"""A run whose every text is an attack on the page."""

from pathlib import Path

import pyarrow as pa

from helpers import synthetic_run

HOSTILE = (
    "<script>document.title='taken'</script>",
    "<img src=x onerror=\"document.title='taken'\">",
    "\"'><svg onload=\"document.title='taken'\">",
    "</script><script>document.title='taken'</script>",
    "<script>alert('script')</script><img src=x onerror=\"alert('img')\"><iframe src='javascript:alert(1)'></iframe>",
    "<link rel=stylesheet href='http://evil.invalid/x.css'><base href='//evil.invalid/'> ![x](http://evil.invalid/y.png)",
    "\x1b[31mred\x1b[0m \u202egnp.exe =HYPERLINK(1) " + "W" * 50_000,
    "</style><style>*{display:none}</style>{{ 7*7 }}<a href=\"javascript:document.title='taken'\">x</a>",
)


def hostile_run(folder: Path) -> Path:
    """Every text of the data is an attack, slice names and ids included."""
    pair_log, pairs = synthetic_run.tables(prompts=60)
    for name in ("prompt", "chosen", "rejected"):
        texts = [HOSTILE[i % len(HOSTILE)] for i in range(pairs.num_rows)]
        pairs = pairs.set_column(pairs.column_names.index(name), name, pa.array(texts))
    sources = [f"{value}{HOSTILE[0]}{HOSTILE[1]}" for value in pairs["source"].to_pylist()]
    pairs = pairs.set_column(pairs.column_names.index("source"), "source", pa.array(sources))
    for table in ("pairs", "log"):
        frame = pairs if table == "pairs" else pair_log
        names = [f"{value}{HOSTILE[3]}" for value in frame["pair_id"].to_pylist()]
        frame = frame.set_column(frame.column_names.index("pair_id"), "pair_id", pa.array(names))
        pairs, pair_log = (frame, pair_log) if table == "pairs" else (pairs, frame)
    return synthetic_run.write_run(folder, pair_log, pairs)
