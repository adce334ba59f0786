"""The first page of the report: what may be said. Each sentence comes from a test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from selfcascade.report.comparisons import ENLARGED, KERNELS, NAMES, REAL, Rows, Told, p_of, signed
from selfcascade.report.results import Row, Statement
from selfcascade.report.tables import markdown, wilson

HOW = """A method is *ahead* or *behind* only if a two-sided test over the captions that both have gives p < 0.05, and
the difference is larger than the spread of real samples of the same captions. Else the two are *level*. Right or wrong:
exact McNemar test. Distances: paired bootstrap, 10,000 draws; the spread is half the middle 95 % of a distance of 0
(wild bootstrap). [Evaluation](../evaluation.md#sets-of-captions-floors-and-tests) says what the tests leave out.
"""


def statements(wanted: Sequence[Statement], tables: Mapping[str, Sequence[Row]]) -> str:
    """A table of the statements: what was found, on which data, by which test.

    Args:
        wanted: The comparisons to make.
        tables: Rows by suite and set of captions, "SUITE/SPLIT".
    """
    lines = []
    for one in wanted:
        rows = tables.get(one.table)
        told = _told(one, rows)
        figure = NAMES.get(one.figure, one.figure)
        if told is None or rows is None:
            sentence = f"{one.first} against {one.second} in {figure}: not measured"
            lines.append([sentence, one.table, *["-"] * 5])
            continue
        sentence = f"**{one.first} is {_words(told)} {one.second}** in {figure}"
        low, high = (signed(value) for value in (told.comparison.low, told.comparison.high))
        difference = f"{signed(told.comparison.difference)} ({low} to {high})"
        place = f"{one.table} ({world_of(rows)})"
        numbers = [str(told.comparison.captions), difference, f"{told.spread:.2g}", told.test, p_of(told.comparison)]
        lines.append([sentence, place, *numbers])
    head = ["statement", "measured in", "captions", "difference (95 %)", "spread of real", "test", "p"]
    return f"{HOW}\n{markdown(head, lines)}\n"


def in_worlds(wanted: Sequence[Statement], tables: Mapping[str, Sequence[Row]], worlds: Mapping[str, str]) -> str:
    """A table of the statements that two worlds can tell, and of where each holds; "" if there are none.

    Args:
        wanted: The comparisons to make.
        tables: Rows by suite and set of captions, "SUITE/SPLIT".
        worlds: By suite, the one that has the same rows in another world.
    """
    lines = []
    for one in wanted:
        suite, _, split = one.table.partition("/")
        places = [one.table, f"{worlds.get(suite)}/{split}"]
        held = [(rows, told) for place in places if (rows := tables.get(place)) and (told := _told(one, rows))]
        if len(held) < len(places):
            continue
        names, told = [world_of(rows) for rows, _ in held], [told for _, told in held]
        what = f"{one.first} against {one.second} in {NAMES[one.figure]}"
        cells = [f"{name}: {own.word}, p {p_of(own.comparison)}, {own.comparison.captions} captions"
                 for name, own in zip(names, told, strict=True)]  # fmt: skip
        lines.append([what, suite, *cells, _where(names, [own.word for own in told])])
    head = ["statement", "table", "first world", "second world", "same in both"]
    return f"{markdown(head, lines)}\n" if lines else ""


def split_table(rows: Sequence[Row]) -> str:
    """The rows of a set of captions: accuracies, unbiased distances, and the comparison with enlarged base samples."""
    records = Rows.of(list(rows))
    figures = [name for name in KERNELS if any(name in result for row in rows for result in row.results)]
    read = any("composition" in result for row in rows for result in row.results) and not rows[0].clips
    head = ["method", "samples", *(["all right, %"] if read else []), *(NAMES[name] for name in figures)]
    lines = []
    for row in rows:
        cells = [_name(row.method), f"{row.results[0]['pictures']} x {len(row.results)}"]
        if read:
            cells.append(f"{row.figure(lambda result: 100 * result['composition']['all'])}{_range(row)}")
        cells += [row.figure(lambda result, name=name: result[name][0]) for name in figures]
        own = [] if row.method in (REAL, ENLARGED) else [records.told(row.method, ENLARGED, name) for name in figures]
        if read and own:
            own.insert(0, records.told(row.method, ENLARGED, "composition"))
        lines.append([*cells, ", ".join(_short(told) for told in own if told is not None) or "-"])
    return markdown([*head, "against enlarged base samples"], lines)


def truth_table(rows: Sequence[Row]) -> str:
    """The rows whose pivots are real small pictures: how near they come to the true large ones."""
    names = [name for name in ("psnr", "ssim", "detector_distance", *_octaves()) if name in rows[0].results[0]]
    head = ["method", "samples", *(NAMES[name] for name in names), "against enlarged true pictures"]
    records, lines = Rows.of(list(rows)), []
    for row in rows:
        cells = [_name(row.method), f"{row.results[0]['pictures']} x {len(row.results)}"]
        cells += [row.figure(lambda result, name=name: result[name][0]) for name in names]
        told = [] if row.method in (REAL, ENLARGED) else [records.told(row.method, ENLARGED, name) for name in names]
        lines.append([*cells, ", ".join(_short(one) for one in told if one is not None) or "-"])
    return markdown(head, lines)


def world_of(rows: Sequence[Row]) -> str:
    """The data that a table was measured on."""
    return str(rows[0].results[0].get("settings", {}).get("data", "scenes"))


def _told(one: Statement, rows: Sequence[Row] | None) -> Told | None:
    return None if rows is None else Rows.of(list(rows)).told(one.first, one.second, one.figure)


def _where(worlds: Sequence[str], words: Sequence[str]) -> str:
    if words[0] == words[1]:
        return f"yes, {words[0]}"
    told = [f"{word} in {world}" for world, word in zip(worlds, words, strict=True) if word != "level"]
    return f"no, {' and '.join(told)}{'' if len(told) > 1 else ' only'}"


def _octaves() -> list[str]:
    return [name for name in NAMES if name.startswith("octave_error")]


def _words(told: Told) -> str:
    return {"ahead": "ahead of", "behind": "behind", "level": "level with"}[told.word]


def _short(told: Told) -> str:
    return f"{NAMES[told.figure]} {told.word} (p {'' if told.comparison.p < 0.001 else '= '}{p_of(told.comparison)})"


def _name(method: str) -> str:
    return {REAL: "*real samples*", ENLARGED: "*base samples, enlarged*"}.get(method, method)


def _range(row: Row) -> str:
    """Wilson's interval over the samples of all seeds."""
    shares = [(result["composition"]["all"], result["pictures"]) for result in row.results if "composition" in result]
    count = sum(number for _, number in shares)
    if not count:
        return ""
    low, high = wilson(sum(share * number for share, number in shares) / count, count)
    return f" ({100 * low:.0f} to {100 * high:.0f})"
