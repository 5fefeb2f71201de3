"""The tables of all rounds: every number of a record, with its unit in the header."""

from collections.abc import Sequence
from dataclasses import dataclass

from tiltune.records.report.curves import interval_of
from tiltune.records.report.markup import estimate, plain, table
from tiltune.records.rounds import RoundRecord


@dataclass(frozen=True)
class Column:
    """A field of `RoundRecord`, its header with the unit, and its decimals."""

    key: str
    header: str
    digits: int = 3


GROUPS: tuple[tuple[str, tuple[Column, ...]], ...] = (
    (
        "Fresh samples of this policy version",
        (
            Column("policy_version", "policy version", 0),
            Column("samples", "samples", 0),
            Column("samples_drawn", "drawn to train on", 0),
            Column("satisfaction_rate", "satisfaction rate"),
            Column("score_mean", "mean score"),
            Column("completion_tokens_mean", "length, tokens a completion", 2),
            Column("clipped_share", "cut at the limit, share"),
            Column("distinct_share", "distinct, share"),
            Column("empty_share", "empty, share"),
        ),
    ),
    (
        "Distance to the reference, and validation text",
        (
            Column(
                "kl_policy_reference_nats_per_completion",
                "KL(policy ‖ reference), nats a completion",
            ),
            Column("kl_policy_reference_nats_per_token", "the same, nats a token", 4),
            Column("validation_satisfying_nats_per_token", "satisfying rows, nats a token"),
            Column("validation_violating_nats_per_token", "violating rows, nats a token"),
        ),
    ),
    (
        "Value model",
        (
            Column("value_loss_nats_per_token", "value loss, nats a token", 4),
            Column("consistency_loss_nats_per_token", "consistency loss, nats a token", 4),
            Column("value_steps_kept", "value steps kept", 0),
            Column("brier_score", "Brier score", 4),
            Column("brier_score_constant", "Brier score of a constant", 4),
            Column("calibration_error", "calibration error"),
        ),
    ),
    (
        "Policy update",
        (
            Column("beta", "β"),
            Column("corpus_loss_nats_per_token", "corpus loss, nats a token"),
            Column("kl_target_policy_nats_per_token", "KL(target ‖ policy), nats a token", 4),
            Column("effective_sample_size_share", "effective sample size, share"),
            Column("weight_clipped_share", "weights clipped, share"),
            Column("prompts_without_target", "prompts without a target", 0),
            Column("logprob_gap_nats", "log-probability gap, nats", 5),
            Column("policy_gradient_loss", "policy-gradient loss, score a token", 4),
            Column("ratio_clipped_share", "ratios clipped, share"),
            Column("kl_penalty_nats_per_token", "KL penalty, nats a token", 4),
            Column("state_value_loss", "state-value loss, squared score a token", 4),
        ),
    ),
    (
        "Time and tokens",
        (
            Column("sampling_seconds", "sampling, s", 1),
            Column("scoring_seconds", "scoring, s", 1),
            Column("value_seconds", "value model, s", 1),
            Column("learning_seconds", "learning, s", 1),
            Column("measuring_seconds", "measuring, s", 1),
            Column("waiting_for_actor_seconds", "waiting for the actor, s", 1),
            Column("sampled_tokens", "sampled, tokens", 0),
            Column("value_tokens", "value model, tokens", 0),
            Column("learner_tokens", "learner, tokens", 0),
        ),
    ),
)


def round_tables(records: Sequence[RoundRecord]) -> str:
    """A table a group of columns; empty without records."""
    if not records:
        return ""
    return "".join(
        table(
            ["round", *(column.header for column in columns)],
            [[_name(record), *(_cell(record, column) for column in columns)] for record in records],
            caption=caption,
        )
        for caption, columns in GROUPS
    )


def _name(record: RoundRecord) -> str:
    return f"{plain(record.round)} (closing)" if record.closing else plain(record.round)


def _cell(record: RoundRecord, column: Column) -> str:
    return estimate(getattr(record, column.key), interval_of(record, column.key), column.digits)
