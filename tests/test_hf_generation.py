"""Hugging Face's generation settings in fairseq's meanings."""

from __future__ import annotations

import pytest

from lsg_fairseq.huggingface.generation_config import generation_settings
from lsg_fairseq.modules.lsg_config import LSGError

BART = {"model_type": "bart", "eos_token_id": 2, "bos_token_id": 0, "decoder_start_token_id": 2}
PEGASUS = {"model_type": "pegasus", "eos_token_id": 1, "decoder_start_token_id": 0}
# facebook/bart-large-cnn's settings.
CNN = {
    "num_beams": 4,
    "length_penalty": 2.0,
    "min_length": 56,
    "max_length": 142,
    "no_repeat_ngram_size": 3,
    "early_stopping": True,
    "forced_bos_token_id": 0,
    "forced_eos_token_id": 2,
}
CNN_SETTINGS = {
    "beam": 4,
    "lenpen": 2.0,
    "min_len": 55,
    "max_len_b": 140,
    "no_repeat_ngram_size": 3,
    "forced_bos_token_id": 0,
    "forced_eos": True,
    "decoder_start_token_id": 2,
}
NOTHING_STATED = {"forced_bos_token_id": None, "forced_eos": True, "decoder_start_token_id": 2}


@pytest.mark.parametrize(
    ("config", "generation_config"),
    [
        (BART | CNN, {}),
        (BART | CNN, None),
        (BART, CNN),
        (BART | {"task_specific_params": {"summarization": CNN}}, {}),
        (BART | CNN | {"num_beams": 9, "max_length": 20}, {"num_beams": 4, "max_length": 142}),
        (BART | CNN | {"task_specific_params": {"summarization": {"min_length": 1, "num_beams": 1}}}, {}),
        (BART | CNN | {"num_beams": None, "task_specific_params": {"summarization": {"num_beams": 4}}}, {}),
    ],
)
def test_bart_large_cnn_from_wherever_it_is_stated(config, generation_config):
    assert generation_settings(config, generation_config) == (CNN_SETTINGS, [])


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ({}, {}),
        ({"min_length": 0}, {"min_len": 0}),
        ({"min_length": 1}, {"min_len": 0}),
        ({"min_new_tokens": 5}, {"min_len": 5}),
        ({"min_new_tokens": 5, "min_length": 50}, {"min_len": 5}),
        ({"max_new_tokens": 5}, {"max_len_b": 4}),
        ({"max_new_tokens": 5, "max_length": 50}, {"max_len_b": 4}),
        ({"length_penalty": 1}, {"lenpen": 1}),
        ({"length_penalty": -0.5}, {"lenpen": -0.5}),
        ({"force_bos_token_to_be_generated": True}, {"forced_bos_token_id": 0}),
        ({"force_bos_token_to_be_generated": True, "forced_bos_token_id": 7}, {"forced_bos_token_id": 7}),
        ({"decoder_start_token_id": 5}, {"decoder_start_token_id": 5}),
    ],
)
def test_translated_settings(stated, expected):
    assert generation_settings(BART, stated) == (NOTHING_STATED | expected, [])


def test_an_inner_limit_drops_the_outer_one_counted_otherwise():
    settings, _ = generation_settings(BART | {"max_new_tokens": 9, "min_new_tokens": 8}, {"max_length": 30})
    assert (settings["min_len"], settings["max_len_b"]) == (8, 28)


def test_pegasus():
    settings, notes = generation_settings(PEGASUS | {"num_beams": 8, "length_penalty": 0.8, "max_length": 256})
    assert settings == {
        "beam": 8,
        "lenpen": 0.8,
        "max_len_b": 254,
        "forced_bos_token_id": None,
        "forced_eos": True,
        "decoder_start_token_id": 0,
    }
    assert len(notes) == 1
    assert "early_stopping=False" in notes[0]


@pytest.mark.parametrize("config", [{"model_type": "bart"}, {"model_type": "pegasus"}])
def test_token_ids_that_transformers_assumes(config):
    settings, notes = generation_settings(config)
    assert settings["decoder_start_token_id"] == (2 if config["model_type"] == "bart" else 0)
    assert notes == []


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        ({"num_beams": 4, "early_stopping": False}, "early_stopping=False"),
        ({"num_beams": 4, "early_stopping": "never"}, "early_stopping='never'"),
        ({"forced_eos_token_id": None}, "forced_eos_token_id is null"),
        ({"forced_eos_token_id": 9}, "forced_eos_token_id=9"),
        ({"do_sample": True}, "do_sample=True"),
        ({"repetition_penalty": 1.2}, "repetition_penalty=1.2"),
        ({"bad_words_ids": [[3]]}, "bad_words_ids"),
    ],
)
def test_one_sentence_for_what_cannot_be_expressed(stated, words):
    _, notes = generation_settings(BART, stated)
    assert len(notes) == 1
    assert words in notes[0]


def test_neutral_values_need_no_sentence():
    neutral = {"do_sample": False, "repetition_penalty": 1.0, "num_beam_groups": 1, "early_stopping": False}
    assert generation_settings(BART, neutral | {"num_beams": 1})[1] == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_beams", 0),
        ("num_beams", "4"),
        ("num_beams", True),
        ("max_length", 1),
        ("max_new_tokens", 0),
        ("min_length", -1),
        ("no_repeat_ngram_size", 2.5),
        ("length_penalty", "1"),
    ],
)
def test_values_that_are_no_such_number(name, value):
    with pytest.raises(LSGError, match=f"{name} must be .* not {value!r}"):
        generation_settings(BART, {name: value})
