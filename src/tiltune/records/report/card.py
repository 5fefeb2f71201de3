"""`model/README.md`: what the tuned model is, for whoever gets it, as the Hub reads it.

Names of files and numbers of rows stand in it, never where on a machine they lay, nor anything of
a corpus or a completion.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, cast

from tiltune.config.in_words import code, in_words
from tiltune.errors import RunError, counted
from tiltune.records.base_model import LICENSE
from tiltune.records.files import write_atomically
from tiltune.records.measurements import Evaluation, find_measurement, named, read_evaluation
from tiltune.records.report.folder import EVALUATION_OF_BASE, RunFolder
from tiltune.records.report.formats import MISSING, bounds, estimate, number
from tiltune.records.rounds import RoundRecord

CARD = "README.md"
LONGEST_NAME = 80

_KNOWN_LICENSE = re.compile(r"[a-z0-9][a-z0-9.\-+]*")
_RATES = (
    ("satisfaction rate", "satisfaction_rate", "satisfaction_rate_interval"),
    ("completions judged", "samples", ""),
    ("tokens a completion", "completion_tokens_mean", ""),
    (
        "KL(model ‖ base), nats a completion",
        "kl_policy_reference_nats_per_completion",
        "kl_policy_reference_nats_per_completion_interval",
    ),
    (
        "validation text that satisfies, nats a token",
        "validation_satisfying_nats_per_token",
        "validation_satisfying_interval",
    ),
)


def write_card(run: RunFolder) -> Path | None:
    """Remake the card beside the model; None where no version is said to be there.

    Raises:
        RunError: it cannot be written, or an evaluation that it tells of is damaged.
    """
    path = run.path / "model" / CARD
    if run.version is None or not path.parent.is_dir():
        return None
    try:
        write_atomically(path, card(run))
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror}; make room") from error
    return path


def card(run: RunFolder) -> str:
    """The card's Markdown, its metadata first."""
    parts = (
        _metadata(run),
        f"# {_name(run)}\n\n{_summary(run)}",
        f"## Tuned from and on\n\n{_origin(run)}",
        f"## Constraint\n\nA text meets it if {in_words(run.config.get('constraint') or {})}.",
        f"## How often it holds\n\n{_rates(run)}",
        _measured(run),
        f"## How to load it\n\n{_use(run)}",
        f"## Limits\n\n{_limits(run)}",
        f"## How it was made\n\n{_made(run)}",
    )
    text = "\n\n".join(filter(None, parts)) + "\n"
    return text.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate cannot be written


def place(run: RunFolder) -> str:
    """Where the card says that the model lies: as `run.dir` is given, if that is no absolute path,
    else in a folder of the run's name."""
    given = PurePath(str(run.setting("run", "dir") or run.path.name))
    return str((PurePath(given.name) if given.is_absolute() else given) / "model")


def _metadata(run: RunFolder) -> str:
    base = _base(run)
    lines = ["library_name: transformers", "pipeline_tag: text-generation"]
    if "hub_id" in base:
        lines += [f"base_model: {json.dumps(base['hub_id'])}", "base_model_relation: finetune"]
    if _KNOWN_LICENSE.fullmatch(base.get("license", "")):
        lines += [f"{key}: {json.dumps(base[key])}" for key in LICENSE if key in base]
    tags = ["tiltune", "constrained-generation", str(run.setting("method", "kind") or "")]
    tags += ["lora"] if _adapted(run) else []
    lines += ["tags:", *(f"- {json.dumps(tag)}" for tag in tags if tag)]
    return "\n".join(["---", *lines, "---"])


def _base(run: RunFolder) -> dict[str, str]:
    return run.manifest.get("base") or {}


def _base_name(run: RunFolder) -> str:
    return _base(run).get("hub_id") or _bare(str(run.setting("model", "path")))


def _name(run: RunFolder) -> str:
    name = PurePath(place(run)).parent.name or run.path.resolve().name
    return re.sub(r"[^\w .+-]", "_", name)[:LONGEST_NAME]


def _summary(run: RunFolder) -> str:
    return (
        f"{code(_base_name(run))}, tuned by Tiltune so that what it writes meets a constraint, "
        f"by the method {code(str(run.setting('method', 'kind')))}."
    )


def _origin(run: RunFolder) -> str:
    counts, rows = run.manifest.get("corpus") or {}, run.manifest.get("rows") or {}
    known = "hub_id" in _base(run)
    lines = [f"base model: {code(_base_name(run))}" + ("" if known else ", a local model")]
    corpus = run.setting("data", "corpus")
    if corpus:
        told = f"corpus: {_file(corpus)}, {counted(counts.get('rows', 0), 'row')} trained on"
        if counts.get("violating"):
            told += (
                f"; {counts['violating']} of the rows violated the constraint, of which "
                f"{counts.get('dropped', 0)} were left out"
            )
        lines.append(told)
    else:
        lines.append("corpus: none; it was trained on completions of its own alone")
    for key, noun in (("prompts", "prompts"), ("valid", "validation")):
        given = run.setting("data", key)
        if given or rows.get(key):
            source = _file(given) if given else ("from the corpus" if corpus else "none given")
            count = f", {counted(rows[key], 'row')}" if key in rows else ""
            lines.append(f"{noun}: {source}{count}")
    if run.setting("value_model", "warm_text"):
        lines.append(
            f"further text for the values: {_file(run.setting('value_model', 'warm_text'))}"
        )
    return _listed(lines)


def _file(path: Any) -> str:
    return code(PurePath(str(path)).name)


def exported(run: RunFolder) -> tuple[RoundRecord | None, RoundRecord | None]:
    """The records of the base model and of the version in `model/`."""
    measured = [row for row in run.records if row.satisfaction_rate is not None]
    base = next((row for row in measured if row.policy_version == 0), None)
    tuned = next((row for row in reversed(measured) if row.policy_version == run.version), None)
    return base, tuned


def _rates(run: RunFolder) -> str:
    before, after = exported(run)
    rows = [
        [title, *(_shown(each, field, interval) for each in (before, after))]
        for title, field, interval in _RATES
        if any(each is not None and getattr(each, field) is not None for each in (before, after))
    ]
    if not rows:
        return "Not measured."
    tokens = run.setting("sampler", "max_new_tokens")
    note = (
        "Intervals are at 95 %. Fresh completions of the run's prompts at temperature 1, "
        f"{f'at most {tokens} tokens each, ' if tokens else ''}judged by the constraint that the "
        "model was trained with."
    )
    return f"{_table(['', 'base model', 'this model'], rows)}\n\n{note}"


def _shown(record: RoundRecord | None, field: str, interval: str) -> str:
    if record is None:
        return MISSING
    value = getattr(record, field)
    if isinstance(value, int):
        return number(value, 0)
    return estimate(value, getattr(record, interval) if interval else None)


def _measured(run: RunFolder) -> str:
    """The evaluation, beside the base model's where that was asked the same."""
    if run.evaluation is None:
        return ""
    base = _evaluation_of_base(run)
    rows = [
        [
            code(named(each)),
            *([_value(find_measurement(base.measurements, named(each)))] if base else []),
            _value(each),
            each.unit,
            str(each.count),
        ]
        for each in run.evaluation.measurements
    ]
    head = ["measurement", *(["base model"] if base else []), "this model", "unit", "rests on"]
    told = "By `tiltune evaluate`, on prompts and texts of their own; intervals are at 95 %."
    return f"## Measurements\n\n{told}\n\n{_table(head, rows)}"


def _evaluation_of_base(run: RunFolder) -> Evaluation | None:
    path = run.path / EVALUATION_OF_BASE / "evaluation.json"
    base = read_evaluation(path) if path.exists() else None
    same = base is not None and run.evaluation is not None and base.asks_as(run.evaluation)
    return base if same else None


def _value(measurement: Any) -> str:
    if measurement is None or measurement.value is None:
        return MISSING
    shown = f"{measurement.value:.4g}"
    return shown if measurement.interval is None else f"{shown} {bounds(measurement.interval)}"


def _adapted(run: RunFolder) -> bool:
    return run.setting("model", "adapter") == "lora"


def _use(run: RunFolder) -> str:
    at, chat = json.dumps(place(run)), run.manifest.get("chat") is True
    ask = (
        'turns = [{"role": "user", "content": "Hello!"}]\n'
        "ids = tokenizer.apply_chat_template(\n"
        '    turns, add_generation_prompt=True, return_dict=True, return_tensors="pt"\n'
        ").input_ids"
        if chat
        else 'ids = tokenizer("The", return_tensors="pt").input_ids'
    )
    whole = f"""```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({at})
model = AutoModelForCausalLM.from_pretrained({at})
{ask}
# as it was measured: the whole distribution, neither sharpened nor cut
drawn = model.generate(
    ids,
    do_sample=True,
    temperature=1.0,
    top_p=1.0,
    top_k=0,
    max_new_tokens={run.setting("sampler", "max_new_tokens") or 24},
)
print(tokenizer.decode(drawn[0, ids.shape[1] :], skip_special_tokens=True))
```"""
    if not _adapted(run):
        return f"Full weights:\n\n{whole}"
    base = json.dumps(_base(run).get("hub_id") or _bare(str(run.setting("model", "path"))))
    apart = f"""```python
from peft import PeftModel
from transformers import AutoModelForCausalLM

base = AutoModelForCausalLM.from_pretrained({base})
model = PeftModel.from_pretrained(base, {at}, subfolder="adapter")
```"""
    return (
        f"The LoRA adapter is merged into the weights:\n\n{whole}\n\n"
        f"Or the adapter alone, on the base model:\n\n{apart}"
    )


def _limits(run: RunFolder) -> str:
    _, after = exported(run)
    rounds = sum(not row.closing for row in run.records)
    lines = [
        "The constraint holds as often as the table says, not always: what must never pass has to "
        "be checked when it is written.",
        "The rate was measured by the constraint that trained the model. Whether the model does "
        "what the constraint is meant for is another question, for another judge.",
        "It holds for prompts, lengths and sampling like those it was measured with; others may "
        "give another rate.",
        "What the base model may say wrongly or unfairly, this one may say too; its license and "
        "terms hold as well.",
    ]
    if after is not None and rounds > 1:
        lines.insert(
            2,
            f"It is the version after round {after.policy_version} of {rounds}, chosen by numbers "
            "like these, so that they may flatter it a little.",
        )
    if not any(key in _base(run) for key in LICENSE):
        lines.append("The base model's license is not known to who made this card; look it up.")
    return _listed(lines)


def _made(run: RunFolder) -> str:
    versions = run.manifest.get("versions") or {}
    programs = ", ".join(f"{name} {version}" for name, version in versions.items())
    shown = {
        section: value
        for section, value in run.config.items()
        if section not in ("constraint", "track") and isinstance(value, Mapping)
    }
    settings = [
        f"{key} = {json.dumps(_bare(value), ensure_ascii=False)}"
        for key, value in _flat(shown)
        if value is not None and key not in ("run.dir", "run.overwrite")
    ]
    fence = "```"
    return (
        f"`tiltune fit run.toml`, where run.toml states the constraint above and\n\n{fence}toml\n"
        + "\n".join(line.replace("```", "'''") for line in settings)
        + f"\n{fence}\n\nVersions: {programs or MISSING}."
    )


def _flat(tree: Mapping[str, Any], before: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(cast(Mapping[str, Any], value), f"{before}{key}.")
        else:
            yield f"{before}{key}", value


def _bare(value: Any) -> Any:
    """An absolute path by its name alone; anything else as it is."""
    if isinstance(value, list):
        return [_bare(each) for each in cast(list[Any], value)]
    if isinstance(value, str) and (PurePath(value).is_absolute() or value.startswith("~")):
        return PurePath(value).name
    return value


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    )


def _listed(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
