from starsmith.evaluation import failures
from starsmith.evaluation.contract import Candidate, Completion, Label, Problem, Request, RunResult, Score


def score(number: int, label: Label, group: str = "") -> Score:
    return Score(problem=f"p/{number}", sample=0, group=group, label=label, value=float(label == "pass"))


def test_a_rare_failure_is_shown_however_common_the_others_are() -> None:
    scores = [score(number, "wrong", "java") for number in range(500)]
    scores += [score(500, "timeout", "java"), score(501, "wrong", "lua"), score(502, "pass", "lua")]
    chosen = failures.choose(scores)
    assert len(chosen) == failures.NUM_FAILURES and chosen == sorted(chosen)
    assert {500, 501} <= set(chosen) and 502 not in chosen
    assert chosen[:3] == [0, 1, 2]


def test_nothing_failed() -> None:
    assert failures.choose([score(0, "pass"), score(1, "measured")]) == [] == failures.choose([])


def test_megabytes_are_cut_at_both_ends_and_say_so() -> None:
    text = "begin" + "x" * 3_000_000 + "end"
    request = Request(problem="p", prompt=text, suffix=text)
    candidate = Candidate(text="", completion=Completion(text=text, finish_reason="length"))
    shown = failures.answer(Problem(id="p", inputs={"middle": "m"}), request, candidate, score(1, "wrong"))
    assert all(len(shown[name]) < failures.MAX_CHARS + 100 for name in ("prompt", "suffix", "completion"))
    assert shown["completion"].startswith("begin") and shown["completion"].endswith("end")
    assert "[2,996,008 characters are not shown]" in shown["completion"]
    assert shown["prompt"].endswith("end") and shown["suffix"].startswith("begin")
    assert shown["expected"] == "m" and shown["finish_reason"] == "length"


def test_the_output_is_of_the_program_that_decided() -> None:
    good = RunResult(ended="exit", stdout="fine")
    bad = RunResult(ended="exit", status=1, stdout="told ", stderr="Traceback")
    assert failures.output([good, bad, good]) == "told Traceback"
    assert failures.output([good]) == "fine" and failures.output([]) == ""
