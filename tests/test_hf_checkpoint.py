"""Reading Hugging Face folders: every layout of the weights, and one clear sentence for everything else."""

from __future__ import annotations

import json
import os
import shutil

import pytest
import torch
from reference_checkpoints import MODELS, REFERENCE, differing
from safetensors.torch import save_file

from lsg_fairseq.huggingface.read_folder import read_hf_folder
from lsg_fairseq.modules.lsg_config import LSGError

pytestmark = pytest.mark.skipif(not REFERENCE.is_dir(), reason=f"needs the reference checkpoints in {REFERENCE}")


class RunsCode:
    """Pickled, it calls os.mkdir when it is loaded without care."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.fixture
def folder(tmp_path):
    copy = tmp_path / "model"
    shutil.copytree(REFERENCE / "models" / "bart_lsg", copy)
    return copy


@pytest.fixture
def tensors(folder):
    return dict(read_hf_folder(folder).tensors)


def change_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def write_shards(folder, tensors, suffix):
    """Replace the weights by two shards and their index; returns the index path."""
    (folder / "model.safetensors").unlink()
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    save = save_file if suffix == "safetensors" else torch.save
    names = sorted(tensors)
    weight_map = {}
    for number, part in enumerate((names[:20], names[20:]), start=1):
        shard = f"{stem}-0000{number}-of-00002.{suffix}"
        save({name: tensors[name] for name in part}, folder / shard)
        weight_map |= dict.fromkeys(part, shard)
    index = folder / f"{stem}.{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return index


def refused(folder):
    """Return the message of the error that reading this folder raises: one line."""
    with pytest.raises(LSGError) as error:
        read_hf_folder(folder)
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", MODELS)
def test_reference_folders(name):
    checkpoint = read_hf_folder(REFERENCE / "models" / name)
    assert checkpoint.config["model_type"] in name
    assert checkpoint.generation_config["decoder_start_token_id"] == checkpoint.config["decoder_start_token_id"]
    assert checkpoint.tensors["model.shared.weight"].shape[0] == checkpoint.config["vocab_size"]


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_shards(folder, tensors, suffix):
    write_shards(folder, tensors, suffix)
    assert differing(dict(read_hf_folder(folder).tensors), tensors) == []


@pytest.mark.parametrize("zipped", [True, False])
def test_pickled_weights_of_both_formats(folder, tensors, zipped):
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    assert differing(dict(read_hf_folder(folder).tensors), tensors) == []


def test_shards_of_the_download_cache_may_be_links(folder, tensors, tmp_path):
    write_shards(folder, tensors, "safetensors")
    shard = folder / "model-00001-of-00002.safetensors"
    blob = tmp_path / "blob"
    shard.rename(blob)
    shard.symlink_to(blob)
    assert differing(dict(read_hf_folder(folder).tensors), tensors) == []


def test_safetensors_are_preferred(folder, tensors):
    torch.save({"other": torch.zeros(1)}, folder / "pytorch_model.bin")
    assert "other" not in read_hf_folder(folder).tensors
    assert len(read_hf_folder(folder).tensors) == len(tensors)


def test_generation_config_may_be_missing(folder):
    (folder / "generation_config.json").unlink()
    assert read_hf_folder(folder).generation_config == {}


def test_no_folder(tmp_path):
    assert "is not a folder" in refused(tmp_path / "nothing")


def test_a_folder_that_is_no_checkpoint(tmp_path):
    assert "has no config.json" in refused(tmp_path)


@pytest.mark.parametrize("content", ["{", "", "\xff", "[1]", "null", "[" * 100000])
def test_config_that_is_no_json_object(folder, content):
    (folder / "config.json").write_text(content, encoding="latin-1")
    assert "config.json" in refused(folder)


@pytest.mark.parametrize("model_type", ["t5", "albert", "xlm-roberta-xl", "bigbird_pegasus", 3, ["bart"]])
def test_other_model_types(folder, model_type):
    change_config(folder, model_type=model_type)
    message = refused(folder)
    assert repr(model_type) in message
    assert "bart, pegasus, mbart, bert, distilbert, electra, roberta, camembert or xlm-roberta" in message


def test_no_weights(folder):
    (folder / "model.safetensors").unlink()
    assert "has no weights" in refused(folder)


@pytest.mark.parametrize("keep", [0, 4, 100, 5000, -1])
def test_truncated_safetensors(folder, keep):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    message = refused(folder)
    assert "model.safetensors is damaged or truncated" in message


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_missing_shard(folder, tensors, suffix):
    index = write_shards(folder, tensors, suffix)
    name = sorted(set(json.loads(index.read_text())["weight_map"].values()))[1]
    (folder / name).unlink()
    message = refused(folder)
    assert name in message
    assert "missing" in message


def test_shard_without_a_tensor_that_the_index_promises(folder, tensors):
    index = write_shards(folder, tensors, "safetensors")
    content = json.loads(index.read_text())
    content["weight_map"]["promised.weight"] = "model-00001-of-00002.safetensors"
    index.write_text(json.dumps(content))
    assert "promised.weight" in refused(folder)


@pytest.mark.parametrize(
    "outside", ["../secret.safetensors", "sub/a.safetensors", "{tmp}/secret.safetensors", "..", ""]
)
def test_index_cannot_leave_its_folder(folder, tensors, tmp_path, outside):
    index = write_shards(folder, tensors, "safetensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "secret.safetensors")
    outside = outside.format(tmp=tmp_path)
    index.write_text(json.dumps({"weight_map": {"x": outside}}))
    assert repr(outside) in refused(folder)


@pytest.mark.parametrize("content", [{}, {"weight_map": None}, {"weight_map": []}, {"weight_map": {"x": 3}}])
def test_index_without_a_map(folder, tensors, content):
    write_shards(folder, tensors, "safetensors").write_text(json.dumps(content))
    assert "weight_map" in refused(folder)


@pytest.mark.parametrize("zipped", [True, False])
def test_pickle_with_code_is_refused_and_not_run(folder, tmp_path, zipped):
    (folder / "model.safetensors").unlink()
    made = tmp_path / "made"
    path = folder / "pytorch_model.bin"
    torch.save({"x": RunsCode(made)}, path, _use_new_zipfile_serialization=zipped)
    message = refused(folder)
    assert "was refused" in message
    assert "mkdir" in message
    assert not made.exists()


@pytest.mark.parametrize("content", [[torch.zeros(1)], {"x": 3}, torch.zeros(2), {"state_dict": {"x": torch.zeros(1)}}])
def test_pickle_that_is_no_state_dict(folder, content):
    (folder / "model.safetensors").unlink()
    torch.save(content, folder / "pytorch_model.bin")
    assert "must hold named tensors" in refused(folder)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("keep", [0, 10, 3000, -30])
def test_truncated_pickle(folder, tensors, keep, zipped):
    (folder / "model.safetensors").unlink()
    path = folder / "pytorch_model.bin"
    torch.save(tensors, path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[:keep])
    assert "pytorch_model.bin" in refused(folder)
