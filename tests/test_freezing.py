"""--freeze-encoder: the decoder learns, the encoder stays, and nobody who loads the checkpoint inherits it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from conftest import SUMMARIZATION, TINY, TRAINING, run
from test_restore import stock_bart

from lsg_fairseq.compat.loading import load_checkpoint_file
from lsg_fairseq.hub.entries import from_checkpoint
from lsg_fairseq.models.freezing import freeze_embeddings, freeze_encoder
from lsg_fairseq.modules.lsg_config import LSGError
from recipes.tiny_models import build_model, random_tokens

SHARED = "encoder.embed_tokens.weight"


def gradients(model: torch.nn.Module, tokens: torch.Tensor) -> set[str]:
    """The names of the parameters that a step would change; tied ones under their first name."""
    model.zero_grad(set_to_none=True)
    logits, _ = model(tokens, None, tokens[:, :7])
    logits.square().mean().backward()
    return {name for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("arch", ["lsg_bart_small", "lsg_pegasus_small"])
def test_the_decoder_alone_is_trained(arch: str) -> None:
    model, tokens = build_model(arch), random_tokens(40, 17)
    everything = gradients(model, tokens)
    before = model(tokens, None, tokens[:, :7])[0]
    freeze_encoder(model)
    torch.testing.assert_close(model(tokens, None, tokens[:, :7])[0], before)
    own = {name for name in everything if name.startswith("encoder.") and name != SHARED}
    assert own
    assert gradients(model, tokens) == everything - own
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert not trainable & own  # an optimizer's weight decay would shrink them


def test_shared_embeddings_learn_from_the_decoder_alone() -> None:
    """Their gradient is that of a model whose encoder reads another copy of them."""
    tokens = random_tokens(30, 30)
    frozen, apart = build_model(), build_model()
    freeze_encoder(frozen)
    apart.encoder.embed_tokens = torch.nn.Embedding.from_pretrained(apart.encoder.embed_tokens.weight.detach().clone())
    for model in (frozen, apart):
        gradients(model, tokens)
    torch.testing.assert_close(frozen.decoder.embed_tokens.weight.grad, apart.decoder.embed_tokens.weight.grad)


def test_embeddings_of_its_own_stay_with_the_encoder() -> None:
    model, tokens = build_model(), random_tokens(30)
    model.encoder.embed_tokens = torch.nn.Embedding.from_pretrained(
        model.encoder.embed_tokens.weight.detach().clone(), freeze=False
    )
    freeze_encoder(model)
    assert not any(parameter.requires_grad for parameter in model.encoder.parameters())
    freeze_embeddings(model)
    assert not {name for name in gradients(model, tokens) if "embed_tokens" in name}


def test_embeddings_alone_can_stay() -> None:
    model, tokens = build_model(), random_tokens(40, 17)
    everything = gradients(model, tokens)
    freeze_embeddings(model)
    assert gradients(model, tokens) == everything - {SHARED}
    assert not model.decoder.output_projection.weight.requires_grad  # it is the same table


def test_an_encoder_of_another_package_is_refused() -> None:
    model = stock_bart(build_model().encoder.dictionary)[0]
    with pytest.raises(LSGError, match=r"--freeze-encoder is for .* not for BARTModel; leave it out"):
        freeze_encoder(model)


@pytest.mark.parametrize("precision", [[], ["--bf16"]], ids=["float32", "bf16"])
def test_going_on_with_other_flags_is_one_sentence(precision: list[str], corpus: Path, tmp_path: Path) -> None:
    """Unless the weights alone are taken over; with the same flags it goes on."""
    training = ["fairseq-train", corpus, *SUMMARIZATION, *TINY, *TRAINING, *precision, "--max-epoch"]
    run(*training, 1, "--freeze-encoder", "--save-dir", tmp_path)
    printed = run(*training, 2, "--save-dir", tmp_path, check=False)
    assert printed.startswith("1\n")
    sentence = r"fairseq-train: error: .*checkpoint_last.pt was saved while other parts .*--finetune-from-model"
    assert re.search(sentence, printed)
    assert "Traceback" not in printed.split("fairseq-train: error: ")[1]
    assert "done training" in run(*training, 2, "--freeze-encoder", "--save-dir", tmp_path)
    assert "done training" in run(*training, 3, "--reset-optimizer", "--save-dir", tmp_path)


def test_training_leaves_the_encoder_and_the_checkpoint_is_free(
    corpus: Path, checkpoints: Path, tmp_path: Path
) -> None:
    start = checkpoints / "checkpoint_last.pt"
    flags = ["--finetune-from-model", start, "--freeze-encoder", "--weight-decay", 0.5, "--save-dir", tmp_path]
    run("fairseq-train", corpus, *SUMMARIZATION, *TINY, *TRAINING, *flags)
    old, new = (load_checkpoint_file(path)["model"] for path in (start, tmp_path / "checkpoint_last.pt"))
    same = {key for key in old if torch.equal(old[key], new[key])}
    assert {key for key in old if key.startswith("encoder.") and key != SHARED} <= same
    assert not same & {SHARED, "decoder.layers.0.fc1.weight", "decoder.layers.1.encoder_attn.k_proj.weight"}
    hub = from_checkpoint(tmp_path / "checkpoint_last.pt")
    assert all(parameter.requires_grad for parameter in hub.parameters())
    assert not hub.model.encoder.is_frozen
    # Trained on with the other flag, everything but the embeddings learns.
    flags = ["--finetune-from-model", tmp_path / "checkpoint_last.pt", "--save-dir", tmp_path / "next"]
    flags += ["--freeze-embeddings"]
    run("fairseq-train", corpus, *SUMMARIZATION, *TINY, *TRAINING, *flags)
    last = load_checkpoint_file(tmp_path / "next" / "checkpoint_last.pt")["model"]
    assert not torch.equal(last["encoder.layers.0.fc1.weight"], new["encoder.layers.0.fc1.weight"])
    assert torch.equal(last[SHARED], new[SHARED])
