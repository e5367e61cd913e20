"""The story of a comparison as plain text for a terminal.

Whatever stands in the data is inert: control characters and direction marks are made visible, since an escape
sequence in a response could otherwise move the cursor, change colours, or hide a line.
"""

from typing import Any

from dpo_data.text.escape import inert

Story = dict[str, Any]


def render(story: Story) -> str:
    """The story as plain text for a terminal, control characters made visible."""
    sections = [_heading(story), _texts(story), _vote_lines(story), _measure_lines(story), _twin_lines(story)]
    sections += [_history_lines(story), _margin_lines(story)]
    return "\n\n".join(inert(section) for section in sections if section)


def _heading(story: Story) -> str:
    if not story["known"]:
        return f"{story['comparison_id']}\nnot in version {story['version']}: it came later, or was forgotten"
    verdict = "kept" if story["kept"] else f"dropped: {', '.join(story['reasons']) or 'no side is preferred'}"
    lines = [story["comparison_id"], f"{verdict} (version {story['version']}, source {story['source']})"]
    if story["duplicate_of"]:
        lines.append(f"near duplicate of {story['duplicate_of']}")
    lines.append(f"split {story['split']}, weight {_number(story['weight'])}, preferred {story['preferred'] or 'none'}")
    return "\n".join(lines)


def _texts(story: Story) -> str:
    prompt = "\n".join(f"{message['role']}: {message['content']}" for message in story["prompt"])
    chosen = {"a": ("chosen", "rejected"), "b": ("rejected", "chosen")}.get(story["preferred"], ("a", "b"))
    answers = [
        f"--- response {side} ({role}) ---\n{story[f'response_{side}']}"
        for side, role in zip("ab", chosen, strict=True)
    ]
    return "\n".join([f"--- prompt ---\n{prompt}", *answers])


def _vote_lines(story: Story) -> str:
    counted = story["counted"]
    lines = [
        f"votes: {counted['votes_a'] or 0} for a, {counted['votes_b'] or 0} for b, {counted['votes_tie'] or 0} ties "
        f"by {counted['annotators'] or 0} annotators"
    ]
    for vote in story["votes"]:
        accuracy = "accuracy unknown"
        if vote["accuracy"] is not None and vote["accuracy_low"] is not None:
            accuracy = (
                f"accuracy {vote['accuracy']:.2f} (95 %: {vote['accuracy_low']:.2f} to {vote['accuracy_high']:.2f}, "
                f"n {vote['judged']:.0f})"
            )
        parts = [
            f"  {vote['annotator'] or 'anonymous'} ({vote['annotator_kind'] or 'unknown'}): {vote['choice']}",
            f"strength {_number(vote['strength'])}" if vote["strength"] is not None else "",
            f"saw {vote['shown_first']} first" if vote["shown_first"] else "",
            accuracy,
            f"FLAGGED {vote['flag']}" if vote["flag"] else "",
            str(vote["at"]) if vote["at"] else "",
            f"{vote['source']} {vote['origin']}",
            "" if vote["counts"] else "not counted (a later or a contrary vote of the same annotator)",
        ]
        lines.append(", ".join(part for part in parts if part))
    return "\n".join(lines)


def _measure_lines(story: Story) -> str:
    lines = []
    for measure in story["measures"]:
        if measure["value"] is None and not measure["limits"]:
            continue
        bounds = [f"{b['keep_if']} {b['limit']:g} ({b['reason']})" for b in measure["limits"]]
        value = "not measured" if measure["value"] is None else _number(measure["value"])
        lines.append(f"  {measure['measure']}: {value}{'; kept if ' if bounds else ''}{' and '.join(bounds)}")
    return "\n".join(["measures:", *lines]) if lines else ""


def _twin_lines(story: Story) -> str:
    lines = []
    for twin in story["twins"]:
        fate = "kept" if twin["kept"] else f"dropped: {', '.join(twin['reasons']) or 'no side is preferred'}"
        lines.append(f"  {twin['comparison_id']} ({twin['relation']}), {fate}")
        changes = twin["differences"][:5]
        lines += [f"    {c['part']}: here {c['here'][:80]!r}, there {c['there'][:80]!r}" for c in changes]
    return "\n".join(["twins:", *lines]) if lines else "twins: none"


def _history_lines(story: Story) -> str:
    lines = []
    for entry in story["history"]:
        if entry["kept"] is None:
            lines.append(f"  {entry['version']}: not there")
            continue
        fate = (
            f"kept in {entry['split']}" if entry["kept"] else f"dropped: {', '.join(entry['reasons']) or 'undecided'}"
        )
        lines.append(f"  {entry['version']}: {fate}, preferred {entry['preferred'] or 'none'}, {entry['votes']} votes")
    return "\n".join(["history:", *lines])


def _margin_lines(story: Story) -> str:
    lines = [
        f"  {row['run']} step {row['step']} ({row['split']}): {_number(row['margin'])}" for row in story["margins"]
    ]
    return "\n".join(["margins (beta-scaled, nats):", *lines]) if lines else "margins: in no run's log"


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
