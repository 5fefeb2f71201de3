"""What a method asks of a run, in words, as `tiltune check` says it."""

from tiltune.config import ResolvedConfig
from tiltune.methods.base import Needs

_LAWS = {
    "snapshot": "completions of the policy of each round",
    "reference": "completions of the reference",
    "none": "no completions",
}
_VALUES = {
    "none": "no values",
    "prefix": "values of every next token, fitted each round",
    "state": "a value of every prefix, by a second copy of the policy that trains beside it",
}


def needs_told(needs: Needs, config: ResolvedConfig) -> str:
    """Whose completions, which values, what is asked of the constraint.

    Args:
        needs: the method's.
        config: of the run.
    """
    told = [_LAWS[needs.law], _VALUES[needs.values]]
    if needs.members > 1:
        told.append(f"{config.value_model.members} members of them on one frozen trunk")
    if needs.group_size > 1:
        told.append(f"{needs.group_size} completions of each prompt")
    if needs.tempered:
        low, high = needs.temperatures
        told.append(
            f"{needs.tempered:.0%} of them at temperatures from {low:g} to {high:g}, which are not "
            "measured"
        )
    if needs.prefix_labels:
        most = config.sampler.samples_per_round * config.sampler.max_new_tokens
        told.append(f"a score of every prefix, {most:,} a round at most")
    if needs.population:
        told.append("weights that meet bounds on shares of all completions")
    if needs.turns > 1:
        room = needs.room(config.sampler.max_new_tokens)
        told.append(
            f"up to {needs.turns} answers of a prompt, between which the constraint says what is "
            f"wrong in at most {needs.feedback_tokens} tokens: {room:,} tokens of context after a "
            "prompt"
        )
    if getattr(config.method, "shaping", None) is not None:
        told.append(
            "for method.shaping the states that the constraint's automaton passes, counted after "
            "each round from its completions and from their replay out of every state"
        )
    if config.method.coordinate:
        told.append(
            "for method.coordinate every 10th step of the value fit and of the policy update is "
            "measured: 2 forward passes each over 16 completions, about "
            f"{(config.value_model.steps_per_round + config.learner.steps_per_round) // 5} a round"
        )
    return f"method {config.method.kind} needs: " + "; ".join(told)
