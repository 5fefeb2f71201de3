"""What in a run's numbers should worry its owner: what was seen, why it matters, what to change.

An alarm reads the last record beside the first; a number that was not measured raises none.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tiltune.records.intervals import Interval
from tiltune.records.rounds import RoundRecord

# Each limit is a place where a look at the samples pays, not a test of significance.
LENGTH_KEPT = 0.7
"""Saying less is the cheapest way to break no rule; a third less is more than a change of style."""
DISTINCT_KEPT = 0.7
"""Fewer distinct completions at a higher rate is collapse onto a few safe answers."""
LIKELIHOOD_LOSS = 0.03
"""Relative rise of validation nats a token; the utility that control may cost."""
CALIBRATION_ERROR = 0.1
"""Mean distance of predicted from observed rate: values a tenth off tilt to another target."""
HELD_OUT_TOKENS = 400
"""Below it the calibration error of a good value model is noise of the order of the limit."""
BRIER_CONSTANT = 0.01
"""Below it nearly every completion has the same label: there is no constant worth beating."""
EFFECTIVE_SHARE = 0.10
"""Below it a round's gradient rests on fewer than one in ten of its prefixes."""
WEIGHTS_CLIPPED = 0.05
"""A clipped weight is a bias; above one in twenty it is no longer a rare correction."""
AT_BOUND = 1e-6
"""Relative; beta goes through a logarithm on its way to a bound."""
FLOOR_SHARE = 0.05
"""Of a target that is the floor's own, not the constraint's; below one in twenty none can tell."""
FALLBACK_SHARE = 0.5
"""Above it most groups are trained on what is least bad, not on what is good."""
DISAGREEMENT = 0.3
"""Above it the worst member's word is noise: it costs three in ten of what is certain."""
ANSWERS_REPEATED = 0.5
"""Above it most later answers are the one that was told to be wrong: feedback is not read."""
COMPLETIONS_CUT = 0.5
"""Above it most completions are judged before their end."""
DISTINCT_SHARE = 0.3
"""Below it a completion is drawn more than three times over, on the average."""
EMPTY_SHARE = 0.1
"""Silence meets every constraint that forbids; above one in ten it shows in the rate."""

VALIDATION = "validation text that meets the constraint"


def find_alarms(
    records: Sequence[RoundRecord], *, beta_bounds: tuple[float, float] | None = None
) -> tuple[str, ...]:
    """The alarms of the last record.

    Args:
        records: oldest first, the one to be judged last; the first is the base model's.
        beta_bounds: within which beta is chosen or steered; None: it is stated and stays.

    Returns:
        Messages, the gravest kind first; none for no records.
    """
    if not records:
        return ()
    first, last = records[0], records[-1]
    found: list[str] = []
    found += _shares(last)
    if len(records) == 1:
        found += _one_sided_start(last)
    else:
        found += dearly_bought(_standing(first), _standing(last))
    found += _value_model(last)
    found += _weights(last)
    if len(records) == 1 or records[-2].beta != last.beta:  # said when it comes there
        found += _beta(last, beta_bounds)
    found += _elites(last)
    found += _samples(last, None if len(records) == 1 else first)
    return tuple(found)


def _one_sided_start(first: RoundRecord) -> Iterator[str]:
    """Nothing can be learnt from labels that are all alike; a population has shares instead."""
    if first.shares:
        return
    if first.satisfaction_rate == 0:
        yield (
            f"none of the first {_number(first.samples)} samples meets the constraint: nothing can "
            "be learnt from their labels; check the constraint with `tiltune score`, lower "
            "`constraint.threshold`, or raise `sampler.samples_per_round`"
        )
    if first.satisfaction_rate == 1:
        yield (
            f"all of the first {_number(first.samples)} samples meet the constraint: there is "
            "nothing to control; check the constraint with `tiltune score`, raise "
            "`constraint.threshold`, or give `data.prompts` on which the model fails"
        )


def _shares(last: RoundRecord) -> Iterator[str]:
    """Bounds on shares that the final policy does not meet, and targets that few carry."""
    effective = last.target_effective_sample_share
    if effective is not None and effective < EFFECTIVE_SHARE:
        yield (
            "few of the reference's completions carry the target: their effective number is "
            f"{effective:.1%} of all (limit {EFFECTIVE_SHARE:.0%}), so the values learn from few; "
            "raise `sampler.samples_per_round`, or widen the bounds of the constraint"
        )
    for each in last.shares if last.closing else ():
        if not each.met:
            low, high = each.interval
            yield (
                f"the share of {each.of} is {each.share:.3f} [{low:.3f}, {high:.3f}], which does "
                f"not lie within {each.low:g} to {each.high:g} as a whole: raise `method.rounds` "
                "where it is still on its way, `sampler.samples_per_round` where the interval is "
                "too wide to tell (1,024 completions are measured at most), or widen the bound"
            )


@dataclass(frozen=True)
class Standing:
    """Where a model stands: its satisfaction and what that is weighed against.

    From a run's record or an evaluation.

    Attributes:
        rate, rate_interval: satisfaction rate.
        tokens: mean length of a completion.
        distinct: share of distinct completions.
        losses: nats a token (and interval) of texts that should stay likely, by their name.
    """

    rate: float | None
    rate_interval: Interval | None
    tokens: float | None
    distinct: float | None
    losses: Mapping[str, tuple[float, Interval | None]] = field(
        default_factory=dict[str, tuple[float, Interval | None]]
    )


def rose(before: Interval | None, after: Interval | None) -> bool:
    """Whether the intervals lie apart, the later above; not where either is missing."""
    return before is not None and after is not None and after[0] > before[1]


def dearly_bought(first: Standing, last: Standing) -> Iterator[str]:
    """Satisfaction that rises, beyond both intervals, while what should stay falls."""
    if not rose(first.rate_interval, last.rate_interval):
        return
    rise = f"satisfaction rose from {_rate(first)} to {_rate(last)} while "
    if _fell(first.tokens, last.tokens, LENGTH_KEPT):
        yield (
            f"{rise}the mean length fell from {first.tokens:.1f} to "
            f"{last.tokens:.1f} tokens a completion: the constraint may be met by "
            "saying less; let the constraint judge length too, or set `method.kl_max_nats`"
        )
    if _fell(first.distinct, last.distinct, DISTINCT_KEPT):
        yield (
            f"{rise}the share of distinct completions fell from {first.distinct:.3f} to "
            f"{last.distinct:.3f}: the policy may be collapsing onto a few safe answers; "
            "lower `learner.learning_rate` or `learner.steps_per_round`, or set "
            "`method.kl_max_nats`"
        )
    for text, (old, interval) in first.losses.items():
        new = last.losses[text][0] if text in last.losses else None
        if new is not None and new > _likelihood_limit(old, interval):
            yield (
                f"{rise}{text} went from {old:.3f} to {new:.3f} "
                f"nats a token (+{new / old - 1:.1%}): control is paid with likelihood of the "
                "corpus; lower `method.beta` or `learner.learning_rate`, or give more of "
                "`data.corpus`"
            )


def _standing(record: RoundRecord) -> Standing:
    loss = record.validation_satisfying_nats_per_token
    return Standing(
        rate=record.satisfaction_rate,
        rate_interval=record.satisfaction_rate_interval,
        tokens=record.completion_tokens_mean,
        distinct=record.distinct_share,
        losses={} if loss is None else {VALIDATION: (loss, record.validation_satisfying_interval)},
    )


def _likelihood_limit(loss: float, interval: Interval | None) -> float:
    """Both models read the same rows, so the first's interval bounds a chance difference amply."""
    return max(loss * (1 + LIKELIHOOD_LOSS), interval[1] if interval else 0.0)


def _value_model(last: RoundRecord) -> Iterator[str]:
    tokens = sum(part.count for part in last.calibration)
    if tokens < HELD_OUT_TOKENS:
        return
    advice = "raise `sampler.samples_per_round` or `value_model.steps_per_round`"
    if last.calibration_error is not None and last.calibration_error > CALIBRATION_ERROR:
        yield (
            f"the value model is not calibrated: on {tokens:,} held-out tokens its predictions are "
            f"{last.calibration_error:.3f} away from the observed rates (limit "
            f"{CALIBRATION_ERROR}), so the target is another law than intended; {advice}"
        )
    brier, constant = last.brier_score, last.brier_score_constant
    if brier is None or constant is None or constant < BRIER_CONSTANT:
        return
    copy = ', or choose `value_model.kind = "copy"`' if last.member_disagreement is None else ""
    if brier >= constant:
        yield (
            f"the value model knows no more than a constant: Brier score {brier:.4f} on {tokens:,} "
            f"held-out tokens, the constant's {constant:.4f}, a skill of "
            f"{1 - brier / constant:.3f}; its guidance is noise; {advice}{copy}"
        )
    if last.warm_brier_skill is not None and last.warm_brier_skill < 0:
        yield (
            "the values' warm start misleads: on the model's own completions its Brier skill was "
            f"{last.warm_brier_skill:.3f}, worse than a constant; its text is unlike the model's: "
            "give other `value_model.warm_text`, or set `value_model.warm_start` = 0"
        )


def _weights(last: RoundRecord) -> Iterator[str]:
    effective, clipped = last.effective_sample_size_share, last.weight_clipped_share
    if effective is not None and effective < EFFECTIVE_SHARE:
        yield (
            f"the effective sample size is {effective:.1%} of the prefixes (limit "
            f"{EFFECTIVE_SHARE:.0%}): a few carry the whole update and it is noisy; raise "
            "`sampler.samples_per_round` or lower `method.prefix_weight_clip`"
        )
    if clipped is not None and clipped > WEIGHTS_CLIPPED:
        yield (
            f"{clipped:.1%} of the prefix weights were clipped (limit {WEIGHTS_CLIPPED:.0%}): the "
            "update leans away from its target; raise `method.prefix_weight_clip`, or fit the "
            "values better with `value_model.steps_per_round`"
        )


def _beta(last: RoundRecord, bounds: tuple[float, float] | None) -> Iterator[str]:
    """Held at a bound, beta is not what its rule asks for."""
    if bounds is None or last.beta is None:
        return
    lowest, highest = bounds
    if last.beta >= highest * (1 - AT_BOUND):
        yield (
            f"beta is clipped at its upper bound {highest:g}: the samples' term pulls less than "
            "its rule asks for; raise `method.beta_max`, or look whether the values learn anything"
        )
    elif last.beta <= lowest * (1 + AT_BOUND):
        yield (
            f"beta is clipped at its lower bound {lowest:g}: the samples' term pulls more than its "
            "rule asks for; lower `method.beta_min`, or raise `method.target_rate`"
        )


def _elites(last: RoundRecord) -> Iterator[str]:
    """What is trained on is not what satisfies, or not known to be."""
    fallback, rate = last.fallback_share, last.elite_satisfaction_rate
    if fallback is not None and fallback > FALLBACK_SHARE:
        yield (
            f"{fallback:.1%} of the groups had too few feasible completions (limit "
            f"{FALLBACK_SHARE:.0%}) and were trained on what costs least, which may violate; raise "
            "`method.group_size` or `method.cost_max`, or lower `method.elites`"
        )
    interval = last.satisfaction_rate_interval
    if rate is not None and interval is not None and rate < interval[0]:
        yield (
            f"{rate:.1%} of the elites satisfy, fewer than of all samples "
            f"({interval[0]:.1%} at least): the values choose what violates; lower "
            "`method.cost_max`, raise `value_model.steps_per_round` or `value_model.members`, or "
            'take `method.kind = "filter"`, which goes by the labels'
        )
    spread = last.member_disagreement
    if spread is not None and spread > DISAGREEMENT:
        yield (
            f"the values' members are {spread:.3f} apart about a whole completion (limit "
            f"{DISAGREEMENT}): the worst of them is noise; raise `sampler.samples_per_round` or "
            "`value_model.steps_per_round`"
        )


def _samples(last: RoundRecord, first: RoundRecord | None) -> Iterator[str]:
    """What was so from the start is said in the first record only: training did not bring it."""

    def new(fault: Callable[[RoundRecord], bool]) -> bool:
        return fault(last) and (first is None or not fault(first))

    if new(lambda row: (row.floor_share or 0) > FLOOR_SHARE):
        yield (
            f"{last.floor_share:.1%} of the target violate (limit {FLOOR_SHARE:.0%}): "
            "`method.floor` gives what violates a score that is not small beside the rate at which "
            "the reference satisfies; lower `method.floor` to a hundredth of that rate"
        )
    if new(lambda row: (row.repeated_share or 0) > ANSWERS_REPEATED):
        yield (
            f"{last.repeated_share:.1%} of the later answers are the one before, which was told to "
            f"be wrong (limit {ANSWERS_REPEATED:.0%}): the model does not read the feedback; let "
            "the constraint say what to do in words that the model knows, raise "
            "`method.feedback_tokens` if it is cut, or give more `method.rounds`"
        )
    if new(lambda row: (row.clipped_share or 0) > COMPLETIONS_CUT):
        yield (
            f"{last.clipped_share:.1%} of the completions were cut at the token limit (limit of "
            f"this share {COMPLETIONS_CUT:.0%}): the constraint judges texts before their end; "
            "raise `sampler.max_new_tokens`, unless texts without an end are what you want"
        )
    if new(lambda row: row.distinct_share is not None and row.distinct_share < DISTINCT_SHARE):
        yield (
            f"only {last.distinct_share:.1%} of the completions are distinct (limit "
            f"{DISTINCT_SHARE:.0%}): rates and values rest on few texts; give more varied "
            "`data.prompts`, or lower `learner.learning_rate` if training brought it"
        )
    if new(lambda row: (row.empty_share or 0) > EMPTY_SHARE):
        yield (
            f"{last.empty_share:.1%} of the completions are empty (limit {EMPTY_SHARE:.0%}): "
            "silence meets every constraint that forbids; let the constraint refuse empty text, "
            "or look at `data.prompts`"
        )


def _fell(old: float | None, new: float | None, kept: float) -> bool:
    return old is not None and new is not None and new < kept * old


def _rate(standing: Standing) -> str:
    low, high = standing.rate_interval or (float("nan"), float("nan"))
    rate = "?" if standing.rate is None else f"{standing.rate:.3f}"
    return f"{rate} [{low:.3f}, {high:.3f}]"


def _number(count: int | None) -> str:
    return "" if count is None else f"{count:,}"
