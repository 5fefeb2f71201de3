"""A finished run's model to the Hub: which files, and what stops it in one message."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi, constants, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id

from tiltune.errors import RunError, counted
from tiltune.records.files import damaged, read_object
from tiltune.records.report.card import CARD, card, place
from tiltune.records.report.folder import read_folder

PUSHED = (
    *("*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json"),
    *("tokenizer*.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt"),
    *("merges.txt", "*.model", "*.tiktoken", "*.jinja", "adapter_config.json"),
)
"""Names of files that a model and its tokenizer are made of; nothing else is ever sent."""
TRANSPORT: tuple[type[BaseException], ...] = (HfHubHTTPError, *HfHubHTTPError.__bases__, OSError)
"""What the client raises: answers of the Hub, and the network's own errors."""


@dataclass(frozen=True)
class Parcel:
    """What would be sent.

    Attributes:
        repo: the Hub's id.
        card: README.md, which names the model by that id.
        files: path in the repository -> content, a file here or bytes made for the Hub.
        left: names in the model's folder that stay here.
    """

    repo: str
    card: str
    files: dict[str, Path | bytes]
    left: tuple[str, ...]

    def told(self) -> list[str]:
        """Each file with its size, and what stays."""
        sizes = {name: _size(each) for name, each in self.files.items()}
        lines = [f"{_bytes(size):>10}  {name}" for name, size in sorted(sizes.items())]
        lines.append(f"{_bytes(sum(sizes.values())):>10}  in {counted(len(sizes), 'file')}")
        return lines + [f"{'stays here':>10}  {name}" for name in self.left]


def pack(folder: Path, repo: str) -> Parcel:
    """What of the run goes to the Hub; nothing is asked of a network.

    Raises:
        RunError: no finished run, or what is no id of the Hub.
    """
    run = read_folder(folder)
    model = folder / "model"
    if run.version is None or not (model / "config.json").is_file():
        raise RunError(
            f"{folder}: the run has not finished, so there is no model to push; "
            "`tiltune fit run.toml --resume` goes on with it"
        )
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise RunError(
            f"{repo!r} is no id of the Hub ({_line(error)}); give one such as me/polite-model"
        ) from None
    here = model / CARD
    text = _edited(here) if here.is_file() else card(run)
    text = text.replace(json.dumps(place(run)), json.dumps(repo))
    files: dict[str, Path | bytes] = {CARD: text.encode()}
    left: list[str] = []
    for path in sorted(model.rglob("*")):
        name = path.relative_to(model).as_posix()
        if path.is_dir() or name == CARD:
            continue
        if name.count("/") > ("adapter/" in name) or path.is_symlink() or not _is_model_s(path):
            left.append(name)
        elif path.name == "adapter_config.json":
            files[name] = _without_places(path, run.manifest)
        else:
            files[name] = path
    return Parcel(repo, text, files, tuple(left))


def push(parcel: Parcel, *, private: bool, say: Callable[[str], None]) -> str:
    """Send it in one commit.

    Args:
        parcel: what `pack` made.
        private: make the repository private; one that is public already is refused.
        say: told what is under way.

    Returns:
        Where it is to be seen.

    Raises:
        RunError: no token, no network, no right to write there, or a public repository.
    """
    if constants.HF_HUB_OFFLINE:
        raise RunError("HF_HUB_OFFLINE is set, so nothing is pushed; unset it, or use --dry-run")
    if get_token() is None:
        raise RunError(
            "no token of the Hub here, so nothing is pushed; `hf auth login` asks for one, or set "
            "HF_TOKEN (a token that may write, from huggingface.co/settings/tokens)"
        )
    api = HfApi()
    try:
        # an id of the Hub without a user is one of the token's owner
        url = api.create_repo(parcel.repo, private=private or None, exist_ok=True)
        if private and not api.model_info(url.repo_id).private:
            raise RunError(
                f"{url.repo_id} is there already and is public, though --private was given; "
                "nothing is pushed; make it private on the Hub, or choose another id"
            )
        say(f"pushing to {url} …")
        card_ = parcel.files[CARD]
        named = json.dumps(parcel.repo).encode(), json.dumps(url.repo_id).encode()
        files = parcel.files | {CARD: card_.replace(*named) if isinstance(card_, bytes) else card_}
        operations = [CommitOperationAdd(name, content) for name, content in files.items()]
        api.create_commit(url.repo_id, operations, commit_message="Model tuned by Tiltune")
    except TRANSPORT as error:
        raise RunError(f"{parcel.repo}: {_explained(error)}") from error
    return str(url)


def _explained(error: BaseException) -> str:
    """The client's error as one sentence, with what to do."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status == 401:
        return (
            "the Hub does not accept the token here (401); `hf auth login` asks for another, or "
            "set HF_TOKEN"
        )
    if status == 403:
        return (
            "the token may not write there (403); use one with the right to write, and an id of "
            "your own or of an organisation you may write to"
        )
    if status is not None:
        return f"the Hub answered {status}: {_line(error)}"
    return (
        f"the Hub cannot be reached: {_line(error)}; the same command tries again, --dry-run needs "
        "no network"
    )


def _edited(path: Path) -> str:
    """A card as its owner has left it."""
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise damaged(path, error, remedy="save it as UTF-8") from None


def _is_model_s(path: Path) -> bool:
    return any(fnmatch(path.name, pattern) for pattern in PUSHED)


def _without_places(path: Path, manifest: dict[str, Any]) -> bytes:
    """The adapter's settings, whose base is named by its id, or by no more than its name."""
    remedy = "`tiltune fit run.toml --resume` with more rounds writes it again"
    settings = read_object(path, remedy=remedy)
    base = str(settings.get("base_model_name_or_path") or "")
    hub_id = (manifest.get("base") or {}).get("hub_id")
    settings["base_model_name_or_path"] = hub_id or Path(base).name
    return (json.dumps(settings, indent=2) + "\n").encode()


def _size(content: Path | bytes) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.4g} {unit}"
        size /= 1000
    return f"{size:.4g} GB"


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
