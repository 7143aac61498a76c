"""A checkpoint gets its own tokenizer and dictionary, is never more than it may be, and says what is wrong with it."""

from __future__ import annotations

import json
import logging
import shutil
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from encoder_models import write_tokenizer
from fairseq import checkpoint_utils
from hub_checkpoints import lively_copy
from safetensors.torch import load_file, save_file

from lsg_fairseq import hub
from lsg_fairseq.checkpoints.averaging import average_checkpoints
from lsg_fairseq.checkpoints.convert import convert_checkpoint
from lsg_fairseq.checkpoints.export import export_checkpoint
from lsg_fairseq.checkpoints.ready import cache_folder
from lsg_fairseq.compat.loading import load_checkpoint_file
from lsg_fairseq.hub.entries import from_checkpoint
from lsg_fairseq.modules.lsg_config import LSGConfig, LSGError
from lsg_fairseq.tokenizers.fairseq_bpe import dictionary_fingerprint, load_tokenizer
from lsg_fairseq.weights.limits import MAX_POSITIONS, check_sizes, first_names
from lsg_fairseq.weights.state_dicts import check_kind, check_values


@pytest.fixture(scope="module")
def converted(corpus: Path, checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trust")
    trained = lively_copy(checkpoints, folder / "trained")
    convert_checkpoint(trained / "checkpoint_best.pt", folder / "converted", tokenizer=corpus / "tokenizer")
    return folder / "converted"


@pytest.fixture(scope="module")
def exported(converted: Path) -> Path:
    export_checkpoint(converted, converted.parent / "hf")
    return converted.parent / "hf"


def changed(folder: Path, out: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of a folder with another content in its checkpoint file."""
    shutil.copytree(folder, out)
    path = next(out.glob("*.pt"))
    state = load_checkpoint_file(str(path))
    change(state)
    torch.save(state, path)
    return out


def swap_two_letters(folder: Path) -> None:
    """Make tokenizer files another tokenizer's: two letters change their ids."""
    for name in ("tokenizer.json", "vocab.json"):
        content = json.loads((folder / name).read_text())
        vocab = content["model"]["vocab"] if "model" in content else content
        vocab["c"], vocab["a"] = vocab["a"], vocab["c"]
        (folder / name).write_text(json.dumps(content))


# --- its own tokenizer ----------------------------------------------------------------------------------------------


def test_tokenizers_of_one_name_are_told_apart(
    exported: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for project in "ab":
        shutil.copytree(corpus / "tokenizer", tmp_path / project / "tok")
    swap_two_letters(tmp_path / "b" / "tok")
    ids = []
    for project in "ab":
        monkeypatch.chdir(tmp_path / project)
        ids.append(hub.lsg_bart_base(exported, tokenizer="tok").encode("ca").tolist())
    swap_two_letters(tmp_path / "b" / "tok")  # edited in place
    ids.append(hub.lsg_bart_base(exported, tokenizer="tok").encode("ca").tolist())
    assert ids[0] == ids[2] != ids[1]


@pytest.mark.parametrize("save_dir", ["runs/one", "elsewhere"])
def test_a_relative_data_folder_is_the_projects_own(
    save_dir: str, converted: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "a" / "runs" / "one" / "checkpoint_best.pt"
    model.parent.mkdir(parents=True)
    state = load_checkpoint_file(str(converted / "model.pt"))
    state["cfg"]["task"]["data"], state["cfg"]["checkpoint"]["save_dir"] = "data", save_dir
    torch.save(state, model)
    home = tmp_path / "a" if save_dir == "runs/one" else model.parent
    shutil.copytree(corpus, home / "data")
    shutil.copytree(corpus, tmp_path / "b" / "data")
    swap_two_letters(tmp_path / "b" / "data" / "tokenizer")
    monkeypatch.chdir(tmp_path / "b")
    assert hub.lsg_bart_base(model).tokenizer.files[0].is_relative_to(home)


def test_another_dictionary_is_refused(converted: Path, tmp_path: Path) -> None:
    shutil.copytree(converted, tmp_path / "model")
    for path in (tmp_path / "model").glob("dict*.txt"):
        lines = path.read_text().splitlines(keepends=True)
        lines[5], lines[6] = lines[6], lines[5]
        path.write_text("".join(lines))
    with pytest.raises(LSGError, match=r"is not the one that .*model\.pt was trained with"):
        hub.lsg_bart_base(tmp_path / "model")


def test_a_tokenizer_of_other_pieces_is_refused(converted: Path, tmp_path: Path) -> None:
    """The dictionary beside the checkpoint is its own, but every text would be unknown."""
    write_tokenizer("bert", tmp_path)
    with pytest.raises(LSGError, match=r"lacks pieces that .* was trained with"):
        hub.lsg_bart_base(converted, tokenizer=tmp_path)


def test_an_older_checkpoint_is_checked_by_size_and_order(
    converted: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = changed(converted, tmp_path / "model", lambda state: state.update(task_state={}))
    with caplog.at_level(logging.INFO, "lsg_fairseq"):
        hub.lsg_bart_base(folder)
    assert [m for m in caplog.messages if "does not say which dictionary it was trained with" in m] != []
    for path in folder.glob("dict*.txt"):
        path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    with pytest.raises(LSGError, match="in another order"):
        hub.lsg_bart_base(folder)


def test_training_stores_its_dictionary(checkpoints: Path, corpus: Path) -> None:
    state = load_checkpoint_file(str(checkpoints / "checkpoint_best.pt"))
    lsg = hub.lsg_bart_base(checkpoints)
    assert state["task_state"]["dictionary"] == dictionary_fingerprint(lsg.task.source_dictionary)
    with pytest.raises(LSGError, match="not the one that the checkpoint was trained with"):
        lsg.task.load_state_dict({"dictionary": "another"})
    assert load_tokenizer(corpus / "tokenizer").tokens


# --- the cache ------------------------------------------------------------------------------------------------------


def test_one_conversion_for_all_lengths_that_it_has(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for length in (None, 512, 1024):
        hub.lsg_bart_base(exported, max_source_positions=length)
    assert len(list(cache_folder().glob("*/model.pt"))) == 1
    hub.lsg_bart_base(exported, max_source_positions=2048)
    assert len(list(cache_folder().glob("*/model.pt"))) == 2


def test_a_cut_file_in_the_cache_is_made_again(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    before = hub.lsg_bart_base(exported).summarize("a cat", max_len_b=4)
    (model,) = cache_folder().glob("*/model.pt")
    model.write_bytes(model.read_bytes()[:5000])
    assert hub.lsg_bart_base(exported).summarize("a cat", max_len_b=4) == before


# --- sizes and values -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [("decoder_layers", 2**31), ("encoder_layers", 10**9), ("max_source_positions", 10**9), ("encoder_embed_dim", "x")],
)
def test_sizes_are_checked_before_memory_is_taken(name: str, value: Any, converted: Path, tmp_path: Path) -> None:
    def change(state: dict[str, Any]) -> None:
        model = state["cfg"]["model"]
        setattr(model, name, value) if isinstance(model, Namespace) else model.__setitem__(name, value)

    folder = changed(converted, tmp_path / "model", change)
    with pytest.raises(LSGError, match=f"{name} must be an integer from"):
        hub.lsg_bart_base(folder)


@pytest.mark.parametrize(
    ("name", "value"), [("lsg_sparsity_type", "x"), ("lsg_block_size", "16"), ("dropout", 7), ("encoder_layers", 10**6)]
)
def test_settings_are_checked_before_they_are_written(name: str, value: Any, converted: Path, tmp_path: Path) -> None:
    def change(state: dict[str, Any]) -> None:
        arguments = state["cfg"]["model"]
        (vars(arguments) if isinstance(arguments, Namespace) else arguments)[name] = value

    bad = changed(converted, tmp_path / "bad", change)
    for write in (export_checkpoint, convert_checkpoint):
        with pytest.raises(LSGError, match=name.removeprefix("lsg_")):
            write(bad, tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_sizes_of_a_hugging_face_folder_and_of_a_flag(exported: Path, tmp_path: Path) -> None:
    shutil.copytree(exported, tmp_path / "hf")
    config = json.loads((exported / "config.json").read_text())
    (tmp_path / "hf" / "config.json").write_text(json.dumps({**config, "decoder_layers": 2**31}))
    with pytest.raises(LSGError, match="decoder_layers must be an integer from 0 to 1,024, not 2147483648"):
        convert_checkpoint(tmp_path / "hf", tmp_path / "out")
    for length in (0, 10**9):
        with pytest.raises(LSGError, match=f"max_source_positions must be an integer from 8 to {MAX_POSITIONS:,}"):
            convert_checkpoint(exported, tmp_path / "out", max_source_positions=length)
    with pytest.raises(LSGError, match="at most 100"):
        LSGConfig(lsh_num_pre_rounds=10**9)
    check_sizes({"encoder_layers": 3, "max_positions": None})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_not_blamed_on_the_disk(value: float, exported: Path, tmp_path: Path) -> None:
    shutil.copytree(exported, tmp_path / "hf")
    weights = load_file(exported / "model.safetensors")
    name = next(key for key in weights if key.endswith("encoder.layers.0.fc1.weight"))
    weights[name].view(-1)[3] = value
    save_file(weights, tmp_path / "hf" / "model.safetensors", {"format": "pt"})
    with pytest.raises(LSGError, match=r"has NaN or infinite values in encoder\.layers\.0\.fc1\.weight: its training"):
        convert_checkpoint(tmp_path / "hf", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(2, dtype=torch.int64),
        torch.zeros(2, dtype=torch.bool),
        torch.zeros(2, dtype=torch.complex64),
        torch.zeros(2, 2).to_sparse(),
        torch.quantize_per_tensor(torch.zeros(2), 0.1, 0, torch.qint8),
        torch.zeros(2, device="meta"),
        "text",
    ],
    ids=["int", "bool", "complex", "sparse", "quantised", "meta", "text"],
)
def test_weights_are_dense_floating_point_numbers(tensor: Any) -> None:
    with pytest.raises(LSGError, match=r"w holds|w is not a tensor|w has a shape and no numbers"):
        check_kind("w", tensor)
    check_values({"w": torch.ones(1), "decoder.final_logits_bias": torch.tensor([-float("inf")])}, "x")


def test_weights_that_fit_no_model_are_one_sentence(converted: Path) -> None:
    """In fairseq's commands, which load them into a model, and in lsg-average."""
    model = hub.lsg_bart_base(converted).model
    name = "encoder.layers.0.fc1.weight"
    weight = model.state_dict()[name]
    for bad, said in (
        (weight.to("meta"), "has a shape and no numbers"),
        (weight.to_sparse(), "sparse"),
        (weight[:, :3], "the weights do not fit the model"),
    ):
        with pytest.raises(LSGError, match=said):
            model.load_state_dict({**model.state_dict(), name: bad})
    model.load_state_dict(model.state_dict())


def test_weights_without_numbers_have_no_mean(converted: Path, tmp_path: Path) -> None:
    def change(state: dict[str, Any]) -> None:
        name = next(iter(state["model"]))
        state["model"][name] = state["model"][name].to("meta")

    path = changed(converted, tmp_path / "bad", change) / "model.pt"
    with pytest.raises(LSGError, match="has a shape and no numbers"):
        average_checkpoints([path, path], tmp_path / "mean.pt")
    assert not (tmp_path / "mean.pt").exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"activation_fn": "x"}, "fairseq can build no model of these settings .*x not supported"),
        ({"decoder_input_dim": None}, "fairseq can build no model of these settings"),
        ({"adaptive_softmax_cutoff": [1]}, "the weights do not fit the model"),
        ({"base_layers": 3}, "--base-layers 3 has no place here"),
        ({"quant_noise_scalar": "x"}, "--quant-noise-scalar 'x' has no place here"),
        ({"encoder_normalize_before": "False"}, "encoder_normalize_before must be true or false"),
        ({"arch": {"x": 1}}, "states arch as {'x': 1}, not as a name"),
        ({"arch": "lsg_roberta_base", "_name": "lsg_roberta_base"}, "lsg_roberta_base and no max_positions"),
    ],
)
def test_settings_of_no_model_are_one_sentence(
    settings: dict[str, Any], said: str, converted: Path, tmp_path: Path
) -> None:
    def change(state: dict[str, Any]) -> None:
        arguments = state["cfg"]["model"]
        (vars(arguments) if isinstance(arguments, Namespace) else arguments).update(settings)

    folder = changed(converted, tmp_path / "model", change)
    with pytest.raises(LSGError, match=said):
        from_checkpoint(folder)


def test_names_are_few(exported: Path, tmp_path: Path) -> None:
    assert first_names(range(7)) == "0, 1, 2, 3, 4 and 2 more"
    shutil.copytree(exported, tmp_path / "hf")
    save_file({f"x{i}": torch.zeros(1) for i in range(3000)}, tmp_path / "hf" / "model.safetensors", {"format": "pt"})
    with pytest.raises(LSGError) as raised:
        convert_checkpoint(tmp_path / "hf", tmp_path / "out")
    assert len(str(raised.value)) < 1500


# --- parts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "value", "said"),
    [
        ("model", None, "has no 'model'"),
        ("model", {"w": 1}, "'model' must hold named tensors"),
        ("args", 7, "its args is 7, not named arguments"),
        ("cfg", {"model": [1]}, "its cfg.model is"),
        ("task_state", ["x"], "its task_state is"),
        ("extra_state", "x", "its extra_state is 'x'"),
        ("extra_state", torch.zeros(2), "its extra_state is tensor"),
        ("extra_state", Namespace(x=1), "its extra_state is Namespace"),
        ("cfg", {"model": torch.zeros(2)}, "its cfg.model is tensor"),
        ("extra_state", {"train_iterator": 7}, "its place in the training as 7"),
        ("extra_state", {"train_iterator": {"epoch": -1}}, "its place in the training as"),
        ("optimizer_history", [7], "its optimizer_history is"),
        ("optimizer_history", [], "lacks a part that fairseq reads"),
        ("cfg", "gone", "lacks a part|named arguments"),
    ],
)
def test_parts_are_what_they_are_taken_for(part: str, value: Any, said: str, checkpoints: Path, tmp_path: Path) -> None:
    state = load_checkpoint_file(str(checkpoints / "checkpoint_best.pt"))
    torch.save({**state, part: value}, tmp_path / "model.pt")
    with pytest.raises(LSGError, match=rf"model\.pt (is|states|lacks) .*{said}|model\.pt {said}"):
        checkpoint_utils.load_checkpoint_to_cpu(str(tmp_path / "model.pt"))


# --- calls of the hub -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"checkpoint": 0}, "checkpoint must be a path or a name, not 0"),
        ({"tokenizer": 513}, "tokenizer must be a path or a name, not 513"),
        ({"revision": b"x"}, "revision must be a name"),
        ({"checkpoint": "/etc/passwd"}, "/etc/passwd is (not a checkpoint|damaged)"),
        ({"max_source_positions": 10**9}, "max_source_positions must be an integer from 8 to"),
    ],
)
def test_wrong_arguments_are_one_sentence(settings: dict[str, Any], message: str, converted: Path) -> None:
    with pytest.raises(LSGError, match=message):
        hub.lsg_bart_base(**{"checkpoint": converted, **settings})


@pytest.mark.parametrize(
    ("name", "content"),
    [("config.json", b""), ("config.json", b"[]"), ("config.json", b'{"\xe9": 1}'), ("config.json", b'{"model_type"')],
)
def test_a_damaged_configuration_is_one_sentence(name: str, content: bytes, exported: Path, tmp_path: Path) -> None:
    shutil.copytree(exported, tmp_path / "hf")
    (tmp_path / "hf" / name).write_bytes(content)
    with pytest.raises(LSGError, match=r"config\.json"):
        hub.lsg_bart_base(tmp_path / "hf")


@pytest.mark.parametrize("setting", [{"architectures": 7}, {"task_specific_params": ["x"]}])
def test_wrong_types_in_a_configuration(setting: dict[str, Any], exported: Path, tmp_path: Path) -> None:
    shutil.copytree(exported, tmp_path / "hf")
    config = json.loads((exported / "config.json").read_text())
    (tmp_path / "hf" / "config.json").write_text(json.dumps({**config, **setting}))
    with pytest.raises(LSGError, match=f"config.json must state {next(iter(setting))} as"):
        hub.lsg_bart_base(tmp_path / "hf")
