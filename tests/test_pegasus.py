"""LSG-Pegasus, and both families against transformers' own short models, run live."""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from fairseq.criterions.label_smoothed_cross_entropy import label_smoothed_nll_loss
from fairseq.data import LanguagePairDataset, ListDataset
from fairseq.models import ARCH_CONFIG_REGISTRY
from live_models import build_lsg_model, open_transformers_model
from reference_checkpoints import FAMILIES, REFERENCE
from torch import Tensor, nn

from lsg_fairseq.data.kept_part import HEAD
from lsg_fairseq.generation import LSGSequenceGenerator
from lsg_fairseq.modules.positional_embedding import PegasusPositionalEmbedding
from lsg_fairseq.tasks.lsg_summarization import LSGSummarizationConfig, LSGSummarizationTask, Origin
from lsg_fairseq.tokenizers.sequence_format import PEGASUS_FORMAT, SequenceFormat
from lsg_fairseq.weights.position_tables import pegasus_sinusoids
from recipes.tiny_models import build_model, random_tokens

needs_reference = pytest.mark.skipif(not REFERENCE.is_dir(), reason=f"needs the reference checkpoints in {REFERENCE}")
EXACT = {"rtol": 0, "atol": 2e-5}
FORMATS = {"bart": SequenceFormat(), "pegasus": PEGASUS_FORMAT}
HF_ENDS = {"bart": {"pad": 1, "eos": 2, "start": 2}, "pegasus": {"pad": 0, "eos": 1, "start": 0}}


@lru_cache
def short_pair(family: str) -> tuple[nn.Module, Tensor, nn.Module]:
    """This package's model, the dictionary row of each Hugging Face id, and transformers' model, of one checkpoint.

    Without global tokens, and for sources of up to two blocks, an LSG model is the short model it was made from; the
    configuration does not allow none, so they are taken away behind its back.
    """
    model, rows = build_lsg_model(f"{family}_n1024_short", {})
    object.__setattr__(model.encoder.lsg_config, "num_global_tokens", 0)
    return model, rows, open_transformers_model(f"{family}_n1024_short")


def hf_batch(family: str, *lengths: int) -> tuple[Tensor, Tensor]:
    """Ids (B,T) of random documents that end in `</s>`, and their mask."""
    ids = torch.full((len(lengths), max(lengths)), HF_ENDS[family]["pad"])
    for row, length in zip(ids, lengths, strict=True):
        row[:length] = torch.randint(110, 330, (length,), generator=torch.Generator().manual_seed(length))
        row[length - 1] = HF_ENDS[family]["eos"]
    return ids, ids.ne(HF_ENDS[family]["pad"]).long()


def fairseq_sources(ids: Tensor, mask: Tensor, rows: Tensor) -> Tensor:
    return rows[ids].masked_fill(mask.eq(0), 1)


@needs_reference
@pytest.mark.parametrize("family", FAMILIES)
def test_short_models_equal_transformers(family: str) -> None:
    model, rows, hf_model = short_pair(family)
    ids, mask = hf_batch(family, 50, 17)
    previous = torch.tensor([[HF_ENDS[family]["start"], 200, 150], [HF_ENDS[family]["start"], 300, 120]])
    with torch.no_grad():
        expected = hf_model(input_ids=ids, attention_mask=mask, decoder_input_ids=previous)
        encoded = model.encoder(fairseq_sources(ids, mask, rows))
        output = model.decoder(rows[previous], encoder_out=encoded)
        log_probs = model.get_normalized_probs(output, log_probs=True)
    encoder_out = encoded["encoder_out"][0].transpose(0, 1)
    torch.testing.assert_close(encoder_out[mask.bool()], expected.encoder_last_hidden_state[mask.bool()], **EXACT)
    torch.testing.assert_close(log_probs[..., rows], expected.logits.log_softmax(-1), rtol=0, atol=1e-4)
    torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(2, 3))
    if family == "pegasus":
        assert log_probs[..., 1].exp().eq(0).all()


@needs_reference
@pytest.mark.parametrize("family", FAMILIES)
def test_teacher_forced_loss_equals_transformers(family: str, tmp_path: Path) -> None:
    """The task makes the decoder's input; both sides see the same documents and summaries."""
    model, rows, hf_model = short_pair(family)
    dictionary = model.encoder.dictionary
    task = LSGSummarizationTask(
        LSGSummarizationConfig(data=str(tmp_path), num_batch_buckets=0, required_seq_len_multiple=1),
        dictionary,
        dictionary,
    )
    task.sequence_format = FORMATS[family]
    contents = [(torch.arange(120, 150), torch.arange(200, 206)), (torch.arange(140, 150), torch.arange(180, 189))]
    ends = HF_ENDS[family]
    bos = [torch.tensor([0])] if family == "bart" else []
    ids, labels = (
        nn.utils.rnn.pad_sequence(
            [torch.cat([*bos, pair[side], torch.tensor([ends["eos"]])]) for pair in contents], True, ends["pad"]
        )
        for side in (0, 1)
    )
    sides = [[torch.cat([rows[pair[side]], torch.tensor([2])]) for pair in contents] for side in (0, 1)]
    data = [part for side in sides for part in (ListDataset(side, list(map(len, side))), list(map(len, side)))]
    dataset = task._formatted(
        LanguagePairDataset(data[0], data[1], dictionary, data[2], data[3], dictionary), Origin("train", HEAD)
    )
    sample = dataset.collater([dataset[0], dataset[1]])
    assert sample["net_input"]["prev_output_tokens"][:, 0].eq(dictionary.index(FORMATS[family].decoder_start)).all()
    with torch.no_grad():
        log_probs = model.get_normalized_probs(model(**sample["net_input"]), log_probs=True)
        targets = sample["target"]
        loss = nn.functional.nll_loss(log_probs.flatten(0, 1), targets.flatten(), ignore_index=1)
        masked = labels.masked_fill(labels.eq(ends["pad"]), -100)
        expected = hf_model(input_ids=ids, attention_mask=ids.ne(ends["pad"]).long(), labels=masked).loss
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-5)


@needs_reference
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("beam", [1, 3])
@pytest.mark.parametrize(
    ("first", "shortest"), [(None, 6), (200, 6), (None, 13)], ids=["free", "forced_first", "forced_end"]
)
def test_generation_equals_transformers(family: str, beam: int, first: int | None, shortest: int) -> None:
    """Tokens, and the scores of beam search, which include the forced first token and the forced end."""
    model, rows, hf_model = short_pair(family)
    ids, mask = hf_batch(family, 50, 17, 33)
    settings = {"min_length": shortest, "max_length": 14, "length_penalty": 1.5, "no_repeat_ngram_size": 2}
    settings |= {"num_beams": beam, "early_stopping": beam > 1, "do_sample": False, "forced_bos_token_id": first}
    settings |= {"forced_eos_token_id": HF_ENDS[family]["eos"], "bad_words_ids": [[1]] if family == "bart" else None}
    expected = hf_model.generate(
        input_ids=ids, attention_mask=mask, **settings, return_dict_in_generate=True, output_scores=True
    )
    generator = LSGSequenceGenerator(
        [model],
        model.decoder.dictionary,
        FORMATS[family].decoder_start,
        forced_first_token=None if first is None else int(rows[first]),
        forced_last_token=2,
        beam_size=beam,
        min_len=shortest - 1,
        max_len_b=12,
        len_penalty=1.5,
        no_repeat_ngram_size=2,
    )
    found = generator.generate([model], {"net_input": {"src_tokens": fairseq_sources(ids, mask, rows)}})
    for (best, *_), sequence in zip(found, expected.sequences, strict=True):
        assert rows[sequence][1 : len(best["tokens"]) + 1].tolist() == best["tokens"].tolist()
    if beam > 1:
        scores = torch.stack([best["score"] for best, *_ in found])
        torch.testing.assert_close(scores, expected.sequences_scores, rtol=0, atol=1e-5)


@pytest.mark.parametrize("arch", ["lsg_bart_small", "lsg_pegasus_small"])
def test_beams_share_their_source(arch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sharing one encoder output among beams gives what a copy for each beam gives."""
    model = build_model(arch)
    sample = {"net_input": {"src_tokens": random_tokens(60, 33, 12)}}
    options = {"beam_size": 4, "max_len_b": 10}
    shared = LSGSequenceGenerator([model], model.decoder.dictionary, **options).generate([model], sample)
    monkeypatch.setattr(type(model), "set_beam_size", lambda *_: None)
    copied = LSGSequenceGenerator([model], model.decoder.dictionary, **options).generate([model], sample)
    for left, right in zip(chain(*shared), chain(*copied), strict=True):
        assert left["tokens"].tolist() == right["tokens"].tolist()
        torch.testing.assert_close(left["score"], right["score"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_padding_takes_no_probability_and_smoothing_stays_finite(dtype: torch.dtype) -> None:
    model = build_model("lsg_pegasus_small").to(dtype)
    tokens = random_tokens(40, 25)
    output = model(tokens, None, tokens[:, :6])
    assert model.get_normalized_probs(output, log_probs=False)[..., 1].eq(0).all()
    log_probs = model.get_normalized_probs(output, log_probs=True)
    assert log_probs[..., 1].exp().eq(0).all()
    others = torch.cat([output[0][..., :1], output[0][..., 2:]], dim=-1).float().log_softmax(-1)
    torch.testing.assert_close(log_probs[..., 2:].float(), others[..., 1:], rtol=0, atol=1e-6)
    target = tokens[:, 1:7]
    pairs = [(log_probs, target), (others, target - 1)]  # no `<s>` and no padding among these
    losses = [label_smoothed_nll_loss(p, t, 0.1, ignore_index=None)[0].sum() for p, t in pairs]
    assert torch.isfinite(losses[0])
    # One more word of the lowest log-probability, and nothing that hides the loss.
    assert abs(losses[0] - losses[1]) < 0.1 / 60 * 12 * 150
    losses[0].backward()
    assert model.decoder.output_projection.weight.grad[1].eq(0).all()


@pytest.mark.parametrize("training", [False, True])
def test_activations_beyond_float16_stay_finite(training: bool) -> None:
    """Weights scaled until float32 passes 65,504: float16 saturates, and gives neither infinity nor NaN."""
    model = build_model("lsg_pegasus_small", dropout=0.3, activation_dropout=0.1)
    for layer in (*model.encoder.layers, *model.decoder.layers):
        layer.fc1.weight.data *= 100
        layer.fc2.weight.data *= 10000
    tokens = random_tokens(60, 33)
    largest = model.encoder(tokens, return_all_hiddens=True)["encoder_states"][-1].abs().max()
    assert largest > 65504
    half = model.half().train(training)
    states = half.encoder(tokens, return_all_hiddens=True)["encoder_states"]
    assert max(state.abs().max() for state in states) > 60000
    logits, _ = half(tokens, None, tokens[:, :8])
    assert torch.isfinite(logits).all()
    logits.float().logsumexp(-1).mean().backward()
    gradients = [p.grad for p in half.parameters() if p.grad is not None]
    assert not any(gradient.isnan().any() for gradient in gradients)


def test_positions_do_not_depend_on_padding_or_steps() -> None:
    table = pegasus_sinusoids(20, 6)
    positions = PegasusPositionalEmbedding(table, padding_idx=1)
    assert positions.max_positions == 20
    assert torch.equal(positions(torch.tensor([[1, 1, 7, 8, 9]]))[0, 2:], table[:3])
    assert torch.equal(positions(torch.tensor([[7, 8, 1, 1]]))[0, :2], table[:2])
    assert torch.equal(positions(torch.tensor([[7, 8, 9]]), incremental_state={})[0, 0], table[2])
    # Padding behind the end of the table takes no row of its own.
    assert positions(torch.tensor([[7] * 20 + [1] * 9])).shape == (1, 29, 6)


def test_large_has_the_sizes_of_pegasus_large() -> None:
    args = SimpleNamespace(dropout=None)
    ARCH_CONFIG_REGISTRY["lsg_pegasus_large"](args)
    assert (args.encoder_layers, args.decoder_layers, args.encoder_ffn_embed_dim) == (16, 16, 4096)
    assert (args.max_source_positions, args.max_target_positions) == (4096, 1024)
    model = build_model("lsg_pegasus_small")
    weights = model.encoder.layers[0].fc1.weight
    assert math.isclose(weights.std().item(), math.hypot(0.02, 0.05), rel_tol=0.1)  # build_model adds noise of 0.05
    assert model.encoder.layer_norm is not None
    assert model.encoder.layernorm_embedding is None
    assert model.encoder.embed_scale == math.sqrt(32)
