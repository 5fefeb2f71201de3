"""What goes to the Hub, what never does, and one message for each thing in the way."""

import errno
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import constants

import tiny
from tiltune.records import push as pushing
from tiltune.records.files import write_json
from tiltune.records.push import pack, push
from tiltune.records.rounds import RoundRecord, write_records

MODEL = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json")
NEVER = ("corpus.jsonl", "notes.txt", "training.log", "deep/er/config.json", "adapter/README.md")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run by hand, with things beside its model that are nobody's business."""
    run = tmp_path / "run"
    for name in (*MODEL, *NEVER, "adapter/adapter_model.safetensors"):
        path = run / "model" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x" * 1500, "utf-8")
    secret = tmp_path / "secret.json"
    secret.write_text("{}", "utf-8")
    (run / "model" / "tokenizer_extra.json").symlink_to(secret)
    write_json(
        run / "model" / "adapter" / "adapter_config.json",
        {"base_model_name_or_path": "/home/me/models/base", "r": 4},
    )
    for name in ("samples/after.jsonl", "checkpoints/round-000/x.safetensors"):
        (run / name).parent.mkdir(parents=True)
        (run / name).write_text("", "utf-8")
    constraint = {"kind": "lexicon", "words": ["bad"]}
    tables = {"run": {"dir": str(run)}, "model": {"path": "/home/me/models/base"}}
    write_json(run / "config.json", tables | {"constraint": constraint, "method": {"kind": "tilt"}})
    write_json(run / "finished.json", {"rounds_asked": 1, "policy_version": 1})
    row = RoundRecord(round=0, policy_version=0, method="tilt", schedule="sequential")
    write_records(run / "records.jsonl", [row])
    return run


class Hub:
    """What `HfApi` is to `push`, without a Hub."""

    def __init__(self, *, private: bool = True, error: BaseException | None = None) -> None:
        self.private, self.error = private, error
        self.sent: dict[str, Any] = {}

    def create_repo(self, repo: str, *, private: bool | None, exist_ok: bool) -> Any:
        if self.error is not None:
            raise self.error
        self.asked = private

        class Url(str):
            repo_id = repo

        return Url(f"https://hub.example/{repo}")

    def model_info(self, repo: str) -> Any:
        return SimpleNamespace(private=self.private)

    def create_commit(self, repo: str, operations: list[Any], *, commit_message: str) -> None:
        for each in operations:
            self.sent[each.path_in_repo] = each.path_or_fileobj


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> Hub:
    """A token, no offline mode, and a Hub that takes everything."""
    hub = Hub()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(pushing, "get_token", lambda: "hf_token")
    monkeypatch.setattr(pushing, "HfApi", lambda: hub)
    return hub


def tiltune(
    capsys: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch, *arguments: str
) -> tuple[int, str, str]:
    patch.setenv("COLUMNS", "400")
    code = tiny.tiltune("push", *arguments)
    said = capsys.readouterr()
    return code, said.out, said.err


def test_the_dry_run_lists_files_sizes_and_the_card_and_needs_no_network(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pushing, "HfApi", None)
    monkeypatch.setattr(pushing, "get_token", None)
    code, out, err = tiltune(capsys, monkeypatch, str(run), "me/polite", "--dry-run")
    assert code == 0
    listed = [line.split() for line in err.splitlines()]
    assert ["1.5", "kB", "model.safetensors"] in listed
    assert ["stays", "here", "corpus.jsonl"] in listed
    assert out.startswith("---\nlibrary_name: transformers\n")
    assert 'from_pretrained("me/polite")' in out and "run/model" not in out
    assert not (run / "model" / "README.md").exists()


def test_only_the_model_goes(run: Path, online: Hub) -> None:
    online.private = False  # a public repository, and nobody asked for a private one
    said: list[str] = []
    parcel = pack(run, "me/polite")
    assert push(parcel, private=False, say=said.append) == "https://hub.example/me/polite"
    adapter = {"adapter/adapter_config.json", "adapter/adapter_model.safetensors"}
    assert set(online.sent) == {*MODEL, *adapter, "README.md"}
    assert set(parcel.left) == {*NEVER, "tokenizer_extra.json"}
    assert Path(online.sent["model.safetensors"]) == run / "model" / "model.safetensors"
    settings = json.loads(online.sent["adapter/adapter_config.json"])
    assert settings == {"base_model_name_or_path": "base", "r": 4}
    assert online.asked is None


def test_what_a_person_wrote_into_the_card_goes_along(run: Path) -> None:
    (run / "model" / "README.md").write_text('mine: "run/model"\n', "utf-8")
    assert pack(run, "me/polite").card == 'mine: "me/polite"\n'


def test_private_is_asked_for_and_a_public_repository_refused(
    run: Path, online: Hub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tiltune(capsys, monkeypatch, str(run), "me/polite", "--private")[0] == 0
    assert online.asked is True and online.sent
    online.private, online.sent = False, {}
    code, _, err = tiltune(capsys, monkeypatch, str(run), "me/polite", "--private")
    assert code == 2 and "is there already and is public" in err and not online.sent


class Answered(OSError):
    """As the client raises it: with the Hub's answer."""

    def __init__(self, status: int) -> None:
        super().__init__("no")
        self.response = SimpleNamespace(status_code=status)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (Answered(401), "the Hub does not accept the token here (401); `hf auth login`"),
        (Answered(403), "the token may not write there (403)"),
        (Answered(500), "the Hub answered 500: no"),
        (OSError(errno.ENETUNREACH, "no route"), "the Hub cannot be reached: [Errno 101] no route"),
        (ConnectionError("refused"), "the Hub cannot be reached: refused"),
    ],
    ids=["token", "right", "answer", "route", "refused"],
)
def test_one_message_for_what_the_hub_or_the_network_says(
    run: Path,
    online: Hub,
    error: BaseException,
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    online.error = error
    code, _, err = tiltune(capsys, monkeypatch, str(run), "me/polite")
    assert code == 2 and f"error: me/polite: {message}" in err and "Traceback" not in err


def test_the_client_s_own_error_of_the_network_is_caught() -> None:
    import httpx2  # huggingface_hub's client

    assert issubclass(httpx2.ConnectError, pushing.TRANSPORT)


def test_no_token_no_network_bad_ids_and_no_model(
    run: Path,
    online: Hub,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("a/b/c", "me/po lite", "me/x--y", ""):
        code, _, err = tiltune(capsys, monkeypatch, str(run), name)
        assert code == 2 and f"{name!r} is no id of the Hub" in err and "me/polite-model" in err
    monkeypatch.setattr(pushing, "get_token", lambda: None)
    code, _, err = tiltune(capsys, monkeypatch, str(run), "me/polite")
    assert code == 2 and "no token of the Hub here" in err and "hf auth login" in err
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    code, _, err = tiltune(capsys, monkeypatch, str(run), "me/polite")
    assert code == 2 and "HF_HUB_OFFLINE is set" in err
    (run / "finished.json").unlink()
    code, _, err = tiltune(capsys, monkeypatch, str(run), "me/polite", "--dry-run")
    assert code == 2 and "the run has not finished" in err
    code, _, err = tiltune(capsys, monkeypatch, str(tmp_path / "none"), "me/polite")
    assert code == 2 and "a run folder is expected" in err
    assert not online.sent
