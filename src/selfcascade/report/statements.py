"""The first page of the report: what may be said. Each sentence comes from a test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from selfcascade.metrics.paired import LEVEL
from selfcascade.report.comparisons import (
    COMPOSITION,
    ENLARGED,
    KERNELS,
    NAMES,
    REAL,
    REPETITION,
    Rows,
    Told,
    p_of,
    signed,
)
from selfcascade.report.results import Row, Statement
from selfcascade.report.tables import markdown, wilson

HOW = """A method is *ahead* or *behind* only if a two-sided test over the captions that both have gives p < 0.05, and
the difference is larger than the spread of real samples of the same captions. Else the two are *level*. Right or wrong:
exact McNemar test. Distances: paired bootstrap, 10,000 draws; the spread is half the middle 95 % of a distance of 0
(wild bootstrap). Each p of these statements is corrected for their number, in both worlds (Holm 1979); without that
no bootstrap gives less than 0.0002. The tables further down, and the verdicts on the claims, use p as it is.
[Evaluation](../evaluation.md#sets-of-captions-floors-and-tests) says what the tests leave out.
"""


WORLDS = """*Open*: level in at least one world, which may have too few captions. Bases and trained rows differ between
worlds.
"""


class Tested(NamedTuple):
    """A statement with its test.

    Attributes:
        statement: The rows and the figure.
        told: What may be said; None if it was not measured.
        world: The data that it was measured on.
        elsewhere: The same rows in another world: its data, and what may be said there.
    """

    statement: Statement
    told: Told | None
    world: str = ""
    elsewhere: tuple[str, Told] | None = None

    def corrected(self, values: Iterator[float]) -> Tested:
        """The same with the next of these p-values, one for each world, and what may be said by them."""
        told = None if self.told is None else _with_p(self.told, next(values))
        elsewhere = None if self.elsewhere is None else (self.elsewhere[0], _with_p(self.elsewhere[1], next(values)))
        return self._replace(told=told, elsewhere=elsewhere)

    @property
    def figure(self) -> str:
        """The figure's name in words."""
        return NAMES.get(self.statement.figure, self.statement.figure)


def compare_all(
    wanted: Sequence[Statement], tables: Mapping[str, Sequence[Row]], worlds: Mapping[str, str] | None = None
) -> list[Tested]:
    """Tests all statements.

    Args:
        wanted: The comparisons to make.
        tables: Rows by suite and set of captions, "SUITE/SPLIT".
        worlds: By suite, the one that has the same rows in another world.
    """
    held: list[Tested] = []
    for one in wanted:
        suite, _, split = one.table.partition("/")
        rows, others = tables.get(one.table), tables.get(f"{(worlds or {}).get(suite)}/{split}")
        other = _told(one, others)
        elsewhere = None if other is None or not others else (world_of(others), other)
        held.append(Tested(one, _told(one, rows), world_of(rows) if rows else "", elsewhere))
    told = [own for one in held for own in (one.told, one.elsewhere and one.elsewhere[1]) if own is not None]
    corrected = iter(holm([own.comparison.p for own in told]))
    return [own.corrected(corrected) for own in held]


def holm(values: Sequence[float]) -> list[float]:
    """p-values after Holm's correction (1979): below a level with that chance if all null hypotheses are true."""
    found, highest = [1.0] * len(values), 0.0
    for rank, index in enumerate(sorted(range(len(values)), key=lambda index: values[index])):
        highest = max(highest, min(1.0, (len(values) - rank) * values[index]))
        found[index] = highest
    return found


def statements(found: Sequence[Tested]) -> str:
    """A table of the statements: what was found, on which data, by which test."""
    lines = []
    for own in found:
        one, told = own.statement, own.told
        if told is None:
            lines.append([f"{one.first} against {one.second} in {own.figure}: not measured", one.table, *["-"] * 6])
            continue
        sentence = f"**{one.first} is {_words(told)} {one.second}** in {own.figure}"
        low, high = (signed(value) for value in (told.comparison.low, told.comparison.high))
        difference = f"{signed(told.comparison.difference)} ({low} to {high})"
        place = f"{one.table} ({own.world})"
        numbers = [str(told.comparison.captions), difference, f"{told.spread:.2g}", told.test]
        elsewhere = "-" if own.elsewhere is None else _in_world(*own.elsewhere)
        lines.append([sentence, place, *numbers, p_of(told.comparison), elsewhere])
    head = ["statement", "measured in", "captions", "difference (95 %)", "spread of real", "test", "p, corrected"]
    return f"{markdown([*head, 'in the other world'], lines)}\n"


def in_worlds(found: Sequence[Tested]) -> str:
    """A table of the statements that two worlds can tell, and of where each holds; "" if there are none."""
    lines = []
    for own in found:
        if own.told is None or own.elsewhere is None:
            continue
        what = f"{own.statement.first} against {own.statement.second} in {own.figure}"
        held = [(own.world, own.told), own.elsewhere]
        cells = [_in_world(world, told) for world, told in held]
        lines.append([what, own.statement.table, *cells, _in_both([told.word for _, told in held])])
    head = ["statement", "table", "first world", "second world", "holds in both"]
    return f"{WORLDS}\n{markdown(head, lines)}\n" if lines else ""


def split_table(rows: Sequence[Row]) -> str:
    """The rows of a set of captions: accuracies, unbiased distances, and the comparison with enlarged base samples."""
    records = Rows.of(list(rows))
    figures = [name for name in KERNELS if any(name in result for row in rows for result in row.results)]
    read = any("composition" in result for row in rows for result in row.results) and not rows[0].clips
    repeats = any(REPETITION in result for row in rows for result in row.results) and not read
    head = ["method", "samples", *(["all right, %"] if read else [REPETITION] if repeats else [])]
    head += [NAMES[name] for name in figures]
    lines = []
    for row in rows:
        cells = [_name(row.method), f"{row.results[0]['pictures']} x {len(row.results)}"]
        if repeats:
            cells.append(row.figure(lambda result: result[REPETITION]["mean"]))
        if read:
            cells.append(f"{row.figure(lambda result: 100 * result['composition']['all'])}{_range(row)}")
        cells += [row.figure(lambda result, name=name: result[name][0]) for name in figures]
        compared = [*([COMPOSITION] if read else [REPETITION] if repeats else []), *figures]
        enlarged = records.beside(row.method, ENLARGED)
        own = [] if _is_floor(row.method) else [records.told(row.method, enlarged, name) for name in compared]
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
        enlarged = records.beside(row.method, ENLARGED)
        told = [] if _is_floor(row.method) else [records.told(row.method, enlarged, name) for name in names]
        lines.append([*cells, ", ".join(_short(one) for one in told if one is not None) or "-"])
    return markdown(head, lines)


def world_of(rows: Sequence[Row]) -> str:
    """The data that a table was measured on."""
    return str(rows[0].results[0].get("settings", {}).get("data", "scenes"))


def _told(one: Statement, rows: Sequence[Row] | None) -> Told | None:
    return None if rows is None else Rows.of(list(rows)).told(one.first, one.second, one.figure)


def _with_p(told: Told, p: float) -> Told:
    """The same with another p. A word needs it to be below the level too."""
    word = told.word if p < LEVEL else "level"
    return told._replace(comparison=told.comparison._replace(p=p), word=word)


def _in_world(world: str, told: Told) -> str:
    own = told.comparison
    return f"{world}: {told.word} by {signed(own.difference)}, p {p_of(own)}, {own.captions} captions"


def _in_both(words: Sequence[str]) -> str:
    """One level row contradicts nothing: it may have too few captions."""
    if "level" in words:
        return "open"
    return f"yes, {words[0]}" if len(set(words)) == 1 else "contradicted"


def _octaves() -> list[str]:
    return [name for name in NAMES if name.startswith("octave_error")]


def _words(told: Told) -> str:
    return {"ahead": "ahead of", "behind": "behind", "level": "level with"}[told.word]


def _short(told: Told) -> str:
    return f"{NAMES[told.figure]} {told.word} (p {'' if told.comparison.p < 0.001 else '= '}{p_of(told.comparison)})"


def _is_floor(method: str) -> bool:
    return method.partition(", ")[0] in (REAL, ENLARGED)


def _name(method: str) -> str:
    name, comma, sampling = method.partition(", ")
    shown = {REAL: "*real samples*", ENLARGED: "*base samples, enlarged*"}.get(name, name)
    return f"{shown}{comma}{sampling}"


def _range(row: Row) -> str:
    """Wilson's interval over the samples of all seeds; over captions, if trainings share them."""
    shares = [(result["composition"]["all"], result["pictures"]) for result in row.results if "composition" in result]
    count = sum(number for _, number in shares)
    if not count:
        return ""
    captions = len({number for record in row.records for number in record.numbers})
    low, high = wilson(sum(share * number for share, number in shares) / count, captions or count)
    return f" ({100 * low:.0f} to {100 * high:.0f})"
