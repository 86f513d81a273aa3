"""Cuts text into sentences, and judges each one by rules of plain English."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["REMEDIES", "broken", "sentences"]

LONGEST = 28
LONGEST_BRACKET = 6
MOST_PASSIVES = 2

REMEDIES = {
    "long": f"more than {LONGEST} words: make two sentences, or a list",
    "clause": "a clause is the subject: name who or what acts (a worker, you, the scheduler)",
    "word": "a word that costs a second reading: take the common one",
    "cleft": "`it is ... that`: say it straight",
    "bracket": f"more than {LONGEST_BRACKET} words in brackets within a sentence: a new sentence",
    "passive": f"more than {MOST_PASSIVES} passives: say who does it",
    "nested": "clauses within clauses: one thought a sentence",
    "semicolon": "more than one semicolon: sentences, or a list",
    "relative": "`by which`, `of which`: a sentence of its own, or a word such as `where`",
}

CODE = re.compile(r"`[^`]*`")
WORD = re.compile(r"[^\W_][\w'./%-]*")
# Neither a known abbreviation nor three dots end a sentence.
END = re.compile(r"(?<!e\.g)(?<!i\.e)(?<!etc)(?<!\bvs)(?<!\.\.)[.!?][\"')*]*\s+(?![a-z(])")
CLAUSE = re.compile(
    r"(?:What|Whatever|Who|Whoever|Whichever|Whether|Why|How(?! to\b)|Where(?=[^,]*$)"
    r"|That (?:also|the|an?|each|every|no|you|it|they|its|their|any|some|there))\b"
)
CLAUSE_WITHIN = re.compile(r"(?:;|\bthen|^and|^but|^so) what\b(?! to\b)", re.IGNORECASE)
BANNED = re.compile(
    r"\b(?:nobody|somebody|whoever|whomever|anew|shall|thereof|therein|thereby|whereby|wherein"
    r"|hereby|hence|likewise|whilst|thus|upon|amongst|moreover|albeit|deaf"
    r"|from which on|if you say so|in order to|told of|in (?:its|their) own way|is who"
    r"|(?:is|are|was|were) to be|so much aside|(?:after|for|at least|of) so (?:much|many|long)"
    r"|(?:is|are|was|were|be|been|broker|server|worker|scheduler) away(?! from\b))\b",
    re.IGNORECASE,
)
CLEFT = re.compile(r"\bit (?:is|was) [^,.;:()]{1,60}? (?:that|who|which)\b", re.IGNORECASE)
BRACKET = re.compile(r"\(([^()]*)\)(?=\s*[\w`])")
IRREGULAR = (
    "told|sent|kept|made|taken|given|shown|set|lost|read|put|found|run|written|seen|known|built"
    "|cut|held|left|said|done|brought|thrown|drawn|chosen|broken|bound|meant|spent|shut"
)
PASSIVE = re.compile(
    r"\b(?:is|are|was|were|be|been|being)\b(?: not| also| then| only| \w+ly)?"
    rf" (?:\w+ed|{IRREGULAR})\b",
    re.IGNORECASE,
)
RELATIVE = re.compile(r"\b(?:that|which|who|whose|whom|what|whatever|where)\b", re.IGNORECASE)
STIFF = re.compile(r"\b(?:of|in|by|to|from|with|at|for|through) (?:which|whom)\b", re.IGNORECASE)


def sentences(text: str) -> Iterator[tuple[int, str]]:
    """Yield each sentence, with its offset in the text."""
    covered = CODE.sub(lambda match: f"`{'X' * (len(match[0]) - 2)}`", text)
    start = 0
    for end in [*(match.end() for match in END.finditer(covered)), len(text)]:
        if text[start:end].strip():
            yield start, " ".join(text[start:end].split())
        start = end


def broken(sentence: str) -> list[str]:
    """Return the names of the rules that a sentence breaks; code in it counts as one word."""
    plain = CODE.sub("Code", sentence)
    is_question = plain.endswith("?")
    is_whole = plain.endswith((".", "!", ":"))
    relatives = len(RELATIVE.findall(plain))
    brackets = [len(WORD.findall(match[1])) for match in BRACKET.finditer(plain)]
    found = {
        "long": len(WORD.findall(plain)) > LONGEST,
        "clause": (is_whole and CLAUSE.match(plain))
        or (not is_question and CLAUSE_WITHIN.search(plain)),
        "word": BANNED.search(plain),
        "cleft": CLEFT.search(plain),
        "bracket": any(words > LONGEST_BRACKET for words in brackets),
        "passive": len(PASSIVE.findall(plain)) > MOST_PASSIVES,
        "nested": relatives > 3 or (relatives == 3 and plain.count(",") > 1),
        "semicolon": plain.count(";") > 1,
        "relative": STIFF.search(plain),
    }
    return [rule for rule, is_broken in found.items() if is_broken]
