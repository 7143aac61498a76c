"""Alignments: source positions are those of the source's own tokens, whatever stands in front of them."""

from __future__ import annotations

from argparse import Namespace
from types import SimpleNamespace

import pytest
import torch
from fairseq.sequence_generator import SequenceGeneratorWithAlignment
from fairseq.utils import extract_hard_alignment
from torch import Tensor, nn

from lsg_fairseq.alignment import AligningSequenceGenerator, SoftScorer
from lsg_fairseq.generation import LSGSequenceGenerator
from recipes.tiny_models import build_dictionary, build_model, random_tokens

LENGTHS = (40, 17, 29)
PAD, EOS = 1, 2


def on_the_left(tokens: Tensor) -> Tensor:
    return torch.stack([row.roll(int(row.eq(PAD).sum())) for row in tokens])


def sample_of(source: Tensor) -> dict[str, object]:
    return {"net_input": {"src_tokens": source, "src_lengths": source.ne(PAD).sum(1)}}


def depend_on_source(model: nn.Module) -> None:
    """Random weights that end outputs, and at a length that differs between sources."""
    model.decoder.final_logits_bias[:, EOS] = 0.5
    for layer in model.decoder.layers:
        for projection in (layer.encoder_attn.q_proj, layer.encoder_attn.v_proj, layer.encoder_attn.out_proj):
            projection.weight.data.mul_(8)


def forced_attention(model: nn.Module, source: Tensor, output: Tensor) -> Tensor:
    """(T,T0) attention of a decoder that reads one output behind BART's `</s>`, from the weights of its last layer."""
    seen = []
    hook = model.decoder.layers[-1].encoder_attn.register_forward_hook(lambda _, inputs, result: seen.append(result[1]))
    with torch.no_grad():
        model(source[None], None, torch.cat([output.new_tensor([EOS]), output[:-1]])[None])
    hook.remove()
    weights = seen[0].mean(0)[0]  # over heads, of the only row
    assert weights.size(1) == model.decoder.num_global_rows + len(source)
    return weights[:, model.decoder.num_global_rows :]


@pytest.mark.parametrize("num_globals", [1, 5, 64])
@pytest.mark.parametrize("passed", [True, False])
def test_columns_are_the_source_tokens(num_globals: int, passed: bool) -> None:
    model = build_model(lsg_num_global_tokens=num_globals, lsg_pass_global_tokens_to_decoder=passed)
    source, output = random_tokens(*LENGTHS), random_tokens(7, 7, 7, seed=1)
    with torch.no_grad():
        right = model(source, None, output)[1]["attn"][0]
        left = model(on_the_left(source), None, output)[1]["attn"][0]
    assert right.shape == (3, 7, 40)
    for index, length in enumerate(LENGTHS):
        torch.testing.assert_close(left[index, :, 40 - length :], right[index, :, :length])
        assert not right[index, :, length:].any()
        assert not left[index, :, : 40 - length].any()


@pytest.mark.parametrize("generator_class", [AligningSequenceGenerator, SequenceGeneratorWithAlignment])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("num_globals", [1, 5])
def test_generated_alignments_are_those_of_a_decoder_that_reads_the_output(
    generator_class: type, side: str, num_globals: int
) -> None:
    """With beams, and sources that finish at different steps and so leave the batch."""
    model = build_model(lsg_num_global_tokens=num_globals)
    depend_on_source(model)
    source = random_tokens(*LENGTHS)
    if generator_class is SequenceGeneratorWithAlignment:  # the task `translation`: the command asks the model
        model.prepare_for_inference_(Namespace(generation=Namespace(print_alignment="hard", beam=2)))
    generator = generator_class([model], build_dictionary(), beam_size=2, max_len_b=9)
    outputs = generator.generate([model], sample_of(on_the_left(source) if side == "left" else source))
    model.set_beam_size(1)
    assert len({min(len(hypothesis["tokens"]) for hypothesis in found) for found in outputs}) > 1
    for row, length, found in zip(source, LENGTHS, outputs, strict=True):
        for hypothesis in found:
            expected = forced_attention(model, row[:length], hypothesis["tokens"])
            first = 40 - length if side == "left" else 0
            recorded = hypothesis["attention"][first : first + length].T
            torch.testing.assert_close(recorded, expected, atol=1e-5, rtol=1e-4)
            alignment = extract_hard_alignment(expected.clone(), row[:length], hypothesis["tokens"], PAD, EOS)
            assert hypothesis["alignment"] == alignment


def test_weights_are_computed_only_when_asked_for() -> None:
    model, source = build_model(), random_tokens(*LENGTHS)
    seen: list[bool] = []
    model.decoder.layers[-1].encoder_attn.register_forward_hook(lambda _, i, result: seen.append(result[1] is not None))

    def generate(generator_class: type) -> set[bool]:
        seen.clear()
        generator_class([model], build_dictionary(), beam_size=2, max_len_b=4).generate([model], sample_of(source))
        return set(seen)

    assert generate(LSGSequenceGenerator) == {False}
    assert generate(AligningSequenceGenerator) == {True}
    assert generate(LSGSequenceGenerator) == {False}


def test_alignment_changes_no_output() -> None:
    model, source = build_model(), random_tokens(*LENGTHS)
    plain, aligning = (
        kind([model], build_dictionary(), beam_size=3, max_len_b=8).generate([model], sample_of(source))
        for kind in (LSGSequenceGenerator, AligningSequenceGenerator)
    )
    for one, other in zip(plain, aligning, strict=True):
        assert [h["tokens"].tolist() for h in one] == [h["tokens"].tolist() for h in other]
        torch.testing.assert_close(one[0]["score"], other[0]["score"])


@pytest.mark.parametrize("source_length", [12, 40])
def test_soft_alignments_are_probabilities_of_the_source(source_length: int) -> None:
    model, source = build_model(lsg_num_global_tokens=3), random_tokens(source_length)
    soft = AligningSequenceGenerator([model], build_dictionary(), print_alignment="soft", beam_size=2, max_len_b=5)
    [[best, *_]] = soft.generate([model], sample_of(source))
    assert [len(row) for row in best["alignment"]] == [source_length] * len(best["tokens"])
    assert all(isinstance(probability, str) for row in best["alignment"] for probability in row)
    target = random_tokens(6, seed=1)
    sample = sample_of(source) | {"target": target}
    sample["net_input"]["prev_output_tokens"] = target.roll(1, 1)
    [[scored]] = SoftScorer(build_dictionary(), compute_alignment=True).generate([model], sample)
    assert [len(row) for row in scored["alignment"]] == [source_length] * 6


def test_a_stock_model_in_the_ensemble_needs_no_switch() -> None:
    from fairseq.models.bart import BARTModel
    from fairseq.models.bart.model import bart_base_architecture

    from recipes.tiny_models import TINY_SIZES

    args = Namespace(**TINY_SIZES, max_source_positions=64)
    bart_base_architecture(args)
    dictionary = build_dictionary()
    stock = BARTModel.build_model(args, SimpleNamespace(source_dictionary=dictionary, target_dictionary=dictionary))
    models = [build_model(), stock.eval()]
    generator = AligningSequenceGenerator(models, dictionary, beam_size=2, max_len_b=4)
    [[best, *_]] = generator.generate(models, sample_of(random_tokens(20)))
    assert best["attention"].size(0) == 20
