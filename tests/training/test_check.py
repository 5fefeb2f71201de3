"""What `tiltune check` says of a run before it starts."""

import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

import tiny
from hand_made import ruled, shorter_than, somewhere, without
from tiltune.automata import TextAutomaton
from tiltune.constraints import regex
from tiltune.methods.base import Losses, Work
from tiltune.methods.gfn import Gfn
from tiltune.records.rounds import read_records
from tiltune.training.assemble import Prepared, make_actor, make_learner, prepare
from tiltune.training.check import drawing
from tiltune.training.check.check import check_run
from tiltune.training.check.drawing import affordable
from tiltune.training.check.forecast import draws, forecast, per_step


def prepared_for(folder: Path, **tables: Any) -> Prepared:
    tables = {"data": {"violating": "keep"}} | tables
    return prepare(tiny.config(tiny.workplace(folder, **tables)))


def said(tree: tiny.Tree, *, every: bool = False) -> str:
    console = Console(file=io.StringIO(), width=400)
    check_run(tiny.config(tree), console, every=every)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_cap_of_violating_rows_counts_in_sequences(tmp_path: Path) -> None:
    rows = [{"prompt": "the cat", "completion": " sat and ran and sat"}] * 30
    rows += [{"prompt": "the cat", "completion": " was rude and ran ."}] * 30
    tree = tiny.workplace(tmp_path, data={"violating": "keep", "valid": None}, method={"beta": 3.0})
    tiny.write_rows(tmp_path / "corpus.jsonl", rows)
    tree["data"]["valid"] = str(tiny.write_rows(tmp_path / "valid.jsonl", rows[:4]))
    prepared = prepare(tiny.config(tree))
    assert prepared.count.violating == 30 and prepared.count.rows == 60
    # six tokens a row, its end included; beta is per token: 3 · 6/4 = 4.5 and 3 · 6/18 = 1
    assert "above about 90.9%" in (prepared.cap_told(4.0) or "")  # (.5 + 4.5) / 5.5
    assert "above about 75.0%" in (prepared.cap_told(18.0) or "")


def test_there_is_no_cap_where_nothing_caps(tmp_path: Path) -> None:
    assert prepared_for(tmp_path, data={"violating": "drop"}).cap_told(4.0) is None
    assert prepared_for(tmp_path, method={"kind": "sft"}).cap_told(4.0) is None
    assert prepared_for(tmp_path, method={"beta": 0}).cap_told(4.0) is None


def test_check_and_fit_say_the_cap_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cap = "cannot take the satisfaction rate above about"
    tree = tiny.workplace(tmp_path, data={"violating": "keep"}, method={"beta": 2.0})
    told = said(tree)
    assert told.count(cap) == 1 and "beta: chosen at the first update" not in told
    toml = tiny.write_toml(tree, tmp_path / "run.toml")
    assert tiny.tiltune("fit", str(toml)) == 0
    assert capsys.readouterr().err.count(cap) == 1


def test_the_cap_of_a_chosen_beta_is_said_when_it_is_chosen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = tiny.workplace(tmp_path, data={"violating": "keep"}, method={"rounds": 1})
    told = said(tree)
    assert "satisfaction rate above about" not in told
    assert "beta: chosen at the first update" in told and "from 2 to 50" in told
    assert tiny.tiltune("fit", str(tiny.write_toml(tree, tmp_path / "run.toml"))) == 0
    beta = read_records(tmp_path / "run" / "records.jsonl")[0].beta
    assert f"so at beta = {beta:g} training" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ({}, 3 * 32 + 32),  # what is trained on, the final policy
        ({"anchor": "reference"}, 3 * 32 + 2 * 32 + 32),  # and versions 1 and 2
        ({"schedule": "fixed"}, 32 + 2 * 32 + 32),
        ({"kind": "sft"}, 3 * 32 + 32),
    ],
    ids=["sequential", "reference", "fixed", "sft"],
)
def test_the_estimate_counts_every_completion_that_a_run_draws(
    tmp_path: Path, method: dict[str, Any], expected: int
) -> None:
    tree = tiny.workplace(tmp_path, method={"rounds": 3} | method)
    counted = draws(make_actor(prepare(tiny.config(tree))).plan, 3)
    assert counted == expected + 2 * 16  # the fixed prompts, before and after
    with tiny.Nth("tiltune.training.sampler.draw", -1, lambda: None) as batches:
        tiny.finish(tree)
    assert batches.calls * 16 + 2 * 16 == counted


def test_the_estimate_names_every_phase(tmp_path: Path) -> None:
    told = said(tiny.workplace(tmp_path, method={"anchor": "reference"}))
    line = told[told.index("estimated minutes") :].splitlines()[0]
    for phase in ("sampling", "scoring", "values", "policy", "measuring", "validation"):
        assert phase in line


def test_a_method_that_compares_completions_is_timed_on_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = {"kind": "gfn", "objective": "vargrad"}
    prepared = prepare(tiny.config(tiny.workplace(tmp_path, method=method)))
    actor, learner = make_actor(prepared), make_learner(prepared)
    scored = actor.sampler.draw(prepared.loaded.policy, 16, policy_version=0)
    alone = replace(scored.samples, prompt_index=torch.arange(16))
    groups: list[int] = []
    loss = Gfn.loss

    def watched(self: Gfn, work: Work, *others: Any, **named: Any) -> Losses:
        groups.append(len(work.samples.prompt_index.unique()))
        return loss(self, work, *others, **named)

    monkeypatch.setattr(Gfn, "loss", watched)
    forecast(prepared, actor, learner, replace(scored, samples=alone))
    assert groups and max(groups) <= 2


def test_each_thing_is_said_in_its_order(tmp_path: Path) -> None:
    told = said(tiny.workplace(tmp_path))
    order = [
        *("loading ", "drawing up to 256 completions", "timing a step"),
        *("meets  ", "costs  ", "exact  ", "wrong  ", "next   "),
        *("million parameters", "precision: weights in float32", "prompts: ", "corpus: "),
        *("passes over the corpus in the whole run: ", " judges the completion"),
        *("\nsamples of the model: ", "estimated minutes", "settings that are not the default's"),
    ]
    places = [told.index(each) for each in order]
    assert places == sorted(places)


@pytest.mark.parametrize(("seconds", "count"), [(15.0, 256), (20.0, 192), (60.0, 64), (900.0, 64)])
def test_slow_completions_are_fewer(seconds: float, count: int) -> None:
    """64 of them in 15 s are 256 in a minute; never fewer than those that told."""
    assert affordable(seconds) == count


def test_fewer_completions_are_told_of_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawing, "affordable", lambda seconds: 80)
    told = said(tiny.workplace(tmp_path))
    assert re.search(
        r"drew 80 completions and not 256, as they took \d+ s: intervals are 1.8 times", told
    )
    assert " of 80 satisfy the constraint" in told
    monkeypatch.setattr(drawing, "affordable", lambda seconds: 256)
    told = said(tiny.workplace(tmp_path))
    assert "and not 256" not in told and " of 256 satisfy the constraint" in told


def test_the_estimate_scales_by_what_was_drawn(tmp_path: Path) -> None:
    """A run of 3 · 32 completions and the probes, each at an eighth of a second."""
    prepared = prepare(tiny.config(tiny.workplace(tmp_path, method={"rounds": 3})))
    actor, learner = make_actor(prepared), make_learner(prepared)
    drawn = actor.sampler.draw(prepared.loaded.policy, 80, policy_version=0)
    told = forecast(prepared, actor, learner, replace(drawn, sampling_seconds=10.0))
    assert told.seconds["sampling"] == pytest.approx(draws(actor.plan, 3) / 8)


def test_a_model_and_its_adapter_are_counted_apart(tmp_path: Path) -> None:
    whole = said(tiny.workplace(tmp_path))
    assert "model: 0.01 million parameters, context 24" in whole
    told = said(tiny.workplace(tmp_path, model={"adapter": "lora"}))
    assert "model: 0.01 million parameters and 0.01 million of an adapter, context 24" in told


def test_a_chat_model_that_is_given_plain_prompts_is_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = tiny.workplace(tmp_path)
    warning = "prompts are not in the chat format"
    assert warning not in said(tree)
    template = "{% for m in messages %}{{ m['content'] }} . {% endfor %}"
    (tmp_path / "model" / "chat_template.jinja").write_text(template, "utf-8")
    assert f"warning: 40 of 40 {warning}" in said(tree)
    assert tiny.tiltune("fit", str(tiny.write_toml(tree, tmp_path / "run.toml"))) == 0
    assert capsys.readouterr().err.count(warning) == 1
    question = {"messages": [{"role": "user", "content": "the cat"}]}
    tree["data"]["prompts"] = str(tiny.write_rows(tmp_path / "prompts.jsonl", [question]))
    assert warning not in said(tree)


def test_what_was_chosen_is_listed_and_all_on_demand(tmp_path: Path) -> None:
    tree = tiny.workplace(tmp_path, learner={"batch_size": None}, method={"beta": 2.0})
    chosen, every = said(tree), said(tree, every=True)
    short = {line.split()[1]: line.split()[0] for line in settings_of(chosen)}
    assert short["learner.batch_size"] == short["model.dtype"] == "chosen"
    assert short["method.beta"] == short["learner.learning_rate"] == "stated"
    for as_ever in ("learner.accumulation", "run.dir", "model.path", "actor.threads"):
        assert as_ever not in short and f"  {as_ever} = " in every
    assert "  learner.accumulation = 1  (default)\n      Micro-batches a step." in every
    assert "  method.beta = 2  (stated)" in every and "  model.dtype = 'float32'  (chosen)" in every


def settings_of(told: str) -> list[str]:
    return told[told.index("settings that are not the default's") :].splitlines()[1:]


def test_more_passes_than_are_good_are_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = tiny.workplace(tmp_path, learner={"steps_per_round": 60})
    assert "learner.corpus_passes_max" not in said(tree)
    tree["learner"]["corpus_rows_per_step"] = 4
    warning = "warning: the run reads its corpus"
    assert warning in said(tree)
    assert tiny.tiltune("fit", str(tiny.write_toml(tree, tmp_path / "run.toml"))) == 0
    told = capsys.readouterr().err
    assert told.count(warning) == 1 and "passes over the corpus" in told
    tree["learner"]["corpus_passes_max"] = 1000
    assert warning not in said(tree)


def test_a_quick_step_is_timed_again_and_a_slow_one_is_not() -> None:
    now, asked = [0.0], list[int]()

    def run(steps: int) -> None:
        now[0] += (2.0 if not asked else 0.25) * steps * scale
        asked.append(steps)

    scale = 1.0
    assert per_step(run, lambda: now[0]) == 2.0 and asked == [1]
    asked, scale = [], 0.1
    assert per_step(run, lambda: now[0]) == pytest.approx(0.025) and asked == [1, 4]


OTHER = 'kind = "lexicon"\nwords = ["rude", "dog"]\n'


def replaced(patch: pytest.MonkeyPatch, automaton: TextAutomaton, name: str = "hand-made") -> None:
    """Every regex constraint is this automaton."""
    patch.setattr(regex, "build_regex", lambda config: ruled(automaton, name=name))


def whole_corpus(folder: Path, **tables: Any) -> tiny.Tree:
    """A run that holds no rows of its corpus out."""
    tree = tiny.workplace(folder, **tables)
    rows = [{"prompt": "the", "completion": " cat sat and sat and ran"}]
    tree["data"]["valid"] = str(tiny.write_rows(folder / "valid.jsonl", rows))
    return tree


def regex_run(folder: Path, **tables: Any) -> Path:
    tree = whole_corpus(folder, **({"data": {"violating": "keep"}} | tables))
    tree["constraint"] = {"kind": "regex", "pattern": "x"}
    return tiny.write_toml(tree, folder / "run.toml")


def test_check_explains_the_constraint_on_256_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    replaced(monkeypatch, without("u"), "no u")
    with tiny.Nth("tiltune.training.sampler.draw", -1, lambda: None) as batches:
        assert tiny.tiltune("check", str(regex_run(tmp_path))) == 0
    assert batches.calls * 16 == 256
    told = capsys.readouterr().err
    assert "no u judges the completion; a score of 0.5 or more satisfies" in told
    assert "u → 1; any other: stays" in told
    assert "samples of the model: " in told and "rows of the corpus: 32 of 40 satisfy" in told
    assert "ms a text scored alone (median)" in told
    assert "nearest to the border (by characters to come):" in told
    assert "(1 more character can change it)" in told
    assert "(refused; nothing that follows can change it)" in told
    assert "estimated minutes" in told


def test_check_draws_a_formula_over_the_steps_of_the_text(tmp_path: Path) -> None:
    atoms = {"rude": ["rude", "bad"], "apology": ["sorry"]}
    tree = tiny.workplace(tmp_path, data={"violating": "keep"})
    tree["constraint"] = {"kind": "temporal", "formula": "G(rude -> F apology)", "atoms": atoms}
    lines = said(tree).splitlines()
    start = lines.index("     state      after a word")
    assert lines[start + 1] == "→  0  satisfied  rude & !apology → 1; !rude | apology: stays"
    assert lines[start + 2] == "   1  open       apology → 0; !apology: stays"


def test_check_against_another_constraint_counts_both_ways(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toml = tiny.write_toml(whole_corpus(tmp_path), tmp_path / "run.toml")
    other = tmp_path / "other.toml"
    other.write_text(OTHER, "utf-8")
    assert tiny.tiltune("check", str(toml), "--against", str(other)) == 0
    lines = capsys.readouterr().err.splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("rows of the corpus: the ru"))
    # of 40 rows 8 hold "rude", 8 others "dog"; none "bad"
    assert "agree on 32 of 40 (80.0% [65.2%, 89.5%])" in lines[start]
    assert lines[start + 2].split()[-2:] == ["24", "8"]
    assert lines[start + 3].split()[-2:] == ["0", "8"]
    assert (
        lines[start + 4] == "  only the run's is satisfied:"
        and "contains 'dog'" in lines[start + 5]
    )
    assert sum(line.startswith("samples of the model: the run's") for line in lines) == 1


def test_check_against_a_file_that_is_none_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toml = tiny.write_toml(tiny.workplace(tmp_path), tmp_path / "run.toml")
    assert tiny.tiltune("check", str(toml), "--against", str(tmp_path / "none.toml")) == 2
    assert "none.toml: no such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("automaton", "told"),
    [
        (shorter_than(0), "no text can satisfy it: the whole (odd) is met by no text"),
        (shorter_than(0).complement(), "every text satisfies it: the whole (odd) is met by every"),
    ],
    ids=["contradictory", "trivial"],
)
@pytest.mark.parametrize("violating", ["keep", "drop"])
def test_fit_refuses_what_check_and_score_warn_of(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    automaton: TextAutomaton,
    told: str,
    violating: str,
) -> None:
    replaced(monkeypatch, automaton, "odd")
    toml = regex_run(tmp_path, data={"violating": violating})
    with tiny.Nth("tiltune.models.hub.load", -1, lambda: None) as loading:
        assert tiny.tiltune("fit", str(toml)) == 2
    assert loading.calls == 0 and not (tmp_path / "run").exists()
    assert f"error: constraint: {told}" in capsys.readouterr().err
    assert tiny.tiltune("check", str(toml)) == 2
    said = capsys.readouterr().err
    assert f"warning: constraint: {told}" in said and "there is no estimate" in said
    rows = tiny.write_rows(tmp_path / "rows.jsonl", [{"text": "a"}])
    constraint = tmp_path / "constraint.toml"
    constraint.write_text('kind = "regex"\npattern = "x"\n', "utf-8")
    assert tiny.tiltune("score", str(constraint), str(rows)) == 0
    out, err = capsys.readouterr()
    assert f"warning: constraint: {told}" in err and out.count("\n") == 1


def test_check_runs_where_no_row_satisfies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    replaced(monkeypatch, somewhere("q"))
    toml = regex_run(tmp_path, data={"violating": "drop"})
    assert tiny.tiltune("fit", str(toml)) == 2
    assert "none of its" in capsys.readouterr().err
    assert tiny.tiltune("check", str(toml)) == 2
    said = capsys.readouterr().err
    assert "warning: no row of the corpus satisfies" in said
    assert "none of 256 samples satisfy" in said and "estimated minutes" not in said
