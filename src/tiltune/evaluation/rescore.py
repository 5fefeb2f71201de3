"""`tiltune rescore`: stored completions, other scorers; nothing is drawn and no model is loaded."""

from collections.abc import Sequence
from pathlib import Path

from tiltune.config import ScorerSection
from tiltune.evaluation.evaluate import Texts, compose, refuse
from tiltune.evaluation.folder import alone, read_manifest, stored_rows, write_manifest
from tiltune.evaluation.generations import as_generated
from tiltune.evaluation.judging import Judges
from tiltune.evaluation.table import scorer_digests
from tiltune.records.measurements import Evaluation
from tiltune.records.progress import Progress, silent

AT_ONCE = 256
"""Completions handed over at a time."""


def rescore(
    folder: Path,
    scorers: Sequence[ScorerSection],
    *,
    allow_training_scorer: bool = False,
    progress: Progress = silent,
) -> Evaluation:
    """Score an evaluation's completions again and renew its `evaluation.json`.

    Scorers of a name that is there already take its place, others are added; a scorer that has
    scored these completions before only gives what it lacks. All other measurements stay.

    Raises:
        RunError: the folder is no evaluation, or its completions are not all there, or another
            process is at work on it.
        ConfigError: a scorer is the one that trained the model.
        ConstraintError: a scorer cannot be built or is broken; what it scored is kept.
    """
    read_manifest(folder)  # or it is no evaluation's folder
    with alone(folder):
        manifest = read_manifest(folder)
        named = {each.name: each for each in (*manifest.config.scorer, *scorers)}
        protocol = manifest.config.protocol
        allowed = allow_training_scorer or protocol.allow_training_scorer
        protocol = protocol.model_copy(update={"allow_training_scorer": allowed})
        config = manifest.config.model_copy(
            update={"scorer": tuple(named.values()), "protocol": protocol}
        )
        refuse(config, manifest.trained_by)
        texts = Texts()
        rows = {name: stored_rows(folder, group) for name, group in manifest.groups.items()}
        total = sum(map(len, rows.values()))
        with Judges(config.scorer, folder, completions=total) as judges:
            for name, group in manifest.groups.items():
                judges.begin(name, group.digest, total=group.rows)
                for first in range(0, len(rows[name]), AT_ONCE):
                    judges.submit(name, rows[name][first : first + AT_ONCE])
                texts.generated[name] = as_generated(name, rows[name])
            for name in manifest.groups:
                texts.scores[name] = judges.finish(name, progress)
        texts.seconds = {
            "scoring": judges.scoring_seconds,
            "waiting_for_scores": judges.waiting_seconds,
        }
        # what was read to draw them may be another by now, and is not read again
        read = manifest.read and manifest.read | scorer_digests(config.scorer)
        manifest = manifest.model_copy(update={"config": config, "read": read})
        write_manifest(folder, manifest)
        return compose(folder, manifest, texts)
