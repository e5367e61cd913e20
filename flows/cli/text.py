"""The answers of the `dpo` command in readable lines; numbers come from the rooms, none is computed here."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.output import columns, number, percent
from flows.source_text import contradicted_lines, departed_lines, reading_lines

if TYPE_CHECKING:
    from dpo_data.analysis.retention import Pruning, Published

_REASONS_SHOWN = 12
_SLICES_SHOWN = 15


def inspection_lines(found: dict[str, Any]) -> list[str]:
    """Which format, how many records, the first of them, and what would be rejected."""
    lines = [
        f"file      {found['path']}",
        f"format    {found['format']}",
        f"records   {found['records']}, {found['rejected']} of them would be rejected",
        f"gives     {found['votes']} votes ({found['ties']} ties) by {found['annotators']} named annotators, "
        f"{found['thumbs']} unpaired ratings",
    ]
    for row in found["rows"]:
        lines += ["", *(f"  {name:<12} {_short(value)}" for name, value in row.items() if value not in (None, {}, []))]
    if found["reasons"]:
        rows = [(str(count), reason) for reason, count in found["reasons"].items()]
        lines += ["", "rejected records", *columns([("records", "why"), *rows])]
    return lines


def refresh_lines(summary: dict[str, Any]) -> list[str]:
    """What was read, what is kept, why the rest was dropped, and length bias before and after."""
    lines = ["ingested"]
    rows: list[tuple[str, ...]] = [("source", "bytes", "records", "voted", "thumbs", "rejected", "comparisons")]
    rows += [
        (
            str(source["source"]),
            *(
                ["unchanged, skipped", "", "", "", "", ""]
                if source["batch"] is None
                else [str(source[name]) for name in ("bytes", "records", "voted", "thumbs", "rejected", "comparisons")]
            ),
        )
        for source in summary["ingested"]
    ]
    lines += columns(rows)
    store = Path(summary["path"]).parents[1]
    lines += [*reading_lines(summary["ingested"], store), *departed_lines(summary["departed"], store)]
    lines += contradicted_lines(summary["contradicted"], store)
    measured = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in summary["measured"].items())
    lines += [f"measured  {measured}"] if measured else []
    lines += ["", *stats_lines(summary["stats"]), ""]
    state = "published" if summary["created"] else "up to date"
    if summary["became_current"] and not summary["created"]:
        state = "complete already, now current"
    return [*lines, f"version   {summary['version']} ({state})", f"audit     {summary['audit']}"]


def stats_lines(stats: dict[str, Any]) -> list[str]:
    """The first screen of the audit in words."""
    counts = stats["counts"]
    kept = f"{counts['kept']} of {counts['comparisons']} comparisons"
    lines = [f"kept      {kept}; {counts['votes']} votes by {counts['annotators']} named annotators"]
    lines += _thumb_lines(stats.get("lone_thumbs", {}), counts["kept"])
    reasons = stats["reasons"][:_REASONS_SHOWN]
    if reasons:
        lines.append("dropped   (a comparison may have several reasons)")
        rows = [("reason", "rows", "of all", "sole reason")]
        rows += [(row["reason"], str(row["rows"]), percent(row["share"]), str(row["sole_rows"])) for row in reasons]
        lines += columns(rows)
    before, after = (_overall(stats["length_bias"][when]) for when in ("before", "after"))
    lines.append(f"length    chosen is longer in {_bias(before)} before, {_bias(after)} after")
    flagged = [row for row in stats["annotators"]["rows"] if row.get("flag")]
    if flagged:
        names = ", ".join(f"{row['annotator']} ({row['flag']})" for row in flagged[:8])
        lines.append(f"flagged   {names}")
    return lines + target_lines(stats.get("targets", []))


def _thumb_lines(thumbs: Mapping[str, int], kept: int) -> list[str]:
    """How many responses with a thumb are published beside the pairs, or instead of them."""
    if not thumbs.get("used"):
        return []
    how = "" if kept else "; no pair is kept, so train with a loss of single responses (training.loss.loss_type: kto)"
    return [f"unpaired  {thumbs['used']} of {thumbs['responses']} responses with an unpaired rating{how}"]


def target_lines(targets: Sequence[dict[str, Any]]) -> list[str]:
    """The slices that hold fewer pairs than wanted, shortest first; nothing where no target is set."""
    if not targets:
        return []
    short = [row for row in targets if row["short"]]
    rows: list[tuple[str, ...]] = [("slice", "wanted", "kept", "short")]
    rows += [
        (f"{row['slice']} = {row['value']}", *(str(row[name]) for name in ("target", "kept", "short"))) for row in short
    ]
    reached = f"targets   {len(targets) - len(short)} of {len(targets)} slices have as many pairs as wanted"
    return [reached, *(columns(rows) if short else [])]


def _overall(table: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return next((row for row in table if row["slice"] == "all"), {})


def _bias(row: dict[str, Any]) -> str:
    if row.get("p_longer") is None:
        return "no decided rows"
    interval = "" if row.get("p_low") is None else f" (95 % {percent(row['p_low'])} to {percent(row['p_high'])})"
    return f"{percent(row['p_longer'])} of {row['unequal']}{interval}"


def train_lines(summary: dict[str, Any]) -> list[str]:
    """How the run ended, its margins by slice, what to worry about, and where its report lies."""
    result = summary["result"]
    state = "trained" if summary["created"] else "already complete"
    lines = [
        f"run       {summary['run']} on version {summary['version']} ({state})",
        f"stopped   after {result['steps']} of {result['planned_steps']} steps: {result['stop_reason']}",
        f"weights   of step {result['best_step']}, {_chosen(result)}",
    ]
    if "step_seconds" in result["speed"]:
        lines.append(speed_line(result["speed"]))
    lines += ["", *report_lines(Path(summary["path"]))]
    lines += [f"alarm     {alarm}" for alarm in result["alarms"]]
    weights = summary.get("merged") or f"{summary['path']}/{result['output']}"
    return [*lines, "", f"output    {weights}", f"report    {summary['report']}"]


def _chosen(result: Mapping[str, Any]) -> str:
    if result["best_step"] == result["steps"]:
        return "the last one"
    return "the earliest checkpoint within 1 SE of the best validation log-loss"


def speed_line(speed: Mapping[str, float]) -> str:
    """Throughput of the optimizer steps, and executed FLOPs relative to the minimum."""
    return (
        f"speed     {speed['pairs_per_second']:.2f} pairs/s, {speed['tokens_per_second']:.0f} tokens/s, "
        f"{speed['work_ratio']:.2f}× minimum FLOPs, {speed['share_of_matmul_peak']:.0%} of measured matmul peak, "
        f"{speed['peak_memory_gb']:.2f} GB peak memory"
    )


def report_lines(run: Path) -> list[str]:
    """The slice table of a run."""
    from dpo_train.report.table import of_run

    return of_run(run).splitlines()


def confirmed_lines(found: dict[str, Any] | None) -> list[str]:
    """What a retraining without a slice changed, for all other held-out pairs and slice by slice."""
    if found is None:
        return []
    rows = [("held-out slice", "prompts", "margin", "95 %", "ranked right", "by seed")]
    for cell in found["cells"]:
        interval = "n/a" if cell["change_low"] is None else f"{cell['change_low']:+.3f} to {cell['change_high']:+.3f}"
        by_seed = " ".join(f"{one:+.3f}" for one in cell["by_seed"])
        right = f"{100 * cell['right']:+.1f} points"
        rows.append((cell["slice"], str(cell["prompts"]), f"{cell['change']:+.3f}", interval, right, by_seed))
    title = f"without {found['axis']} = {found['slice']} ({found['estimand']}): {found['verdict']}"
    return ["", title, *columns(rows), ""]


def retrain_lines(summary: dict[str, Any]) -> list[str]:
    """Both halves, and what became of the champion."""
    promotion = summary["promotion"]
    lines = [*refresh_lines(summary["refresh"]), "", *train_lines(summary["train"])]
    lines.append(f"champion  {promotion['decision']}: {promotion['because']}")
    if summary["unchanged"]:
        lines.append("Nothing changed since the last time; every stage was skipped.")
    return lines


def plan_lines(plan: dict[str, Any]) -> list[str]:
    """The estimate before a training, and what it leaves out."""
    told = {name: f"{value:,}" if isinstance(value, int) else value for name, value in plan.items()}
    left_out = told.pop("not_counted")
    lines = [f"{name.replace('_', ' '):<20} {value}" for name, value in told.items()]
    return [*lines, "", *(f"assumed: {sentence}." for sentence in left_out)]


def what_if_lines(changed: dict[str, Any]) -> list[str]:
    """What other limits would keep, by reason and slice, with a sample of the rows that would change."""
    counts = ", ".join(
        f"{name.replace('_', ' ')} {changed[name]}" for name in ("kept_before", "kept", "entered", "left")
    )
    lines = [counts, *change_rows("why rows would leave", changed["left_by_reason"])]
    lines += change_rows("why entering rows were out", changed["entered_by_reason"])
    lines += slice_lines(changed["by"])
    now, then = (_bias(_overall(changed[name])) for name in ("length_bias_before", "length_bias"))
    lines.append(f"length    chosen is longer in {now} now, {then} then")
    return [*lines, *target_lines(changed["targets"]), *sample_lines("would change", changed["sample"])]


def diff_lines(changed: dict[str, Any]) -> list[str]:
    """What changed between two versions, by kind, reason and slice, with a sample of the rows."""
    lines = [f"{changed['old']} -> {changed['new']}"]
    names = ("entered", "left", "flipped", "re_split", "new_comparisons")
    lines += [f"{name.replace('_', ' '):<16} {changed[name]}" for name in names if name in changed]
    lines += change_rows("why", changed["why"])
    return [*lines, *slice_lines(changed["by"]), *sample_lines("changed", changed["sample"])]


def slice_lines(table: Sequence[dict[str, Any]]) -> list[str]:
    """The slices in which rows entered or left, most changed first; nothing where none did."""
    moved = [row for row in table if row["entered"] or row["left"]]
    if not moved:
        return []
    names = ("kept_before", "kept", "entered", "left")
    rows: list[tuple[str, ...]] = [("slice", *(name.replace("_", " ") for name in names))]
    for row in sorted(moved, key=lambda row: -row["entered"] - row["left"])[:_SLICES_SHOWN]:
        rows.append((_short(f"{row['slice']} = {row['value']}"), *(str(row[name]) for name in names)))
    return [f"by slice  ({min(len(moved), _SLICES_SHOWN)} of {len(moved)} that changed)", *columns(rows)]


def sample_lines(what: str, sample: Sequence[dict[str, Any]]) -> list[str]:
    """Some of the rows that changed, and why each did."""
    if not sample:
        return []
    rows = [(row["comparison_id"], row["change"].replace("_", " "), ", ".join(row["why"])) for row in sample]
    return [f"rows that {what} (a sample; dpo explain ID tells their story)", *columns(rows)]


def change_rows(title: str, rows: Sequence[dict[str, Any]]) -> list[str]:
    """A small table of reasons and counts under a title, nothing when there is none."""
    if not rows:
        return []
    names = list(rows[0])
    return [title, *columns([names, *[[_short(row[name]) for name in names] for row in rows]])]


def _short(value: Any) -> str:
    if isinstance(value, float):
        return number(value)
    text = str(value).replace("\n", " ⏎ ")
    return text if len(text) <= 96 else f"{text[:95]}…"


def version_lines(listed: "Sequence[Published]") -> list[str]:
    """One line a version, the newest first; times are UTC."""
    rows: list[tuple[str, ...]] = [("version", "published", "comparisons", "kept", "parent", "MB", "runs")]
    rows += [
        (
            f"{version.id}{' (current)' if version.current else ''}",
            f"{version.at:%Y-%m-%d %H:%M}",
            str(version.comparisons),
            str(version.kept),
            version.parent or "none",
            f"{version.bytes / 1e6:.1f}",
            ", ".join(version.runs) or "none",
        )
        for version in listed
    ]
    return columns(rows, indent="")


def pruning_lines(found: "Pruning", removed: bool) -> list[str]:
    """What went or would go, what stays and why, and how to go on."""
    word = "removed" if removed else "would go"
    lines = [f"{word:<9} version {version}" for version in found.versions]
    lines += [f"{word:<9} {cache}" for cache in found.caches]
    lines += [f"stays     version {version}: {why}" for version, why in found.stays.items()]
    if found.trainers:
        lines.append(
            f"stays     the trainer's caches ({found.trainers_bytes / 1e6:.1f} MB): later trainings read them too, and "
            "they may hold texts of versions that went. While nothing trains, remove them by "
            f"rm -r {shlex.join(map(str, found.trainers))}; the next training makes its own."
        )
    if not found.versions and not found.caches:
        return [*lines, "Nothing to remove."]
    freed = f"{found.bytes / 1e6:.1f} MB"
    return [
        *lines,
        f"{freed} freed." if removed else f"{freed} would be freed. Nothing was touched: add --yes to remove.",
    ]
