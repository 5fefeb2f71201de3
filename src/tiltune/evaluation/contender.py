"""What can be evaluated or sampled: a model folder, or a run's model, snapshot, values or base."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from tiltune.config import ConstraintConfig, ModelSection, RunConfig, populations
from tiltune.config.decoding import RobustSection, SearchSection
from tiltune.constraints.base import TextConstraint
from tiltune.constraints.build import build_constraint
from tiltune.data.encode import Prompt
from tiltune.data.midst import Midst
from tiltune.data.samples import Samples, SamplingLaw
from tiltune.decoding.draw import Ending, draw
from tiltune.decoding.found import Found
from tiltune.decoding.guided_model import GuidedModel
from tiltune.errors import RunError
from tiltune.evaluation.decoders import SearchDecoder, WayToDecode, way_to_decode
from tiltune.models import hub
from tiltune.models.checkpoint import Saved, read_folder
from tiltune.records.manifest import constraint_digest, digest
from tiltune.records.run_folder import is_run_folder, read_config
from tiltune.values.build import make_automaton, make_values, with_automaton
from tiltune.values.exact_ends import ExactEnds
from tiltune.values.known import KnownValues
from tiltune.values.model import ValueModel

WEIGHTS = (".safetensors", ".json", ".jinja", ".model", ".txt")
"""Files of a model folder that decide what it writes: weights, shape, tokenizer."""


@final
@dataclass(frozen=True)
class Contender:
    """A model with its way of decoding.

    Attributes:
        name: how tables call it.
        loaded: the model and its tokenizer.
        values: guidance; None decodes without.
        best_of: completions drawn for each that is kept.
        chooser: the constraint that chooses among them; None where `best_of` is 1.
        digest: SHA-256 of weights, values and decoding; equal digests write equal texts.
        path: the folder it was opened from.
        trained_by: the constraint that trained it, or chooses; None where that is not known.
        limit: tokens of a completion that its values were learnt for; None without values.
        told: of which model its values are, for the user; None without values.
        decoder: what makes completions, where that is not drawing token by token.
    """

    name: str
    loaded: hub.Loaded
    values: ValueModel | None
    best_of: int
    chooser: TextConstraint | None
    digest: str
    path: str
    trained_by: ConstraintConfig | None
    limit: int | None = None
    told: str | None = None
    decoder: WayToDecode | None = None

    @property
    def lawless(self) -> str:
        """What its decoding does that no next-token law does, in words; "" where it is one."""
        if self.best_of > 1:
            return f"choosing the best of {self.best_of}"
        return "" if self.decoder is None else f"decoding by {self.decoder.name}"

    @property
    def notes(self) -> list[str]:
        """What is worth knowing of its decoding, a sentence each."""
        if isinstance(self.decoder, SearchDecoder):
            return ["a search finds one completion of a prompt, so protocol.k = 1 is enough"]
        alone = self.values is None or len(self.values.members()) == 1
        if self.decoder is None or not alone:
            return []
        return [
            "the run's values have one member, so there is no worst one to choose by, and robust "
            "decoding is guided decoding; set value_model.members = 4 and fit again"
        ]

    @property
    def law(self) -> hub.Loaded:
        """The model whose next-token law is the contender's own, guidance included.

        Choosing among `best_of` whole completions, a search and a choice among chunks have no
        next-token law: it is the model's then.
        What an automaton knows is left out: it is about completions of a prompt within the token
        limit, and would make any other text impossible.
        """
        values = self.values
        if values is None or self.decoder is not None or isinstance(values, KnownValues):
            return self.loaded
        if isinstance(values, ExactEnds):
            values = values.without_ends()
        return replace(self.loaded, policy=GuidedModel(self.loaded.policy, values))

    def read_prompts(self, prompts: Sequence[Prompt]) -> None:
        """Tell guidance the texts of prompts that will be given to `draw`."""
        if isinstance(self.values, ExactEnds | KnownValues):
            self.values.automaton.read_prompts((prompt.ids, prompt.text) for prompt in prompts)
        if self.decoder is not None:
            self.decoder.read_prompts(prompts)

    def find(self, prompt: Prompt, *, limit: int) -> Found:
        """What a search finds of one prompt.

        Raises:
            TiltuneError: see `SearchDecoder.find`.
        """
        values = self._limited(limit)
        assert isinstance(self.decoder, SearchDecoder) and values is not None
        self.read_prompts([prompt])
        return self.decoder.find(self.loaded, values, prompt.ids, limit=limit)

    def draw(
        self,
        prompts: Sequence[Sequence[int]],
        law: SamplingLaw,
        *,
        generator: torch.Generator,
        told: Callable[[int], object] | None = None,
    ) -> Samples:
        """Complete each prompt once; `law.guided` is set here, by whether there are values; `told`
        as `draw` has it.

        Raises:
            ModelError: the model's law is not a number.
            NothingAllowed: guidance knows that no completion of a prompt meets the constraint.
        """
        law = SamplingLaw(
            law.max_new_tokens, law.temperature, law.top_p, guided=self.values is not None
        )
        loaded = self.loaded
        ending = Ending(loaded.eos_ids, loaded.pad_id)
        values = self._limited(law.max_new_tokens)
        if self.decoder is not None and values is not None:
            return self.decoder.draw(loaded, values, prompts, law, generator=generator, told=told)
        return draw(
            loaded.policy, prompts, law, ending, generator=generator, values=values, told=told
        )

    def _limited(self, limit: int) -> ValueModel | None:
        """Its values under a token limit."""
        values = self.values
        return values.limited(limit) if isinstance(values, ExactEnds | KnownValues) else values


def open_contender(
    path: Path,
    *,
    name: str | None = None,
    guided: bool = False,
    round: int | None = None,
    best_of: int = 1,
    base: bool = False,
    constraint: TextConstraint | None = None,
    search: SearchSection | None = None,
    robust: RobustSection | None = None,
) -> Contender:
    """Open a run folder or a model folder.

    Args:
        path: the folder; a hub id is taken for a model folder.
        name: how tables call it; None: the folder's name.
        guided: decode with the values of a round's pair, from the snapshot that they belong to.
        round: of which round; None: the last one for `guided`, else the finished model.
        best_of: draw so many and keep the one that the run's constraint scores highest.
        base: the run's base model instead of the tuned one.
        constraint: the run's own, where it is built already; None: it is built if it is needed.
        search, robust: decode so by a round's pair, see `evaluation.decoders`.

    Raises:
        RunError: the folder lacks what is asked of it, or two wishes exclude each other.
        TiltuneError: the model or the constraint cannot be loaded.
    """
    run = _run(path)
    ways = {"--search": search is not None, "--robust": robust is not None}
    way = _one_way(path, ways, {"--guided": guided, f"--best-of {best_of}": best_of > 1})
    guided = guided or bool(way)
    _refuse(path, run, guided=guided or round is not None, best_of=best_of, base=base, way=way)
    values, told = None, None
    if run is not None and (guided or round is not None):
        loaded, values, weights, told = _pair(path, run, round, constraint, guided=guided)
    else:
        loaded, weights = _model(path, run, base=base)
    trained_by = (_trained_by(run) if not base else None) or _maker(path)
    decoding, judge = ["guided" if guided else "plain", str(best_of)], None
    if run is not None and (best_of > 1 or search is not None):
        trained_by = run.constraint
        judge = constraint or build_constraint(run.constraint)
        decoding.append(constraint_digest(run.constraint))
    decoding += ["goes on"] if Midst.of(loaded.tokenizer).anchors else []  # once read apart
    decoder = way_to_decode(search, robust, judge)
    decoding += [] if decoder is None else [way, decoder.settings.model_dump_json()]
    return Contender(
        name=_text(name or path.resolve().name),
        loaded=loaded,
        values=values,
        best_of=best_of,
        chooser=judge if best_of > 1 else None,
        digest=hashlib.sha256("\n".join([weights, *decoding]).encode()).hexdigest(),
        path=_text(str(path)),
        trained_by=trained_by,
        limit=run.sampler.max_new_tokens if run is not None and values is not None else None,
        told=told,
        decoder=decoder,
    )


def _text(name: str) -> str:
    """A name as a file of ours can hold it, which those of folders need not be."""
    return name.encode("utf-8", "replace").decode()


def _run(folder: Path) -> RunConfig | None:
    """The configuration of a run folder; None for a folder that is none."""
    return read_config(folder) if is_run_folder(folder) else None


def _one_way(path: Path, ways: dict[str, bool], others: dict[str, bool]) -> str:
    """Which of the ways is asked for; "": none. Raises RunError where another one is, too."""
    asked = [way for way, there in (ways | others).items() if there]
    if not any(ways.values()):
        return ""
    if len(asked) > 1:
        raise RunError(
            f"{path}: {' and '.join(asked)} are different ways of decoding; give one ("
            f"{asked[0]} reads the values, as --guided does)"
        )
    return asked[0]


def _refuse(
    path: Path, run: RunConfig | None, *, guided: bool, best_of: int, base: bool, way: str
) -> None:
    if base and guided:
        raise RunError(
            f"{path}: the base model alone has no values; for base model and values give the pair "
            f"of round 0: {way or '--guided'} --round 0"
        )
    wishes = {
        way or "--guided and --round": guided,
        f"--best-of {best_of}": best_of > 1,
        "--base": base,
    }
    asked = [wish for wish, there in wishes.items() if there]
    if run is None and asked:
        raise RunError(
            f"{path}: no config.json of a run there, so it is no run folder; {', '.join(asked)} "
            "need the folder of a `tiltune fit`, with its values, constraint and base model"
        )
    if best_of > 1 and run is not None and populations(run.constraint):
        raise RunError(
            f"{path}: its constraint bounds shares of all completions, and --best-of {best_of} "
            "would choose those that the bounds count, so that nearly all were; leave it out"
        )


def _model(path: Path, run: RunConfig | None, *, base: bool) -> tuple[hub.Loaded, str]:
    """The folder's model, the run's, or the run's base; and the hash of its files."""
    if run is None:
        section, device = ModelSection(path=str(path)), "auto"
    else:
        folder = run.model.path if base else str(path / "model")
        if not base and not (path / "model").exists():
            raise RunError(
                f"{path}: not finished, it holds no model; finish it with `tiltune fit --resume`"
            )
        model, device = run.model, run.learner.device
        section = ModelSection(path=folder, dtype=model.dtype, autocast=model.autocast)
        if base and model.quantise is not None:
            section = model  # with a fresh adapter, which changes nothing
    loaded = hub.load(section, device=hub.device_named(device, "learner"))
    return loaded, _weights_digest(section)


def _pair(
    path: Path,
    run: RunConfig,
    number: int | None,
    constraint: TextConstraint | None,
    *,
    guided: bool,
) -> tuple[hub.Loaded, ValueModel | None, str, str | None]:
    """A round's snapshot and, if guided, its values; the hash of both, and which they are."""
    folder = _pair_folder(path, number)
    saved: Saved = read_folder(folder)
    if not guided:
        _check_law(saved, number)
    loaded = hub.load(run.model, device=hub.device_named(run.learner.device, "learner"))
    reference = loaded.policy.base("reference")
    snapshot: dict[str, Tensor] = saved.tensors["snapshot"]
    if snapshot:
        loaded.policy.load_state(snapshot)
    weights = digest(
        [folder / "snapshot.safetensors", folder / "values.safetensors"],
        _weights_digest(run.model) + (run.value_model.kind or ""),
    )
    if not guided:
        return loaded, None, weights, None
    values = make_values(run, loaded, loaded.policy, reference)
    exact = _with_automaton(run, loaded, values, constraint)
    exact.load_state(saved.tensors["values"])
    if exact is not values:
        weights += constraint_digest(run.constraint)
    return loaded, exact, weights, _pair_told(folder, saved)


def _pair_told(folder: Path, saved: Saved) -> str:
    version = 0 if saved.state["law"] == "reference" else saved.state["policy_version"]
    law = f"the policy of version {version}" if version else "the base model"
    return (
        f"guided: {law}, by the values of round {int(folder.name[6:])}, which were learnt for it; "
        "not the finished model"
    )


def _with_automaton(
    run: RunConfig, loaded: hub.Loaded, values: ValueModel, constraint: TextConstraint | None
) -> ValueModel:
    """The values with what the automaton of the run's constraint knows, if it has one."""
    if run.constraint.whole_texts_alone:  # it need not be built to decode
        return values
    automaton = make_automaton(run, constraint or build_constraint(run.constraint), loaded)
    return values if isinstance(automaton, str) else with_automaton(run, values, automaton)


def _check_law(saved: Saved, number: int | None) -> None:
    """The pair's law has to be the policy that the round's number promises."""
    if saved.state["law"] == "reference" and number and saved.state["policy_version"] > 0:
        raise RunError(
            f"--round {number}: the run trains on the reference's completions (as method.schedule "
            "= 'fixed' and method.anchor = 'reference' do), so a round's pair is the reference and "
            "its values, and the policy of that round is not kept; add --guided, or leave --round "
            "out for the tuned model"
        )


def _pair_folder(run: Path, number: int | None) -> Path:
    """The pair of that round, or the last complete one."""
    kept = sorted(path for path in (run / "value").glob("round-*") if path.name[6:].isdigit())
    if not kept:
        raise RunError(
            f"{run}: holds no values; only a run with method.kind = 'tilt', 'etpo' or 'rce' learns "
            "them"
        )
    if number is None:
        return kept[-1]
    folder = run / "value" / f"round-{number:03d}"
    if folder not in kept:
        rounds = ", ".join(str(int(path.name[6:])) for path in kept)
        raise RunError(f"{run}: --round {number}: values are kept of rounds {rounds} only")
    return folder


def _trained_by(run: RunConfig | None) -> ConstraintConfig | None:
    """The constraint that a run trains under; None where it reads the corpus alone."""
    return run.constraint if run is not None and run.method.constrained else None


def _maker(path: Path) -> ConstraintConfig | None:
    """The constraint of the run that a bare `RUN/model` came from."""
    return _trained_by(_run(path.resolve().parent)) if path.name == "model" else None


def _weights_digest(section: ModelSection) -> str:
    """SHA-256 of the files of a model that count; a hub id goes by its name."""
    place = Path(section.path)
    files = sorted(p for p in place.glob("*") if p.is_file() and p.suffix in WEIGHTS)
    if place.is_file():
        files = [place]
    shape = section.model_dump(exclude={"path"}, mode="json")
    if section.quantise is None:
        del shape["quantise"]  # as digests were before there was such a setting
    # a run's settings hold what was chosen, a folder's alone what is chosen without a run
    shape["autocast"] = bool(section.autocast)
    if section.dtype == "auto" and section.adapter == "none":
        shape["dtype"] = "float32"
    return digest(files, json.dumps(shape) + ("" if files else section.path))
