"""The claims of the paper, each with a verdict from the tests: reproduced, not reproduced, or cannot be told here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from selfcascade.report.comparisons import NAMES, Rows, Told, p_of
from selfcascade.report.results import Row
from selfcascade.report.statements import world_of
from selfcascade.report.tables import Costs, markdown

REPRODUCED, NOT, UNKNOWN = "reproduced", "not reproduced", "cannot be told here"


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, as an order of rows.

    Attributes:
        says: The claim, and where the paper makes it.
        suites: How the names of the suites begin that can confirm it.
        orders: (figure, row that is said to be ahead, row that it is ahead of).
        captions: Captions from which rows that are level speak against the claim; with fewer, nothing can be told.
        time: For a claim about seconds: a row, the paper's ratio to direct inference, and the multiple of pixels.
    """

    says: str
    suites: tuple[str, ...] = ()
    orders: tuple[tuple[str, str, str], ...] = ()
    captions: int = 500
    time: tuple[str, float, int] | None = None


def _over(figures: Sequence[str], first: str, *others: str) -> tuple[tuple[str, str, str], ...]:
    return tuple((figure, first, other) for other in others for figure in figures)


FREE, TUNED, LORA = "self-cascade-paper", "tuned-micro", "lora-r4"
UNTUNED = ("self-cascade-quality", "self-cascade-quality-K850")  # by default, and with the tuned version's own settings
CLAIMS = (
    Claim(
        "Without training, the cascade is ahead of direct inference, Attn-SF and ScaleCrafter at 4x (Table 1)",
        ("table1", "collages-4x"),
        _over(("composition", "kid", "patch_kid"), FREE, "direct", "attn-sf", "scalecrafter"),
    ),
    Claim(
        "Tuned, it is ahead of tuning-free in patches (Table 1)",
        ("table1", "collages-4x"),
        _over(("patch_kid",), TUNED, *UNTUNED),
        captions=200,
    ),
    Claim(
        "Tuned, it is ahead of LoRA and of full fine-tuning (Table 1)",
        ("table1", "collages-4x"),
        _over(("kid", "patch_kid"), TUNED, LORA, "full-ft"),
        captions=200,
    ),
    Claim(
        "Tuned, it keeps what the base model can do: FID_b (Table 1)",
        ("table1", "collages-4x"),
        _over(("kid_b",), TUNED, LORA, "full-ft"),
        captions=200,
    ),
    Claim(
        "At 16x, the cascade is ahead of direct inference and ScaleCrafter, and tuned ahead of it (Table 2)",
        ("table2", "collages-16x"),
        _over(("composition", "kid"), FREE, "direct", "scalecrafter") + _over(("kid",), TUNED, FREE),
        captions=200,
    ),
    Claim(
        "Tuned on clips, it has a lower KVD than LoRA and full fine-tuning (Table 3)",
        ("table3",),
        _over(("kvd",), "tuned-clips", LORA, "full-ft"),
        captions=100,
    ),
    Claim(
        "After a fifth of the training steps it is ahead of full fine-tuning (Figure 5)",
        ("table1", "collages-4x"),
        _over(("kid", "patch_kid"), "tuned-micro-200", "full-ft"),
        captions=200,
    ),
    Claim("Tuning-free takes 1.04 times as long as direct inference (Table 1)", time=(FREE, 1.04, 4)),
    Claim("Tuned takes 1.06 times as long (Table 1)", time=(TUNED, 1.06, 4)),
)


def verdicts(tables: Mapping[str, Sequence[Row]], costs: Costs | None) -> str:
    """A table of the claims with their verdicts.

    Args:
        tables: Rows by suite and set of captions, "SUITE/SPLIT". Test captions are preferred.
        costs: Measured costs of the methods.
    """
    lines = [[claim.says, *_verdict(claim, tables, costs)] for claim in CLAIMS]
    return markdown(["claim of the paper", "verdict", "why"], lines)


def _verdict(claim: Claim, tables: Mapping[str, Sequence[Row]], costs: Costs | None) -> tuple[str, str]:
    if claim.time is not None:
        return _of_time(*claim.time, costs)
    found_in = [name for suite in claim.suites for name in _places(suite) if name in tables]
    if not found_in:
        return UNKNOWN, f"no suite of {', '.join(claim.suites)} was measured on a set of captions, with records"
    held = {name: Rows.of(list(tables[name])) for name in found_in}
    table = next((name for name in found_in if not _missing(claim, held[name])), found_in[0])
    rows, missing = held[table], _missing(claim, held[table])
    told = [(first, second, rows.told(first, second, figure)) for figure, first, second in claim.orders]
    found = [(first, second, one) for first, second, one in told if one is not None]
    against = [own for own in found if own[2].word != "ahead"]
    where = f"{table}, {world_of(tables[table])}"
    if any(_speaks_against(told, claim.captions) for _, _, told in against):
        return NOT, f"{'; '.join(_said(*own) for own in against)} ({where})"
    if against:
        return UNKNOWN, f"too few captions: {'; '.join(_said(*own) for own in against)} ({where})"
    if missing or len(found) < len(told):
        lacking = f"no records of {', '.join(missing)}" if missing else "figures are missing"
        return UNKNOWN, f"{lacking} ({where})" + (f"; {'; '.join(_said(*own) for own in found)}" if found else "")
    return REPRODUCED, f"{'; '.join(_said(*own) for own in found)} ({where})"


def _missing(claim: Claim, rows: Rows) -> list[str]:
    return sorted({row for _, first, second in claim.orders for row in rows.missing(first, second)})


def _speaks_against(told: Told, enough: int) -> bool:
    return told.word == "behind" or (told.word == "level" and told.comparison.captions >= enough)


def _places(suite: str) -> tuple[str, str]:
    """The tables to look in. Test captions come first, because presets were chosen on the others."""
    return f"{suite}/test", f"{suite}/validation"


def _said(first: str, second: str, told: Told) -> str:
    figure, own = NAMES[told.figure], told.comparison
    return f"{first} {told.word} {second} in {figure}, p {p_of(own)}, {own.captions} captions"


def _of_time(method: str, paper: float, pixels: int, costs: Costs | None) -> tuple[str, str]:
    """Seconds of another model on another machine speak neither for nor against the paper's."""
    ratio = None if costs is None else costs.ratio(method, "direct", pixels)
    if ratio is None:
        return UNKNOWN, f"seconds of {method} were not measured"
    words = f"{ratio:.2f} times in benchmarks/methods.json, where the base stage is a larger share"
    return UNKNOWN, f"{words}; {paper} times in the paper, for Stable Diffusion 2.1 on a GPU"
