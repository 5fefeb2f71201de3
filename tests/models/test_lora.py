"""Several views of one module in one loss: what whole copies give, whichever of them ran last."""

import copy
import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from small_models import gpt2_module, llama_module, write_folder
from tiltune.config import ModelSection
from tiltune.data.batches import left_padded
from tiltune.data.samples import Samples
from tiltune.errors import ModelError
from tiltune.models import hub
from tiltune.models.laws import gather
from tiltune.models.lm import LanguageModel
from tiltune.worlds.testing import EnumerableModel, TableOutput, enumerate_completions

VOCABULARY, END, LIMIT, PROMPT = 3, 2, 3, (0,)
ROWS = ([5, 9, 4], [7, 3, 11, 6, 8, 10, 4], [12, 4, 5, 6, 13])
FOLDERS = pytest.mark.parametrize("module", [llama_module, gpt2_module])
CPU = torch.device("cpu")


def shake(lm: LanguageModel, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, value in lm.named_parameters():
            value += 0.2 * torch.randn(value.shape, generator=generator, dtype=value.dtype)


def wrapped(module: nn.Module, **config: Any) -> LanguageModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)  # peft draws the adapter's first half
        adapted = get_peft_model(module, LoraConfig(**config), adapter_name="policy")
    return LanguageModel(adapted.eval(), adapter="policy")


def table() -> EnumerableModel:
    return EnumerableModel(VOCABULARY, LIMIT)


def table_with_lora() -> LanguageModel:
    """An adapter as wide as the vocabulary: it reaches every table."""
    module = table()
    module.is_gradient_checkpointing = False  # else peft hooks the input embeddings: there are none
    module.register_forward_hook(_through_the_layer)
    return wrapped(module, r=VOCABULARY, lora_alpha=2 * VOCABULARY, target_modules=["table"])


def _through_the_layer(module: Any, _: Any, output: TableOutput) -> TableOutput:
    """The model looks its weights up, which an adapter of the layer would not notice."""
    hidden = output.last_hidden_state[:, -output.logits.shape[1] :]
    return replace(output, logits=module.table(hidden))


def folder_with_lora(folder: Path, module: nn.Module) -> LanguageModel:
    write_folder(folder, module)
    section = ModelSection(path=str(folder), adapter="lora", dtype="float32", rank=2)
    policy = hub.load(section, device=CPU).policy
    shake(policy, 1)
    return policy


def completions() -> Samples:
    return enumerate_completions(
        LanguageModel(table()), PROMPT, lambda y: (1 + len(y)) / 5, eos_id=END, limit=LIMIT
    )


def log_z_of(flow: LanguageModel, samples: Samples) -> Tensor:
    prompts = samples.prompt_ids[:1]
    return flow.forward(prompts, torch.ones_like(prompts, dtype=torch.bool)).logits.logsumexp(-1)


def log_law_of(lm: LanguageModel, samples: Samples) -> Tensor:
    ids, mask = samples.prefixes()
    log_p = gather(lm.log_probs(ids, mask, keep=samples.ids.shape[1]), samples.ids)
    return torch.where(samples.mask, log_p, 0.0).sum(1)


def balance(
    flow: LanguageModel,
    policy: LanguageModel,
    reference: LanguageModel,
    samples: Samples,
    order: Sequence[str] = ("flow", "policy", "reference"),
) -> Tensor:
    """`Σ_y (log Z + log π(y) - log p(y) - log C(y))²`: 0 where `π = p C / Z`, and nowhere else."""
    asked: dict[str, Callable[[], Tensor]] = {
        "flow": lambda: log_z_of(flow, samples),
        "policy": lambda: log_law_of(policy, samples),
        "reference": torch.no_grad()(lambda: log_law_of(reference, samples)),
    }
    found = {name: asked[name]() for name in order}
    target = found["reference"] + samples.labels.log()
    return (found["flow"] + found["policy"] - target).square().sum()


@pytest.mark.parametrize("order", [*itertools.permutations(("flow", "policy", "reference"))])
def test_a_loss_over_two_views_has_the_gradients_of_whole_copies(order: tuple[str, ...]) -> None:
    policy = table_with_lora()
    flow, reference = policy.clone("flow"), policy.base("reference")
    shake(policy, 1)
    shake(flow, 2)
    samples, layer = completions(), policy.inner.table
    whole = {view: LanguageModel(table()) for view in (policy, flow)}
    with torch.no_grad():
        for view, copied in whole.items():
            copied.module.table.weight += layer.get_delta_weight(view.adapter)
    balance(flow, policy, reference, samples, order).backward()
    balance(whole[flow], whole[policy], LanguageModel(table()), samples, order).backward()
    for view, copied in whole.items():
        first, second = layer.lora_A[view.adapter].weight, layer.lora_B[view.adapter].weight
        outer = layer.scaling[view.adapter] * copied.module.table.weight.grad
        assert first.grad is not None and second.grad is not None and outer.abs().max() > 0.1
        torch.testing.assert_close(first.grad, second.T @ outer, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(second.grad, outer @ first.T, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("adapter", [True, False])
def test_two_views_trained_in_one_loss_reach_the_tilted_law(adapter: bool) -> None:
    policy = table_with_lora() if adapter else LanguageModel(table())
    flow, reference = policy.clone("flow"), policy.base("reference")
    samples = completions()
    trained = [p for view in (flow, policy) for _, p in view.named_parameters()]
    optimizer = torch.optim.LBFGS(trained, max_iter=300, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        found = balance(flow, policy, reference, samples)
        found.backward()
        return found

    optimizer.step(loss)
    tilted = samples.proposal_logprobs.sum(1).exp() * samples.labels
    with torch.no_grad():
        log_z, law = log_z_of(flow, samples), log_law_of(policy, samples).exp()
    assert log_z.item() == pytest.approx(tilted.sum().log().item(), abs=1e-4)
    torch.testing.assert_close(law, tilted / tilted.sum(), rtol=0, atol=1e-4)


@FOLDERS
@pytest.mark.parametrize("values_first", [True, False])
def test_policy_and_values_in_one_loss_have_the_gradients_of_whole_copies(
    module: Callable[[], nn.Module], values_first: bool, tmp_path: Path
) -> None:
    policy = folder_with_lora(tmp_path, module())
    policy.module.double()
    values, snapshot = policy.clone("values"), policy.clone("snapshot")
    shake(values, 2)
    ids, mask = left_padded(ROWS, 0)

    def loss(policy: LanguageModel, values: LanguageModel) -> Tensor:
        asked = [lambda: gather(policy.log_probs(ids, mask)[:, :-1], ids[:, 1:])[mask[:, :-1]]]
        asked.append(lambda: values.trunk(ids, mask)[0][mask])
        found = [each() for each in (reversed(asked) if values_first else asked)]
        with torch.no_grad():
            snapshot.forward(ids, mask)
        log_p, states = reversed(found) if values_first else found
        return mse_loss(states[:, 0], torch.ones(len(states))) - log_p.mean()

    whole = {view: LanguageModel(module().double()) for view in (policy, values)}
    layers = {n: p for n, p in policy.inner.named_modules() if hasattr(p, "lora_A")}
    pairs = [*itertools.product(whole.items(), layers.items())]
    with torch.no_grad():
        for (view, copied), (name, layer) in pairs:
            copied.module.get_parameter(f"{name}.weight").add_(layer.get_delta_weight(view.adapter))
    loss(policy, values).backward()
    loss(whole[policy], whole[values]).backward()
    for (view, copied), (name, layer) in pairs:
        first, second = layer.lora_A[view.adapter].weight, layer.lora_B[view.adapter].weight
        outer = layer.scaling[view.adapter] * copied.module.get_parameter(f"{name}.weight").grad
        outer = outer.T if layer.fan_in_fan_out else outer
        assert first.grad is not None and second.grad is not None and outer.any()
        for found, due in ((first.grad, second.T @ outer), (second.grad, outer @ first.T)):
            assert (found - due).norm() < 1e-5 * due.norm()  # a Llama normalises in 32 bit
    assert all(p.grad is None for _, p in snapshot.named_parameters())


def test_nothing_that_runs_changes_what_can_be_trained(tmp_path: Path) -> None:
    policy = folder_with_lora(tmp_path / "model", llama_module())
    tokenizer = hub.load_tokenizer(str(tmp_path / "model"))
    reference, values = policy.base("reference"), policy.clone("values")
    still = policy.clone("still")
    for _, value in still.named_parameters():
        value.requires_grad_(False)
    views = {"policy": policy, "reference": reference, "values": values, "still": still}
    expected = {
        name: any(f".{view.adapter}." in name for view in (policy, values))
        for name, _ in policy.module.named_parameters()
    }
    ids, mask = left_padded(ROWS, 0)

    def check(done: str) -> None:
        found = {n: p.requires_grad for n, p in policy.module.named_parameters() if n in expected}
        assert found == expected, done

    check("made")
    for (name, view), (after, other) in itertools.product(views.items(), repeat=2):
        for run in (view.activate, lambda v=view: v.forward(ids, mask, keep=1)):
            other.trunk(ids, mask)
            run()
            check(f"{name} after {after}")
        if view.adapter is not None:
            hub.save_model(view, tokenizer, tmp_path / name)
            view.load_state(view.state())
            check(f"{name} saved")
    for name, view in views.items():
        if view.adapter is not None:
            twin = view.clone(f"twin of {name}")
            check(f"{name} cloned")
            assert all(p.requires_grad for _, p in twin.named_parameters())


@torch.no_grad()
def test_a_choice_made_elsewhere_is_seen() -> None:
    policy = wrapped(llama_module(), r=2, target_modules=["q_proj", "v_proj"])
    views = [policy, policy.clone("other"), policy.base("reference")]
    shake(views[0], 1)
    shake(views[1], 2)
    ids, mask = left_padded(ROWS, 0)
    before = [view.forward(ids, mask).logits for view in views]
    assert all((a - b).abs().max() > 1e-3 for a, b in itertools.combinations(before, 2))

    def foreign() -> None:
        """An adapter on layers that had none."""
        policy.module.add_adapter("foreign", LoraConfig(r=2, target_modules=["down_proj"]))
        policy.module.set_adapter("foreign")
        shake(LanguageModel(policy.module, adapter="foreign"), 3)

    others = [
        lambda: policy.module.set_adapter("policy"),
        lambda: policy.module.set_adapter("other_view"),
        policy.module.base_model.disable_adapter_layers,
        policy.module.base_model.enable_adapter_layers,
        foreign,
    ]
    for other, (view, logits) in itertools.product(others, zip(views, before, strict=True)):
        if other is not foreign or "foreign" not in policy.module.peft_config:
            other()
        assert torch.equal(view.forward(ids, mask).logits, logits)


def test_views_with_modules_of_their_own_beside_the_adapters() -> None:
    """What peft trains whole (`modules_to_save`) is chosen and left alone in the same way."""
    base = llama_module()
    ids, mask = left_padded(ROWS, 0)
    plain = base(input_ids=ids, attention_mask=mask.long()).logits[mask].detach()
    policy = wrapped(base, r=2, target_modules=["q_proj"], modules_to_save=["norm"])
    other, reference = policy.clone("other"), policy.base("reference")
    shake(policy, 1)
    shake(other, 2)
    laws = [view.log_probs(ids, mask)[mask] for view in (policy, other)]
    frozen = reference.forward(ids, mask).logits[mask]
    torch.testing.assert_close(frozen, plain, rtol=0, atol=1e-5)
    assert not frozen.requires_grad
    (laws[0] - laws[1]).square().sum().backward()
    for view in (policy, other):
        own = dict(view.named_parameters())
        assert any("modules_to_save" in name for name in own)
        assert all(value.grad is not None and value.grad.any() for value in own.values())


def test_an_adapter_that_is_not_there_is_refused() -> None:
    policy = table_with_lora()
    with pytest.raises(ModelError, match="no adapter 'polcy'; there are policy"):
        LanguageModel(policy.module, adapter="polcy").activate()


def test_merged_weights_are_refused() -> None:
    policy = table_with_lora()
    policy.module.merge_adapter()
    with pytest.raises(ModelError, match="call the module's unmerge_adapter"):
        policy.base("reference").activate()
    policy.module.unmerge_adapter()
    policy.base("reference").activate()


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_:FutureWarning")  # the later name: v5
def test_activations_are_not_computed_again_by_another_view() -> None:
    """Under gradient checkpointing the first view's gradient would be one of the second's law."""
    policy = wrapped(llama_module(), r=2, target_modules=["q_proj"])
    ids, mask = left_padded(ROWS, 0)
    policy.inner.gradient_checkpointing_enable()
    policy.forward(ids, mask)  # transformers computes again in training mode alone
    policy.module.train()
    with torch.no_grad():
        policy.forward(ids, mask)
    with pytest.raises(ModelError, match="turn it off, or train whole weights"):
        policy.forward(ids, mask)
    policy.inner.gradient_checkpointing_disable()
    policy.forward(ids, mask)


def test_a_choice_that_peft_does_not_take_is_told() -> None:
    """The two attributes are peft's own; a version that keeps them elsewhere must not pass."""

    class Elsewhere(nn.Linear):
        adapter_layer_names = merged_adapters = ()
        disable_adapters, active_adapters = False, ("policy",)

    policy = table_with_lora()
    policy.inner.elsewhere = Elsewhere(1, 1)
    with pytest.raises(ModelError, match="this version of peft cannot"):
        policy.activate()


def test_a_copied_view_chooses_among_its_own_layers() -> None:
    policy = table_with_lora()
    shake(policy, 1)
    samples = completions()
    reference, twin = policy.base("reference"), copy.deepcopy(policy)
    before = log_law_of(policy, samples)
    reference.activate()
    assert torch.equal(log_law_of(twin, samples), before)
    reference.activate()
    twin.activate()
    assert policy.inner.table.disable_adapters and not twin.inner.table.disable_adapters
