"""The claims: a dozen on the board, three that disagree, each with what settles it; numbers recomputed."""

import re
from itertools import pairwise

import pytest
from statsmodels.stats.proportion import proportion_confint

from openweightlab.data.claims import VERDICTS, checked, claims, problems
from openweightlab.lens import board

ALL = claims(board=False)
BY_ID = {claim["id"]: claim for claim in ALL}


def text_of(id: str) -> str:
    claim = BY_ID[id]
    return " ".join([claim["because"], claim["say_instead"], *claim["facts"]])


def test_the_board_holds_a_dozen_about_both_sides():
    assert len(claims()) == 12
    assert {claim["about"] for claim in claims()} == {"China", "West", "both"}
    assert {claim["settled_by"] for claim in claims()} == {"measurement", "source", "opinion"}
    assert {claim["verdict"] for claim in claims()} == set(VERDICTS)


def test_exactly_three_claims_contradict_each_other_and_stand_apart():
    places = [i for i, claim in enumerate(claims()) if "contradicts" in claim]
    assert len(places) == 3
    assert len({claims()[i]["contradicts"] for i in places}) == 1
    assert min(b - a for a, b in pairwise(places)) > 1, "neighbours give the riddle away"


@pytest.mark.parametrize("claim", ALL, ids=lambda claim: claim["id"])
def test_every_claim_is_well_formed(claim):
    assert problems(claim) == []
    kinds = {source["kind"] for source in claim["sources"]}
    assert claim["settled_by"] != "source" or "primary_source" in claim
    assert kinds <= {"primary", "copy", "secondary"}


MUTATIONS = {
    "no text": (lambda c: c.pop("text"), "lacks text"),
    "a field nobody knows": (lambda c: c.update(colour="red"), "unknown field colour"),
    "a verdict of its own": (lambda c: c.update(verdict="true"), "verdict is one of"),
    "measured nowhere": (lambda c: c.pop("module"), "names its module"),
    "measurable but not by measurement": (lambda c: c.update(settled_by="source"), "settled by measurement"),
    "no source at all": (lambda c: c.update(sources=[]), "there is a source"),
    "an address without https": (lambda c: c["sources"][0].update(url="www.example.org"), "https address"),
    "a source nobody read": (lambda c: c["sources"][0].update(read=False), "owned up to"),
    "a type": (lambda c: c.update(board="yes"), "wrong type"),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_faults_are_found(name):
    change, message = MUTATIONS[name]
    claim = next(c for c in claims() if c["id"] == "r1_per_query")
    change(claim)
    assert any(message in problem for problem in problems(claim)), problems(claim)


def test_an_opinion_needs_both_sides():
    opinion = dict(BY_ID["foreign_ai"], best_case={"for": "…"})
    assert any("both sides" in problem for problem in problems(opinion))


def test_each_call_gives_a_fresh_copy():
    first = claims()
    first[0]["facts"].append("mine")
    first[0]["sources"][0]["url"] = "mine"
    first[0]["text"] = "mine"
    assert claims() != first
    assert "mine" not in str(claims()[0])


def test_the_board_sorts_as_question_4_asks():
    """The rule of Q0.4, written once more here."""
    for claim in ALL:
        kind = (
            "measurement"
            if claim["measurable_here"]
            else "source"
            if claim.get("primary_source")
            else "opinion"
        )
        assert claim["settled_by"] == kind, claim["id"]


def test_numbers_that_can_be_recomputed():
    experts, others = 114_701_598_720, 116_829_156_672 - 114_701_598_720
    shipped = experts * 4.25 / 8 + others * 2
    said = text_of("gpt_oss_one_gpu")
    assert f"{shipped / 1e9:.1f} GB = {shipped / 2**30:.1f} GiB" in said
    assert f"{(experts + others) * 2 / 1e9:.1f} GB" in said

    hours = 2.664 + 0.119 + 0.005
    assert f"{hours:.3f} million" in text_of("v3_cost")
    assert f"${2 * hours:.3f} million" in text_of("v3_cost")

    low, high = proportion_confint(1156, 1360, method="wilson")
    assert f"{100 * low:.1f} to {100 * high:.1f} %" in text_of("r1_refuses_85")
    assert round(100 * 1156 / 1360) == 85

    saved = sorted(round(100 * (1 - bits / 16)) for bits in (4.13, 4.84))
    assert f"{saved[0]} to {saved[1]} % less memory" in text_of("deployment_80")


def test_hugging_faces_two_counts_fit_the_daily_rate():
    """115,000 early in 2026, 151,448 at the end of July; at 180 to 210 a day that is about six months."""
    days = [(151_448 - 115_000) / rate for rate in (180, 210)]
    assert min(days) > 150 and max(days) < 240


def test_the_board_shows_claims_first_and_verdicts_on_demand(capsys):
    board.claims_board()
    plain = capsys.readouterr().out
    assert all(claim["text"] in plain for claim in claims())
    assert not any(claim["because"] in plain for claim in claims())
    board.claims_board(verdicts=True)
    full = capsys.readouterr().out
    assert all(claim["because"] in full for claim in claims())
    assert checked() in full


def test_the_boards_html_is_safe(monkeypatch):
    shown = []
    monkeypatch.setattr(board, "show_html", lambda html, plain: shown.append(html))
    board.claims_board(verdicts=True)
    (html,) = shown
    assert html.count("<details>") == html.count("</details>") == 12
    assert not re.search(r"\$(?!</span>)", html), "a bare dollar sign becomes a formula"
    for claim in claims():
        for source in claim["sources"]:
            assert f'href="{source["url"].replace("&", "&amp;")}"' in html
