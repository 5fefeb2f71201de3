"""The tables of all rounds: every number of a record, with its unit in the header."""

from collections.abc import Sequence
from dataclasses import dataclass

from tiltune.records.report.curves import interval_of
from tiltune.records.report.formats import estimate, plain
from tiltune.records.report.text_table import TextTable
from tiltune.records.rounds import RoundRecord


@dataclass(frozen=True)
class RoundColumn:
    """A field of `RoundRecord`, its header with the unit, and its decimals."""

    key: str
    header: str
    digits: int = 3


GROUPS: tuple[tuple[str, tuple[RoundColumn, ...]], ...] = (
    (
        "Fresh samples of this policy version",
        (
            RoundColumn("policy_version", "policy version", 0),
            RoundColumn("samples", "samples", 0),
            RoundColumn("samples_drawn", "drawn to train on", 0),
            RoundColumn("satisfaction_rate", "satisfaction rate"),
            RoundColumn("score_mean", "mean score"),
            RoundColumn("completion_tokens_mean", "length, tokens a completion", 2),
            RoundColumn("clipped_share", "cut at the limit, share"),
            RoundColumn("distinct_share", "distinct, share"),
            RoundColumn("empty_share", "empty, share"),
            RoundColumn("turns_mean", "answers a completion", 2),
            RoundColumn("repeated_share", "later answers that are the one before, share"),
            RoundColumn("unparsed_share", "answers told that they do not parse, share"),
        ),
    ),
    (
        "Distance to the reference, and validation text",
        (
            RoundColumn(
                "kl_policy_reference_nats_per_completion",
                "KL(policy ‖ reference), nats a completion",
            ),
            RoundColumn("kl_policy_reference_nats_per_token", "the same, nats a token", 4),
            RoundColumn("validation_satisfying_nats_per_token", "satisfying rows, nats a token"),
            RoundColumn("validation_violating_nats_per_token", "violating rows, nats a token"),
        ),
    ),
    (
        "Warm start of the value model, on windows of text",
        (
            RoundColumn("warm_windows", "windows", 0),
            RoundColumn("warm_rate", "satisfy, share"),
            RoundColumn("warm_shift_logits", "shift to the own completions' rate, logits"),
            RoundColumn("warm_brier_skill", "Brier skill on own completions, before their fit"),
            RoundColumn("warm_cached", "taken from the cache (1)", 0),
            RoundColumn("warm_seconds", "when it was made, s", 1),
        ),
    ),
    (
        "Value model",
        (
            RoundColumn("value_loss_nats_per_token", "value loss, nats a token", 4),
            RoundColumn("consistency_loss_nats_per_token", "consistency loss, nats a token", 4),
            RoundColumn("value_steps_kept", "value steps kept", 0),
            RoundColumn("brier_score", "Brier score", 4),
            RoundColumn("brier_score_constant", "Brier score of a constant", 4),
            RoundColumn("brier_skill", "Brier skill"),
            RoundColumn("calibration_error", "calibration error"),
        ),
    ),
    (
        "Policy update",
        (
            RoundColumn("beta", "β"),
            RoundColumn("corpus_gradient_norm", "corpus term's gradient, norm", 4),
            RoundColumn("samples_gradient_norm", "samples' term's gradient at β = 1, norm", 4),
            RoundColumn("corpus_loss_nats_per_token", "corpus loss, nats a token"),
            RoundColumn("corpus_passes", "passes over the corpus so far", 2),
            RoundColumn("kl_target_policy_nats_per_token", "KL(target ‖ policy), nats a token", 4),
            RoundColumn("effective_sample_size_share", "effective sample size, share"),
            RoundColumn("weight_clipped_share", "weights clipped, share"),
            RoundColumn("prompts_without_target", "prompts without a target", 0),
            RoundColumn("logprob_gap_nats", "log-probability gap, nats", 5),
            RoundColumn("policy_gradient_loss", "policy-gradient loss, score a token", 4),
            RoundColumn("ratio_clipped_share", "ratios clipped, share"),
            RoundColumn("kl_penalty_nats_per_token", "KL penalty, nats a token", 4),
            RoundColumn("state_value_loss", "state-value loss, squared score a token", 4),
            RoundColumn("soft_policy_loss", "soft policy loss, score a token", 4),
            RoundColumn("soft_value", "soft value of the prompts, score"),
            RoundColumn("elite_loss_nats_per_token", "loss of the elites, nats a token", 4),
            RoundColumn("elite_satisfaction_rate", "elites that satisfy, share"),
            RoundColumn("elite_cost", "cost of the elites"),
            RoundColumn("fallback_share", "groups with too few feasible, share"),
            RoundColumn("member_disagreement", "disagreement of the values' members"),
            RoundColumn("flow_loss", "flow loss, squared nats a token", 4),
            RoundColumn("log_z_nats", "log Z, nats"),
            RoundColumn("log_ratio_variance", "variance of log(C p/π), squared nats", 4),
            RoundColumn("floor_share", "of the target by the floor alone, share", 4),
            RoundColumn("replayed_share", "replayed, share"),
            RoundColumn("shaping_start_potential", "shaping, 2Φ - 1 at the start"),
        ),
    ),
    (
        "Target of the bounds on shares",
        (
            RoundColumn(
                "kl_target_reference_nats_per_completion",
                "KL(target ‖ reference), nats a completion",
            ),
            RoundColumn(
                "kl_least_nats_per_completion", "least that meets the bounds, nats a completion"
            ),
            RoundColumn("target_effective_sample_share", "completions that carry it, share"),
        ),
    ),
    (
        "Time and tokens",
        (
            RoundColumn("sampling_seconds", "sampling, s", 1),
            RoundColumn("scoring_seconds", "scoring, s", 1),
            RoundColumn("value_seconds", "value model, s", 1),
            RoundColumn("learning_seconds", "learning, s", 1),
            RoundColumn("measuring_seconds", "measuring, s", 1),
            RoundColumn("waiting_for_actor_seconds", "waiting for the actor, s", 1),
            RoundColumn("sampled_tokens", "sampled, tokens", 0),
            RoundColumn("value_tokens", "value model, tokens", 0),
            RoundColumn("learner_tokens", "learner, tokens", 0),
        ),
    ),
    (
        "Balance of both learning rates",
        (
            RoundColumn("kappa", "κ, policy's step over the values', mean"),
            RoundColumn("policy_rate", "policy's rate at the end, peak", 7),
            RoundColumn("values_rate", "values' rate of this fit, peak", 7),
            RoundColumn("values_rate_next", "values' rate of the next fit", 7),
            RoundColumn("policy_step_nats", "policy's step moves q, nats a prefix", 8),
            RoundColumn("values_step_nats", "values' step moves q, nats a prefix", 8),
            RoundColumn("coordinating_passes", "forward passes of the probe", 0),
            RoundColumn("coordinating_seconds", "for these, s", 2),
        ),
    ),
)


def round_tables(records: Sequence[RoundRecord]) -> list[TextTable]:
    """A table a group of columns; none where nothing of the group was measured."""
    if not records:
        return []
    own = list(dict.fromkeys(name for record in records for name in record.method_numbers))
    numbers = [[record.method_numbers.get(name) for name in own] for record in records]
    told = TextTable(
        ["round", *own],
        [
            [_name(record), *(estimate(value, None, 4) for value in row)]
            for record, row in zip(records, numbers, strict=True)
        ],
        "The method's own numbers",
    )
    fixed = [
        TextTable(
            ["round", *(column.header for column in columns)],
            [[_name(record), *(_cell(record, column) for column in columns)] for record in records],
            caption,
        )
        for caption, columns in GROUPS
    ]
    tables = (*fixed, *_shares(records), *[told] * bool(own))
    return [table for table in tables if len(table.measured.columns) > 1]


def _shares(records: Sequence[RoundRecord]) -> list[TextTable]:
    """Of each bound of a population."""
    return [
        TextTable(
            ["round", "share of samples", "of the target", "multiplier, nats"],
            [
                [
                    _name(record),
                    estimate(each.share, each.interval, 3),
                    estimate(each.target, None, 3),
                    estimate(each.multiplier_nats, None, 3),
                ]
                for record in records
                for each in record.shares[place : place + 1]
            ],
            f"Share, to be {bound.low:g} to {bound.high:g}: {bound.of}",
        )
        for place, bound in enumerate(records[0].shares)
    ]


def _name(record: RoundRecord) -> str:
    return f"{plain(record.round)} (closing)" if record.closing else plain(record.round)


def _cell(record: RoundRecord, column: RoundColumn) -> str:
    return estimate(getattr(record, column.key), interval_of(record, column.key), column.digits)
