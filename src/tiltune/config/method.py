"""`[method]`: how the policy is trained; one table a kind, with the defaults of that kind."""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, cast, get_args

from pydantic import Discriminator, Field, Tag, ValidationInfo, model_validator

from tiltune.config.parse import Section, module_files

FORMER = {"former": True}
"""Context of validating a run's `config.json`: once all kinds had one table, so that those of ppo
and sft hold tilt's `prefix_weight_clip`, too."""


class MethodSection(Section):
    """What every kind reads."""

    constrained: ClassVar[bool] = True
    """Whether the model is trained to satisfy the constraint, so that its scorer says little."""

    schedule: Literal["fixed", "sequential", "parallel"] = Field(
        default="sequential", description="When targets are renewed."
    )
    rounds: int = Field(
        default=3, ge=1, description="Rounds of sampling, value learning and training."
    )
    beta: float | None = Field(
        default=2.0,
        ge=0,
        description="Weight of KL(target || policy), per nat a token; of the policy-gradient loss, "
        "per score a token.",
    )
    beta_min: float = Field(
        default=0.05, gt=0, description="Lower bound of an adapted or chosen beta."
    )
    beta_max: float = Field(
        default=50.0, gt=0, description="Upper bound of an adapted or chosen beta."
    )
    target_rate: float | None = Field(
        default=None, gt=0, le=1, description="Satisfaction rate to reach; none: no target."
    )
    kl_max_nats: float | None = Field(
        default=None,
        gt=0,
        description="Stop when KL(policy || reference) passes this, nats a completion.",
    )
    anchor: Literal["snapshot", "reference"] = Field(
        default="snapshot", description="Which law the values and target tilt."
    )
    samples_max: int | None = Field(
        default=None,
        ge=1,
        description="Stop after the round in which this many completions have been drawn to train "
        "on.",
    )
    seconds_max: float | None = Field(
        default=None,
        gt=0,
        description="Stop after the round in which sampling, scoring, value learning and policy "
        "updates have taken this long together, seconds.",
    )

    coordinate: bool = Field(
        default=False,
        description="Move the policy's and the values' learning rates, each by a factor of 10 at "
        "most, until a step of either moves the guided distribution as far.",
    )

    def files(self) -> list[Path]:
        """Files of the user's that say how it trains."""
        return []

    @model_validator(mode="before")
    @classmethod
    def _of_this_kind(cls, stated: Any, info: ValidationInfo) -> Any:
        """Say which kinds read a setting that this one does not; None states nothing.

        Nor does any of them in a run's `config.json`, see `FORMER`.
        """
        if not isinstance(stated, dict):
            return stated
        kept = dict(cast(dict[str, Any], stated))
        for name in [name for name in kept if name not in cls.model_fields]:
            readers = [kind for kind, table in TABLES.items() if name in table.model_fields]
            if readers and kept.pop(name) is not None and info.context != FORMER:
                kind = kept.get("kind", "tilt")
                raise ValueError(
                    f"method.{name} is read by method.kind = {', '.join(map(repr, readers))} "
                    f"only, not by '{kind}'; leave it out"
                )
        return kept


class TargetSection(MethodSection):
    """What kinds read that train on a target in closed form at every prefix."""

    beta: float | None = Field(
        default=None,
        ge=0,
        description="Weight of KL(target || policy), per nat a token; none: chosen at the first "
        "update so that both terms' gradients are of one size, 2 or more; 2 without a corpus.",
    )
    prefix_weight_clip: float = Field(
        default=10.0, gt=0, description="Upper bound of a prefix weight."
    )


class TiltSection(TargetSection):
    """The target of the snapshot's values."""

    kind: Literal["tilt"] = "tilt"


class MovingTargetsSection(TargetSection):
    """The nearest law to the reference that meets bounds on shares of all completions."""

    kind: Literal["moving-targets"] = "moving-targets"
    rounds: int = Field(
        default=6, ge=1, description="Rounds of sampling, value learning and training."
    )
    anchor: Literal["snapshot", "reference"] = Field(
        default="reference", description="Which law the values and target tilt."
    )


class SftSection(MethodSection):
    """The corpus alone."""

    constrained: ClassVar[bool] = False

    kind: Literal["sft"] = "sft"


class FilterSection(MethodSection):
    """The likelihood of completions that satisfy."""

    kind: Literal["filter"] = "filter"


class GradientSection(MethodSection):
    """What policy gradients read: many small rounds, since they train on present samples only."""

    rounds: int = Field(
        default=64, ge=1, description="Rounds of sampling, value learning and training."
    )
    kl_weight: float = Field(
        default=0.3,
        ge=0,
        description="Weight of KL(policy || reference), score a nat; a completion scores 2C - 1.",
    )
    ratio_clip: float = Field(
        default=0.2,
        gt=0,
        description="How far a token's probability ratio (ppo: or a state's value) may move in a "
        "round.",
    )
    passes: int = Field(
        default=4,
        ge=1,
        description="Passes over a round's samples; sets learner.steps_per_round unless that is "
        "stated.",
    )


class PpoSection(GradientSection):
    """Clipped policy gradients with a state value."""

    kind: Literal["ppo"] = "ppo"
    decay: float = Field(
        default=0.95, ge=0, le=1, description="Lambda of the generalised advantages."
    )
    shaping: Literal["automaton"] | None = Field(
        default=None,
        description="automaton: each token gains by how much it brings the constraint's automaton "
        "nearer to what satisfies, counted from the rounds before. None: the end alone scores.",
    )


class GrpoSection(GradientSection):
    """Clipped policy gradients against the other completions of a prompt."""

    kind: Literal["grpo"] = "grpo"
    group_size: int = Field(default=8, ge=1, description="Completions of each prompt in a round.")


class RlefSection(GradientSection):
    """Policy gradients over several turns, with the constraint's feedback between them."""

    kind: Literal["rlef"] = "rlef"
    kl_weight: float = Field(
        default=0.05,
        ge=0,
        description="Weight of a turn's mean log-ratio to the reference, score a nat; the last "
        "answer scores 2C - 1.",
    )
    turns: int = Field(
        default=3,
        ge=1,
        description="Answers of a prompt at most; the constraint says between them what is wrong.",
    )
    feedback_tokens: int = Field(
        default=128,
        ge=1,
        description="Tokens between two answers at most, a chat template's marks among them; a "
        "longer feedback is cut.",
    )
    unparsed_penalty: float = Field(
        default=0.2,
        ge=0,
        description="Score that an answer loses which is not the last one and does not parse.",
    )


class EtpoSection(MethodSection):
    """Soft Q-learning token by token, with Q read from the reference's values."""

    kind: Literal["etpo"] = "etpo"
    kl_weight: float = Field(
        default=0.3,
        gt=0,
        description="Weight of KL(policy ‖ reference), score a nat; a completion scores 2C - 1.",
    )
    prefix_weight_clip: float = Field(
        default=10.0, gt=0, description="Upper bound of a prefix weight."
    )


class GfnSection(MethodSection):
    """Flow matching: the policy's probability of a completion is that of the reference times C."""

    kind: Literal["gfn"] = "gfn"
    rounds: int = Field(
        default=64, ge=1, description="Rounds of sampling, value learning and training."
    )
    objective: Literal["tb", "vargrad", "subtb", "db"] = Field(
        default="tb",
        description="What is squared. tb: a whole completion's imbalance, with a trained log Z; "
        "vargrad: the same, with log Z from the other completions of the prompt; subtb: that of "
        "every stretch of it, which asks the constraint at every prefix; db: that of every token, "
        "with a trained log R of every prefix.",
    )
    floor: float = Field(
        default=1e-4,
        gt=0,
        lt=1,
        description="Least score: the target is reference times max(C, floor), and each nat of "
        "log floor makes the losses of what violates larger. Well below the rate at which the "
        "reference satisfies.",
    )
    replay: float = Field(
        default=0.25,
        ge=0,
        le=0.9,
        description="Share of the completions trained on that are kept of earlier rounds: those "
        "that satisfy, by their probability under the reference times C.",
    )
    tempered: float = Field(
        default=0.25,
        ge=0,
        le=0.9,
        description="Share of the completions of a round that the policy draws at other "
        "temperatures; they are trained on, and not measured.",
    )
    temperature_min: float = Field(
        default=0.5, gt=0, description="Least temperature of such a batch."
    )
    temperature_max: float = Field(
        default=2.0, gt=0, description="Greatest temperature of such a batch."
    )
    group_size: int | None = Field(
        default=None,
        ge=1,
        description="Completions of each prompt in a round; none: 8 for vargrad, which compares "
        "them, else 1.",
    )
    passes: int = Field(
        default=4,
        ge=1,
        description="Passes over a round's samples; sets learner.steps_per_round unless that is "
        "stated.",
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.temperature_min > self.temperature_max:
            raise ValueError(
                f"method.temperature_min = {self.temperature_min:g} is above "
                f"method.temperature_max = {self.temperature_max:g}"
            )
        return self


class RceSection(MethodSection):
    """Robust cross-entropy: the likelihood of each group's best by the worst of several values."""

    kind: Literal["rce"] = "rce"
    cost_max: float = Field(
        default=0.5,
        ge=0,
        description="The constraint's level: what a feasible completion costs at most. Its cost "
        "is the chance of violating that the worst member of the values sees in it, plus discount "
        "times that of the text a token before its end, and so on.",
    )
    discount: float = Field(
        default=0.4,
        ge=0,
        lt=1,
        description="Of the cost, a token further from the end; 0: the whole completion's alone.",
    )
    group_size: int = Field(
        default=8, ge=2, description="Completions of a prompt that are compared."
    )
    elites: int = Field(
        default=2,
        ge=1,
        description="Of each group, trained on: the likeliest under the reference that are "
        "feasible, or where these are fewer those that cost least.",
    )
    smoothing: float = Field(
        default=0.1, ge=0, le=0.5, description="Weight of the last round's elites in a step."
    )


class PythonMethodSection(MethodSection):
    """A method of the user's own."""

    kind: Literal["python"] = "python"
    path: str = Field(
        description="'module:attribute' of a `Method`, or of what makes one from `settings`."
    )
    settings: dict[str, Any] = Field(
        default={}, description="Keyword arguments for what makes the method."
    )

    def files(self) -> list[Path]:
        """The module's own file."""
        return module_files(self.path)


TABLES: dict[str, type[MethodSection]] = {
    get_args(table.model_fields["kind"].annotation)[0]: table
    for table in (
        *(TiltSection, SftSection, FilterSection),
        *(PpoSection, GrpoSection, GfnSection, EtpoSection, RceSection, MovingTargetsSection),
        *(RlefSection, PythonMethodSection),
    )
}
"""The table of each kind."""


def _kind(stated: Any) -> Any:
    """The kind of a table or a section; tilt where none is stated."""
    if isinstance(stated, dict):
        return cast(dict[str, Any], stated).get("kind", "tilt")
    return getattr(stated, "kind", "tilt")


MethodConfig = Annotated[
    Annotated[TiltSection, Tag("tilt")]
    | Annotated[SftSection, Tag("sft")]
    | Annotated[FilterSection, Tag("filter")]
    | Annotated[PpoSection, Tag("ppo")]
    | Annotated[GrpoSection, Tag("grpo")]
    | Annotated[GfnSection, Tag("gfn")]
    | Annotated[EtpoSection, Tag("etpo")]
    | Annotated[RceSection, Tag("rce")]
    | Annotated[MovingTargetsSection, Tag("moving-targets")]
    | Annotated[RlefSection, Tag("rlef")]
    | Annotated[PythonMethodSection, Tag("python")],
    Discriminator(_kind),
]
"""Any of them."""
