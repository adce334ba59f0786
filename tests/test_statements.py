"""Statements, verdicts and the list of outdated results: made from records, and from nothing else."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from report_files import cells, write_result
from selfcascade.evaluation.per_picture import PerPicture, read_record, record_of, write_record
from selfcascade.evaluation.revisions import PROTOCOL
from selfcascade.report.claims import CLAIMS, NOT, REPRODUCED, UNKNOWN, verdicts
from selfcascade.report.comparisons import Rows
from selfcascade.report.made_how import conditions
from selfcascade.report.results import ReportConfig, Statement, read_splits, read_tables
from selfcascade.report.statements import compare_all, holm, in_worlds, split_table, statements, truth_table
from selfcascade.report.tables import Costs

COUNT = 40
# Share that is right, and how far the patches' points lie from the real ones.
METHODS = {"real": (1.0, 0.0), "lanczos": (0.9, 0.5), "good": (0.9, 0.05), "direct": (0.1, 1.5), "same": (0.9, 0.5)}


def write_method(
    suite: Path, method: str, right: float, away: float, seed: int = 0, data: str = "scenes", **values: float
) -> Path:
    """A result with its record; methods of one seed share their captions' noise."""
    noise = np.random.default_rng(1000 + seed).normal(size=(COUNT, 8))
    own = np.random.default_rng(len(method) + seed).normal(size=(COUNT, 8))
    points = (0.3 * noise + 0.1 * own + away * np.eye(8)[0]).astype(np.float16)
    shares = np.random.default_rng(2000 + seed).random(COUNT)[:, None] < right
    made = {"protocol": PROTOCOL, "revision": 1, "weights": {}}
    kid = float(away**2)
    path = write_result(
        suite / method / f"seed-{seed}", "4x", float(shares.mean()), pictures=COUNT, made_by=made,
        patch_kid=[kid, 0, 1], settings={"data": data}, **{name: [value] * 3 for name, value in values.items()},
    )  # fmt: skip
    kept = {name: np.full(COUNT, value, np.float32) + noise[:, 0].astype(np.float32) for name, value in values.items()}
    record = PerPicture(
        100 * seed, ("count",), shares, np.ones((COUNT, 1), bool), {"patch_kid": points},
        {"patch_kid": "real"}, kept,
    )  # fmt: skip
    write_record(record_of(path), record)
    return path


@pytest.fixture(scope="module")
def suites(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("experiments")
    for method, own in METHODS.items():
        for seed in (0, 1):
            write_method(folder / "table1/validation", method, *own, seed=seed)
    return folder


def told(suites: Path, first: str, second: str, figure: str) -> str:
    wanted = [Statement(table="table1/validation", first=first, second=second, figure=figure)]
    return statements(compare_all(wanted, read_splits(suites, ReportConfig()))).splitlines()[-1]


def test_words_follow_from_the_tests(suites: Path) -> None:
    line = told(suites, "good", "lanczos", "patch_kid")
    assert line.startswith("| **good is ahead of lanczos** in patch KID | table1/validation (scenes) | 80 |")
    assert line.endswith("| paired bootstrap | < 0.001 | - |")
    line = told(suites, "direct", "good", "composition")
    assert "**direct is behind good** in composition" in line and "| exact McNemar | < 0.001 |" in line
    assert "**same is level with lanczos** in composition" in told(suites, "same", "lanczos", "composition")
    assert "good against nobody in composition: not measured" in told(suites, "good", "nobody", "composition")
    assert "good against lanczos in kvd: not measured" in told(suites, "good", "lanczos", "kvd").replace("KVD", "kvd")


def test_statements_are_compared_between_worlds(suites: Path, tmp_path: Path) -> None:
    swapped = {**METHODS, "good": METHODS["direct"], "direct": METHODS["good"]}
    for method, own in swapped.items():
        write_method(tmp_path / "collages-4x/validation", method, *own, data="collages")
    tables = {**read_splits(suites, ReportConfig()), **read_splits(tmp_path, ReportConfig())}
    pairs = ("good", "direct", "patch_kid"), ("same", "lanczos", "composition"), ("real", "lanczos", "patch_kid")
    wanted = [Statement(table="table1/validation", first=a, second=b, figure=c) for a, b, c in pairs]
    lines = in_worlds(compare_all(wanted, tables, {"table1": "collages-4x"})).splitlines()[-3:]
    assert [line.split(" | ")[-1] for line in lines] == ["contradicted |", "open |", "yes, ahead |"]
    begins = "| good against direct in patch KID | table1/validation | scenes: ahead by \N{MINUS SIGN}2."
    assert lines[0].startswith(begins)
    assert "p 0.001, 80 captions | collages: behind by +2." in lines[0]  # six times 0.0002
    page = statements(compare_all(wanted, tables, {"table1": "collages-4x"}))
    assert (
        "collages: behind by +2." in page.splitlines()[2] and len({line.count("|") for line in page.splitlines()}) == 1
    )
    wanted[0] = wanted[0].model_copy(update={"first": "nobody"})
    page = statements(compare_all(wanted, tables, {"table1": "collages-4x"}))
    assert "not measured" in page and len({line.count("|") for line in page.splitlines()}) == 1
    assert len(in_worlds(compare_all(wanted, tables, {"table1": "collages-4x"})).splitlines()) == 7
    assert in_worlds(compare_all(wanted, tables)) == ""


def test_p_values_are_corrected_for_their_number() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])  # as statsmodels has it
    assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([]) == []


def test_a_word_needs_the_corrected_p(suites: Path) -> None:
    wanted = [Statement(table="table1/validation", first="good", second="direct", figure="patch_kid")] * 300
    found = compare_all(wanted, read_splits(suites, ReportConfig()))
    assert {own.told.word for own in found if own.told} == {"level"}  # 300 times 0.0002 is 0.06
    assert all(own.told is not None and own.told.comparison.p > 0.05 for own in found)


def test_captions_that_no_two_rows_share_tell_nothing(tmp_path: Path) -> None:
    for method, own in METHODS.items():
        write_method(tmp_path / "ratios/test", method, *own, seed=1 if method == "good" else 0, repetition=0.8)
    rows = Rows.of(read_splits(tmp_path, ReportConfig())["ratios/test"])
    assert rows.told("good", "lanczos", "repetition") is None and rows.told("good", "lanczos", "composition") is None


def test_a_difference_within_the_floors_spread_is_not_told(suites: Path) -> None:
    rows = Rows.of(read_splits(suites, ReportConfig())["table1/validation"])
    found = rows.told("good", "real", "patch_kid")
    assert found is not None and found.word == "level"
    assert abs(found.comparison.difference) <= found.spread and found.comparison.captions == 2 * COUNT


def test_distances_from_other_real_samples_are_not_compared(suites: Path, tmp_path: Path) -> None:
    suite = tmp_path / "table1/validation"
    for method in ("real", "lanczos", "good"):
        path = write_method(suite, method, *METHODS[method])
        if method == "good":
            record = read_splits(tmp_path, ReportConfig())["table1/validation"]
            kept = next(row for row in record if row.method == "good").records[0]
            other = PerPicture(kept.first, kept.attributes, kept.right, kept.known, kept.points, {"patch_kid": "other"})
            write_record(record_of(path), other)
    rows = Rows.of(read_splits(tmp_path, ReportConfig())["table1/validation"])
    assert rows.told("good", "lanczos", "patch_kid") is None
    assert rows.told("good", "lanczos", "composition") is not None


def test_tables_of_sets_have_floors_first_and_a_word_in_each_row(suites: Path) -> None:
    text = split_table(read_splits(suites, ReportConfig())["table1/validation"])
    assert text.splitlines()[2].startswith("| *real samples* | 40 x 2 |")
    good = cells(text, "good")
    assert "patch KID ahead (p < 0.001)" in good[-1] and "composition level (p = 1.000)" in good[-1]
    assert cells(text, "*base samples, enlarged*")[-1] == "-"


def test_where_nothing_reads_the_composition_repetition_is_compared(tmp_path: Path) -> None:
    suite = tmp_path / "ratios/test"
    scores = {"real": 0.74, "lanczos": 0.9, "good": 0.9001, "direct": 6.0}  # a sample's varies by 1
    for method, score in scores.items():
        path = write_method(suite, method, *METHODS[method], repetition=score)
        result = json.loads(path.read_text())
        del result["composition"]
        path.write_text(json.dumps({**result, "repetition": {"mean": score}}))
    rows = read_splits(tmp_path, ReportConfig())["ratios/test"]
    text = split_table(rows)
    assert cells(text, "method")[2] == "repetition" and cells(text, "direct")[2] == "6.00"
    assert cells(text, "direct")[-1].startswith("repetition behind (p < 0.001), patch KID behind")
    assert cells(text, "good")[-1].startswith("repetition level")  # nearer than the spread of real samples


def test_rows_of_several_samplings_are_compared_with_floors_of_their_own(tmp_path: Path) -> None:
    for method, own in METHODS.items():
        path = write_method(tmp_path / "ratios/test", method, *own)
        record, result = read_record(record_of(path)), json.loads(path.read_text())
        shifted = {
            name: points + np.float16(1) * np.eye(8, dtype=np.float16)[1] for name, points in record.points.items()
        }
        other = path.with_name(path.name.replace("4x", "tall"))
        other.write_text(json.dumps({**result, "sampling": {**result["sampling"], "name": "tall"}}))
        write_record(record_of(other), replace(record, points=shifted, real={"patch_kid": "real, tall"}))
    rows = Rows.of(read_splits(tmp_path, ReportConfig())["ratios/test"])
    assert {rows.beside(name, "real") for name in ("good, 4x", "good, tall")} == {"real, 4x", "real, tall"}
    found = rows.told("good, tall", "lanczos, tall", "patch_kid")
    assert found is not None and found.word == "ahead"
    for figure in ("patch_kid", "composition"):  # other real samples are theirs
        assert rows.told("good, tall", "lanczos, 4x", figure) is None
    assert rows.beside("good, tall, 400 steps", "real") == "real, tall"
    text = split_table(read_splits(tmp_path, ReportConfig())["ratios/test"])
    assert (
        cells(text, "good, tall")[-1].startswith("composition level")
        and "patch KID ahead" in cells(text, "good, tall")[-1]
    )
    assert cells(text, "*real samples*, tall")[-1] == "-"


def test_truth_tables_compare_pictures_by_their_values(tmp_path: Path) -> None:
    suite = tmp_path / "truth-4x/validation"
    for method, psnr in (("real", 100.0), ("lanczos", 25.0), ("quality", 26.0)):
        write_method(suite, method, 1.0, 0.0, psnr=psnr)
    text = truth_table(read_splits(tmp_path, ReportConfig())["truth-4x/validation"])
    assert cells(text, "quality")[2:] == ["26.0", "PSNR ahead (p < 0.001)"]


def test_claims_get_their_verdict_from_rows(suites: Path, tmp_path: Path) -> None:
    suite = tmp_path / "table1/test"
    rows = {"real": 0.0, "self-cascade-quality": 0.5, "self-cascade-quality-K850": 0.5, "tuned-micro": 0.1}
    rows |= {"lora-r4": 0.1, "full-ft": 0.9, "direct": 2.0}
    for method, away in rows.items():
        write_method(suite, method, 1.0, away)
    measured = [{"method": name, "pixels": 4, "seconds": [seconds], "size": [1, 1], "trained_parameters": 0}
                for name, seconds in (("direct", 1.0), ("self-cascade-paper", 1.05), ("tuned-micro", 1.5))]  # fmt: skip
    costs = Costs({"rows": measured, "steps": 1, "guidance_scale": 1})
    lines = verdicts(read_splits(tmp_path, ReportConfig()), costs).splitlines()[2:]
    found = {line.split(" | ")[0].removeprefix("| "): line.split(" | ")[1] for line in lines}
    assert len(found) == len(CLAIMS)
    words = {claim.says: found[claim.says] for claim in CLAIMS}
    assert words["Tuned, it is ahead of tuning-free in patches (Table 1)"] == REPRODUCED
    lora = "Tuned, it is ahead of LoRA and of full fine-tuning (Table 1)"
    assert words[lora] == UNKNOWN  # level with LoRA, at 40 captions
    assert words["Tuned, it keeps what the base model can do: FID_b (Table 1)"] == UNKNOWN  # no such figure
    assert words["Tuned takes 1.06 times as long (Table 1)"] == UNKNOWN
    assert "| 1.50 times in benchmarks/methods.json" in lines[-1] and "1.06 times in the paper" in lines[-1]
    assert set(verdict for claim, verdict in words.items() if "Table 2)" in claim or "Table 3)" in claim) == {UNKNOWN}
    write_method(suite, "tuned-micro", 1.0, 0.8)
    again = verdicts(read_splits(tmp_path, ReportConfig()), costs)
    assert f"| {lora} | {NOT} | tuned-micro behind lora-r4 in" in again


def test_level_rows_speak_against_a_claim_only_at_as_many_captions_as_the_protocol_asks_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for method, away in {"real": 0.0, "direct": 0.5, "tuned-micro": 0.5}.items():
        write_method(tmp_path / "table1/test", method, 1.0, away)
    claim = next(claim for claim in CLAIMS if claim.says.startswith("Tuned, it is ahead of tuning-free"))
    for captions, verdict in ((COUNT + 1, UNKNOWN), (COUNT, NOT)):
        own = replace(claim, captions=captions, orders=(("patch_kid", "tuned-micro", "direct"),))
        monkeypatch.setattr("selfcascade.report.claims.CLAIMS", (own,))
        assert f" | {verdict} | " in verdicts(read_splits(tmp_path, ReportConfig()), None)


def test_claims_are_read_from_a_table_that_has_their_rows(suites: Path, tmp_path: Path) -> None:
    claim = next(claim for claim in CLAIMS if claim.says.startswith("Tuned, it is ahead of tuning-free"))
    rows = {"real": 0.0, "self-cascade-quality": 0.5, "self-cascade-quality-K850": 0.5, "tuned-micro": 0.1}
    for method, away in rows.items():
        write_method(tmp_path / "table1/validation", method, 1.0, away)
    write_method(tmp_path / "table1/test", "real", 1.0, 0.0)
    told = verdicts(read_splits(tmp_path, ReportConfig()), None)
    assert f"| {claim.says} | {REPRODUCED} | " in told and "(table1/validation, scenes)" in told


def test_rows_of_unequal_captions_are_compared_on_those_that_both_have(tmp_path: Path) -> None:
    for method, away in {"real": 0.0, "few": 0.3, "many": 0.4}.items():
        path = write_method(tmp_path / "table1/test", method, 1.0, away)
        if method == "few":
            record = read_record(record_of(path))
            write_record(record_of(path), replace(
                record, right=record.right[:10], known=record.known[:10],
                points={name: points[:10] for name, points in record.points.items()},
            ))  # fmt: skip
    rows = Rows.of(read_splits(tmp_path, ReportConfig())["table1/test"])
    few, many = rows.told("few", "many", "patch_kid"), rows.told("many", "real", "patch_kid")
    assert few is not None and many is not None and (few.comparison.captions, many.comparison.captions) == (10, COUNT)
    assert few.spread > 2 * many.spread  # a distance of 0 of 10 samples moves four times as far as one of 40


def test_without_a_floor_of_the_same_captions_nothing_is_told(tmp_path: Path) -> None:
    for method, seed in (("real", 0), ("good", 1), ("direct", 1)):
        write_method(tmp_path / "table1/test", method, 1.0, 0.1 * seed * len(method), seed=seed)
    rows = Rows.of(read_splits(tmp_path, ReportConfig())["table1/test"])
    assert rows.told("good", "direct", "patch_kid") is None
    assert rows.told("good", "direct", "composition") is not None


def test_distances_of_the_same_captions_are_compared_whatever_the_number_of_seeds(suites: Path) -> None:
    held = Rows.of(read_splits(suites, ReportConfig())["table1/validation"]).records
    records = {"real": held["real"][:1], "one": held["direct"][:1], "two": [*held["good"][:1], *held["good"][:1]]}
    apart = Rows(records, {"one": {"patch_kid": 2.0}, "two": {"patch_kid": 0.0}})
    near = Rows(records, {"one": {"patch_kid": 0.0}, "two": {"patch_kid": 0.0}})
    other = Rows({**records, "two": held["good"][1:]}, {"one": {"patch_kid": 0.0}, "two": {"patch_kid": 0.0}})
    words = [one.word for rows in (apart, near) if (one := rows.told("one", "two", "patch_kid"))]
    assert words == ["behind", "level"]
    assert other.told("one", "two", "patch_kid") is None  # no captions are shared


def test_results_that_would_be_made_otherwise_are_listed_and_older_ones_named(suites: Path, tmp_path: Path) -> None:
    path = write_method(tmp_path / "table1/validation", "good", 1.0, 0.0)
    write_result(tmp_path / "table1/results/direct/seed-0", "table1", 0.5)
    text = conditions(tmp_path)
    assert text.startswith(f"1 of protocol 1, 1 of protocol {PROTOCOL}.") and "No result is known to differ" in text
    result = json.loads(path.read_text())
    made = {**result["made_by"], "weights": {"model: unet.safetensors": "0f", "trained": "1e"}}
    path.write_text(json.dumps({**result, "made_by": made}))
    assert "The weights of 1 results are not here, and were not compared." in conditions(tmp_path)
    path.write_text(json.dumps({**result, "made_by": {**result["made_by"], "protocol": PROTOCOL - 1}}))
    expected = f"| `table1/validation/good/seed-0/{path.name}` | protocol {PROTOCOL - 1} of None, not {PROTOCOL} |"
    assert expected in conditions(tmp_path)


def test_older_tables_are_read_as_before(suites: Path, tmp_path: Path) -> None:
    write_result(tmp_path / "table1/results/direct/seed-0", "table1", 0.5)
    write_method(tmp_path / "table1/validation", "direct", 1.0, 0.0)
    assert [row.method for row in read_tables(tmp_path, ReportConfig())["table1"]] == ["direct"]
    assert read_tables(suites, ReportConfig(), may_lack=True) == {}
    with pytest.raises(ValueError, match="hold no results"):
        read_tables(suites, ReportConfig())


def test_points_that_say_otherwise_than_the_distances_tell_nothing(tmp_path: Path) -> None:
    for method in ("real", "lanczos", "good"):
        path = write_method(tmp_path / "table1/validation", method, *METHODS[method])
        if method == "good":
            path.write_text(json.dumps({**json.loads(path.read_text()), "patch_kid": [0.9, 0, 1]}))
    found = Rows.of(read_splits(tmp_path, ReportConfig())["table1/validation"]).told("good", "lanczos", "patch_kid")
    assert found is not None and found.comparison.p < 0.001 and found.word == "level"


def test_floors_are_of_a_rows_own_size_and_other_sizes_are_not_compared(tmp_path: Path) -> None:
    large = {"name": "16x", "height": 256, "width": 256}
    for method in ("real", "lanczos", "good"):
        path = write_method(tmp_path / "sizes/test", method, *METHODS[method])
        other = path.with_name(path.name.replace("4x", "16x")) if method != "good" else path
        result = json.loads(path.read_text())
        if method != "good":
            record = read_record(record_of(path))
            other.write_text(json.dumps({**result, "sampling": {**result["sampling"], **large}}))
            write_record(record_of(other), record)
    path = write_method(tmp_path / "sizes/test", "large", 0.5, 0.05)
    result = json.loads(path.read_text())
    path.write_text(json.dumps({**result, "sampling": {**result["sampling"], **large, "name": "4x"}}))
    rows = Rows.of(read_splits(tmp_path, ReportConfig())["sizes/test"])
    floors = {name: rows.beside(name, "lanczos") for name in ("good", "large")}
    assert {name: rows.sizes[floor] for name, floor in floors.items()} == {"good": (128, 128), "large": (256, 256)}
    assert rows.told("large", "good", "composition") is None
    found = rows.told("large", floors["large"], "composition")
    assert found is not None and found.word == "behind"


def test_trainings_of_the_same_captions_do_not_make_an_interval_narrower(tmp_path: Path) -> None:
    write_method(tmp_path / "table1/test", "real", 1.0, 0.0)
    path = write_method(tmp_path / "table1/test", "good", 0.5, 0.1)

    def interval() -> str:
        return cells(split_table(read_splits(tmp_path, ReportConfig())["table1/test"]), "good")[2].partition("(")[2]

    alone, record, result = interval(), read_record(record_of(path)), json.loads(path.read_text())
    assert alone
    for seed in (1, 2):
        other = path.parents[1] / f"seed-{seed}" / path.name
        other.parent.mkdir()
        other.write_text(json.dumps({**result, "seed": seed}))
        write_record(record_of(other), record)
    assert interval() == alone
