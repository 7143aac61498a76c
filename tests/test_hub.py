"""torch.hub: the entries, what a checkpoint may be, and LSGHubInterface."""

from __future__ import annotations

import itertools
import os
import pickle
import random
import re
import shutil
import subprocess
import sys
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY, SUMMARIZATION, run
from hub_checkpoints import documents_of, lively_copy
from reference_checkpoints import REFERENCE
from safetensors.torch import load_file, save_file

from lsg_fairseq import hub
from lsg_fairseq.checkpoints.export import export_checkpoint
from lsg_fairseq.hub import entries
from lsg_fairseq.hub.batches import (
    MAX_BATCH,
    MAX_BATCH_TOKENS,
    BatchedGenerator,
    BatchOptions,
    GenerationSettings,
    batches_by_length,
)
from lsg_fairseq.hub.entry_checkpoints import ENTRY_CHECKPOINTS
from lsg_fairseq.hub.summarizer import LSGHubInterface
from lsg_fairseq.modules.lsg_config import LSGConfig, LSGError
from lsg_fairseq.tokenizers.sequence_format import PEGASUS_FORMAT, SequenceFormat

SHORT = {"beam": 3, "min_len": 3, "max_len_b": 9}


@pytest.fixture(scope="session")
def trained(checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training folder whose model says different things about different documents."""
    return lively_copy(checkpoints, tmp_path_factory.mktemp("lively"))


@pytest.fixture(scope="module")
def lsg(trained: Path) -> LSGHubInterface:
    return hub.lsg_bart_base(trained)


@pytest.fixture(scope="session")
def documents(corpus: Path) -> list[str]:
    return documents_of(corpus)


def load_in_subprocess(*arguments: str) -> subprocess.CompletedProcess[str]:
    """torch.hub.load in a process of its own, from the checkout's folder; prints one summary."""
    code = (
        "import sys, torch\n"
        f"repo, entry, checkpoint = {str(REPOSITORY)!r}, *sys.argv[1:]\n"
        "lsg = torch.hub.load(repo, entry, source='local', trust_repo=True, checkpoint=checkpoint)\n"
        "print(repr(lsg.summarize('the cat sat on a mat ' * 30, beam=2, min_len=3, max_len_b=6)))\n"
    )
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=env, cwd="/", timeout=120)


# --- entries --------------------------------------------------------------------------------------------------------


def test_list_and_help_name_every_published_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    # Both fetch a repository from GitHub first.
    monkeypatch.setattr(torch.hub, "_get_cache_or_reload", lambda *args, **kwargs: str(REPOSITORY))
    listed = torch.hub.list("owner/lsg_fairseq", trust_repo=True)
    assert set(listed) == set(ENTRY_CHECKPOINTS)
    for name, published in ENTRY_CHECKPOINTS.items():
        text = torch.hub.help("owner/lsg_fairseq", name, trust_repo=True)
        assert published.location in text
        assert "licence" in text
        assert all(f"    {field}: " in text for field in LSGConfig.__dataclass_fields__)


def test_signature_spells_every_setting_out() -> None:
    assert list(LSGConfig.__dataclass_fields__) == list(entries.SIGNATURE.parameters)[4:-2]
    assert all(getattr(hub, name).__name__ == name for name in ENTRY_CHECKPOINTS)


def test_torch_hub_load_from_elsewhere(trained: Path, lsg: LSGHubInterface) -> None:
    done = load_in_subprocess("lsg_bart_base", str(trained))
    assert done.returncode == 0, done.stderr
    expected = lsg.summarize("the cat sat on a mat " * 30, beam=2, min_len=3, max_len_b=6)
    assert done.stdout.splitlines()[-1] == repr(expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"blok_size": 64}, "no setting 'blok_size' (did you mean 'block_size'?); choose from checkpoint, tokenizer,"),
        ({"block_size": 10, "sparsity_factor": 4}, "sparsity_factor must divide block_size (10), which 4 does not"),
        ({"block_size": "64"}, "block_size must be of type int, not '64'"),
        ({"sparsity_type": "nrom"}, "sparsity_type 'nrom' is not registered; choose from block_stride"),
        ({"num_global_tokens": 513}, "num_global_tokens must be 1 to 512, not 513"),
        ({"lsg_num_pre_rounds": 1, "lsh_num_pre_rounds": 1}, "are the same LSG setting"),
        ({"attention_probs_dropout_prob": 2}, "attention_probs_dropout_prob must be a number from 0 to 1, not 2"),
        (
            {"max_source_positions": 0},
            "must be an integer from 8 to 262,144, not 0",
        ),
        ({"revision": "main"}, "revision 'main' has no meaning for"),
    ],
)
def test_wrong_settings_are_one_sentence(trained: Path, settings: dict[str, object], message: str) -> None:
    with pytest.raises(LSGError, match=re.escape(message)):
        hub.lsg_bart_base(trained, **settings)


def test_settings_replace_those_of_the_checkpoint(trained: Path) -> None:
    lsg = hub.lsg_bart_base(
        trained,
        num_global_tokens=16,
        block_size=64,
        sparse_block_size=64,
        attention_probs_dropout_prob=0.25,
        sparsity_factor=4,
        sparsity_type=None,
        lsg_num_pre_rounds=2,
        mask_first_token=True,
    )
    config = lsg.model.encoder.lsg_config
    assert config == LSGConfig(
        num_global_tokens=16, block_size=64, sparse_block_size=64, sparsity_factor=4, sparsity_type="none",
        lsh_num_pre_rounds=2, mask_first_token=True,
    )  # fmt: skip
    assert lsg.model.encoder.layers[0].self_attn.dropout == 0.25


# --- what a checkpoint may be ---------------------------------------------------------------------------------------


def test_training_folder_prefers_the_best_checkpoint(checkpoints: Path, trained: Path, tmp_path: Path) -> None:
    shutil.copy(checkpoints / "checkpoint_last.pt", tmp_path)
    last = hub.lsg_bart_base(tmp_path).model.state_dict()
    shutil.copy(trained / "checkpoint_best.pt", tmp_path)
    best = hub.lsg_bart_base(tmp_path).model.state_dict()
    expected = torch.load(trained / "checkpoint_best.pt", weights_only=False)["model"]
    assert all(torch.equal(best[name], tensor) for name, tensor in expected.items())
    assert not torch.equal(best["encoder.embed_tokens.weight"], last["encoder.embed_tokens.weight"])


def test_what_the_hub_loads_can_be_exported(trained: Path, lsg: LSGHubInterface, tmp_path: Path) -> None:
    """A training folder, whose tokenizer is in the data folder."""
    export_checkpoint(trained, tmp_path / "hf")
    again = hub.lsg_bart_base(tmp_path / "hf").model.state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in lsg.model.state_dict().items())


def test_weights_stay_tied_and_in_memory_of_their_own(trained: Path, tmp_path: Path) -> None:
    shutil.copy(trained / "checkpoint_best.pt", tmp_path)
    model = hub.lsg_bart_base(tmp_path / "checkpoint_best.pt").model
    assert model.encoder.embed_tokens.weight is model.decoder.output_projection.weight
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    # fairseq copies over checkpoint_best.pt in place while it trains.
    (tmp_path / "checkpoint_best.pt").write_bytes(b"")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_tokenizer_can_be_named(corpus: Path, trained: Path, lsg: LSGHubInterface, tmp_path: Path) -> None:
    state = torch.load(trained / "checkpoint_best.pt", weights_only=False)
    state["cfg"]["task"]["data"] = "/gone"
    torch.save(state, tmp_path / "checkpoint_best.pt")
    with pytest.raises(LSGError, match=r"comes without a tokenizer \(looked in .*give its folder as tokenizer="):
        hub.lsg_bart_base(tmp_path)
    shutil.copytree(corpus / "tokenizer", tmp_path / "moved")
    for folder in (corpus, corpus / "tokenizer", tmp_path / "moved"):
        assert torch.equal(hub.lsg_bart_base(tmp_path, folder).encode("the cat"), lsg.encode("the cat"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", "nowhere does not exist: give a Hugging Face folder"),
        ("a/b/c", "a/b/c does not exist"),
        ("runs/model.pt", "runs/model.pt does not exist"),
    ],
)
def test_missing_checkpoint_is_one_sentence(name: str, message: str) -> None:
    with pytest.raises(LSGError, match=re.escape(message)):
        hub.lsg_bart_base(name)


def test_empty_folder_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(LSGError, match="holds no checkpoint: it has no config"):
        hub.lsg_bart_base(tmp_path)


def test_other_family_is_refused(trained: Path) -> None:
    with pytest.raises(LSGError, match="is a bart checkpoint: load it with lsg_bart_base or lsg_bart_large instead"):
        hub.lsg_pegasus_large(trained)


class RunsCode:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch ran",)


@pytest.mark.parametrize("save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_pickle_with_code_is_refused(tmp_path: Path, save, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save({"model": RunsCode()}, tmp_path / "model.pt")
    with pytest.raises(LSGError, match=r"model.pt is (refused|damaged|not a checkpoint)"):
        hub.lsg_bart_base(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_shape_mismatch_is_one_sentence(trained: Path, tmp_path: Path) -> None:
    state = torch.load(trained / "checkpoint_best.pt", weights_only=False)
    state["cfg"]["model"].encoder_layers = 3
    torch.save(state, tmp_path / "checkpoint_best.pt")
    with pytest.raises(LSGError, match=r"do not fit the model and its vocabulary \(missing: encoder.layers.2"):
        hub.lsg_bart_base(tmp_path)


@pytest.fixture
def no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Conversions of this test go to a folder of its own."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


@pytest.mark.parametrize(("family", "entry"), [("bart", hub.lsg_bart_base), ("pegasus", hub.lsg_pegasus_large)])
@pytest.mark.usefixtures("no_cache")
def test_hugging_face_folders(family: str, entry, documents: list[str], tmp_path: Path) -> None:
    """A short checkpoint becomes the model of the reference's long one, and its conversion loads as it is."""
    short = entry(REFERENCE / "models" / f"{family}_n1024_short", max_source_positions=2048)
    folder = next((tmp_path / "torch").rglob("model.pt")).parent
    converted = entry(REFERENCE / "models" / f"{family}_n1024_to2048")
    assert short.model.max_positions() == converted.model.max_positions() == (2048, 2048)
    before, after = short.model.state_dict(), converted.model.state_dict()
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in after)
    assert short.summarize(documents[:3], **SHORT) == converted.summarize(documents[:3], **SHORT)
    assert short.task.sequence_format == (SequenceFormat() if family == "bart" else PEGASUS_FORMAT)
    assert (short.encode("the cat")[0] == 0) == (family == "bart")
    assert entry(folder).summarize(documents[0], **SHORT) == short.summarize(documents[0], **SHORT)
    with pytest.raises(LSGError, match=f"is a {family} checkpoint: load it with"):
        (hub.lsg_pegasus_large if family == "bart" else hub.lsg_bart_base)(folder)


@pytest.mark.usefixtures("no_cache")
def test_stock_fairseq_bart(corpus: Path, trained: Path, documents: list[str], tmp_path: Path) -> None:
    """A checkpoint of fairseq's own short BART: converted with the tokenizer that is named."""
    state = torch.load(trained / "checkpoint_best.pt", weights_only=False)
    args, weights = state["cfg"]["model"], state["model"]
    plain = {name: value for name, value in vars(args).items() if not name.startswith("lsg_")}
    for name in ("encoder.global_embeddings.weight", "decoder.final_logits_bias"):
        del weights[name]
    (tmp_path / "bart").mkdir()
    shutil.copy(corpus / "dict.txt", tmp_path / "bart")
    torch.save({"args": Namespace(**{**plain, "arch": "bart_base"}), "model": weights}, tmp_path / "bart" / "model.pt")
    lsg = hub.lsg_bart_base(tmp_path / "bart", corpus / "tokenizer", max_source_positions=4096, block_size=32)
    assert lsg.model.max_positions()[0] == 4096
    assert lsg.model.encoder.lsg_config.block_size == 32
    assert torch.equal(lsg.model.encoder.embed_tokens.weight, weights["encoder.embed_tokens.weight"])
    assert lsg.summarize(documents[0], **SHORT)


@pytest.mark.parametrize("family", ["bart", "pegasus"])
@pytest.mark.usefixtures("no_cache")
def test_classification_checkpoints(family: str, documents: list[str], tmp_path: Path) -> None:
    """A Hugging Face checkpoint with a classification head, Pegasus like BART."""
    folder = tmp_path / "classifier"
    folder.mkdir()
    for path in (REFERENCE / "models" / f"{family}_lsg").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    state, generator = load_file(folder / "model.safetensors"), torch.Generator().manual_seed(1)
    for name, shape in {"dense.weight": (32, 32), "dense.bias": (32,), "out_proj.weight": (4, 32)}.items():
        state[f"classification_head.{name}"] = torch.randn(shape, generator=generator)
    state["classification_head.out_proj.bias"] = torch.zeros(4)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    lsg = (hub.lsg_bart_base if family == "bart" else hub.lsg_pegasus_large)(folder)
    tokens = lsg.collate([lsg.encode(text)[-200:] for text in documents[:2]], length=256)
    (head,) = lsg.model.classification_heads
    logits = lsg.predict(head, tokens, return_logits=True)
    features = lsg.extract_features(tokens)
    final = torch.stack([row[ids.ne(1).sum() - 1] for row, ids in zip(features, tokens, strict=True)])
    hidden = torch.tanh(final @ state["classification_head.dense.weight"].T + state["classification_head.dense.bias"])
    torch.testing.assert_close(logits, hidden @ state["classification_head.out_proj.weight"].T, atol=1e-4, rtol=1e-4)


# --- text -> ids -> text --------------------------------------------------------------------------------------------


def test_encode_never_cuts_and_never_grows_the_dictionary(lsg: LSGHubInterface) -> None:
    size = len(lsg.task.source_dictionary)
    text = "the cat sat, 漢字 and birds " * 400
    tokens = lsg.encode(text)
    assert tokens.dtype == torch.int64
    assert tokens.dim() == 1
    assert len(tokens) > lsg.max_source_tokens
    assert (tokens[0], tokens[-1]) == (0, 2)
    assert lsg.decode(tokens) == text
    assert len(lsg.task.source_dictionary) == size
    assert lsg.encode("").tolist() == [0, 2]


def test_decode_takes_one_sequence(lsg: LSGHubInterface) -> None:
    with pytest.raises(LSGError, match=re.escape("not a tensor of shape [1, 3]")):
        lsg.decode(torch.tensor([[0, 5, 2]]))


# --- summaries ------------------------------------------------------------------------------------------------------


def test_summaries_equal_fairseq_generate(
    lsg: LSGHubInterface, corpus: Path, trained: Path, documents: list[str]
) -> None:
    flags = ["--cpu", "--beam", "3", "--min-len", "3", "--max-len-b", "9", "--lenpen", "0.7", "--batch-size", "4"]
    path = trained / "checkpoint_best.pt"
    printed = run("fairseq-generate", corpus, *SUMMARIZATION, "--path", path, *flags)
    lines = [line.split("\t") for line in printed.splitlines() if line.startswith("D-")]
    generated = [text for _, text in sorted((int(line[0][2:]), line[2]) for line in lines)]
    summaries = lsg.summarize(documents, **SHORT, lenpen=0.7, batch_size=4)
    assert [" ".join(text.split()) for text in summaries] == [" ".join(text.split()) for text in generated]
    assert len(set(summaries)) > 3


def test_list_in_list_out_in_order(lsg: LSGHubInterface, documents: list[str]) -> None:
    one_by_one = [lsg.summarize(document, **SHORT) for document in documents]
    assert all(isinstance(summary, str) for summary in one_by_one)
    assert lsg.summarize(documents, **SHORT) == one_by_one
    assert lsg.summarize(documents[::-1], **SHORT, batch_size=2) == one_by_one[::-1]
    assert lsg.summarize([]) == []
    assert lsg.summarize(["", documents[0], " \n"], **SHORT) == ["", one_by_one[0], ""]


@pytest.mark.parametrize(("batch_size", "max_tokens"), [(None, None), (3, None), (None, 200), (2, 100_000), (50, 1)])
def test_batches_hold_what_they_may_of_documents_of_similar_length(
    batch_size: int | None, max_tokens: int | None
) -> None:
    draws = random.Random(0)
    lengths = [draws.randint(1, 90) for _ in range(100)]
    batches = list(batches_by_length([*lengths, 0], BatchOptions(batch_size, max_tokens)))
    assert sorted(place for batch in batches for place in batch) == list(range(100))
    by_length = [lengths[place] for batch in batches for place in batch]
    assert by_length == sorted(lengths, reverse=True)
    limit = max_tokens or (MAX_BATCH_TOKENS if batch_size is None else 100_000)
    for batch, following in itertools.pairwise(batches):
        longest = max(lengths[place] for place in batch)
        assert len(batch) <= (batch_size or MAX_BATCH)
        assert len(batch) == 1 or len(batch) * longest <= limit
        # Another one would have been too many, or too long.
        assert following
        assert len(batch) == (batch_size or MAX_BATCH) or (len(batch) + 1) * longest > limit


def test_int8_is_near_float32_and_for_float32_on_cpus_alone(trained: Path, documents: list[str]) -> None:
    lsg = hub.lsg_bart_base(trained)
    settings = lsg.generation_settings.replaced(GenerationSettings(**SHORT))
    before = {name: x.clone() for name, x in lsg.model.state_dict().items()}
    best, rounded = (
        BatchedGenerator(lsg, settings, BatchOptions(as_int8=as_int8)).best(lsg.encode(documents[0]), 1)[0]
        for as_int8 in (False, True)
    )
    assert best[1] != rounded[1]
    assert best[1] == pytest.approx(rounded[1], abs=0.05)
    assert all(torch.equal(before[name], x) for name, x in lsg.model.state_dict().items())
    half = BatchedGenerator(lsg.bfloat16(), settings, BatchOptions(as_int8=True))
    with pytest.raises(LSGError, match="int8 weights are made of float32 models on CPUs, not of bfloat16 on cpu"):
        half.best(lsg.encode(documents[0]), 1)


def test_stream_reads_only_what_it_needs(lsg: LSGHubInterface, documents: list[str]) -> None:
    taken = itertools.count()
    endless = (documents[next(taken) % 3] for _ in itertools.count())
    stream = lsg.summarize_stream(endless, **SHORT, progress=False)
    first = list(itertools.islice(stream, 4))
    assert first == lsg.summarize([documents[i] for i in (0, 1, 2, 0)], **SHORT)
    assert next(taken) < 300


def test_cut_documents_are_one_warning(lsg: LSGHubInterface, documents: list[str]) -> None:
    long = " ".join(documents) * 3
    with pytest.warns(UserWarning, match=r"2 documents were cut to the 1024 tokens that are read") as caught:
        cut = lsg.summarize([long, documents[0], long + " end"], **SHORT)
    assert len([w for w in caught if "were cut" in str(w.message)]) == 1
    assert cut[1] == lsg.summarize(documents[0], **SHORT)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lsg.summarize(documents[0], **SHORT)


@pytest.mark.parametrize("word", ["the cat sat ", "thecatsat", " " * 40 + "the"])
def test_of_a_very_long_document_the_beginning_is_tokenised(
    word: str, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lsg = hub.lsg_bart_base(trained, max_source_positions=64)
    text, longest = word * 5000, []
    encode = type(lsg).encode
    whole = BatchedGenerator(lsg, lsg.generation_settings)._cut(lsg.encode(text))
    monkeypatch.setattr(type(lsg), "encode", lambda self, part: longest.append(len(part)) or encode(self, part))
    generator = BatchedGenerator(lsg, lsg.generation_settings)
    assert torch.equal(generator._encode(text), whole)
    assert max(longest) <= 64 * 32 * 4
    known = len(encode(lsg, text))
    assert abs(generator.longest - known) < 0.1 * known
    with pytest.warns(UserWarning, match=rf"the longest has about {generator.longest};"):
        generator.report_cut()


def test_shorter_limit_cuts_documents(trained: Path, documents: list[str]) -> None:
    lsg = hub.lsg_bart_base(trained, max_source_positions=64)
    with pytest.warns(UserWarning, match="were cut to the 64 tokens"):
        lsg.summarize(documents[1], **SHORT)
    assert lsg.model.max_positions()[0] == 1024


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beam": 0}, "beam must be an integer from 1 to 1,000, not 0"),
        ({"lenpen": "long"}, "lenpen must be a number from -50 to 50, not 'long'"),
        ({"lenpen": 10**30}, "lenpen must be a number from -50 to 50"),
        ({"beam": 10**9}, "beam must be an integer from 1 to 1,000"),
        ({"source_lang": True}, "a language must be a code such as 'en_XX', not True"),
        ({"batch_size": 0}, "batch_size must be an integer from 1 to 2,147,483,648, not 0"),
        ({"max_tokens": 0}, "max_tokens must be an integer from 1 to 2,147,483,648, not 0"),
        ({"min_len": 9, "max_len_b": 3}, "min_len (9) must not be greater than max_len_b (3)"),
    ],
)
def test_wrong_generation_settings(lsg: LSGHubInterface, settings: dict[str, object], message: str) -> None:
    with pytest.raises(LSGError, match=re.escape(message)):
        lsg.summarize("the cat", **settings)
    with pytest.raises(LSGError, match="a text must be a str, not int"):
        lsg.summarize([3])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda lsg: list(lsg.summarize_stream("the cat")), "several a list or another iterable"),
        (lambda lsg: list(lsg.summarize_stream(torch.tensor(3))), "several a list or another iterable"),
        (lambda lsg: lsg.collate([torch.tensor([0, 2])], length=10**12), "length must be an integer from 0 to 262,144"),
        (lambda lsg: lsg.collate([torch.tensor([0, 2])], length="x"), "length must be an integer from 0 to 262,144"),
        (lambda lsg: lsg.register_classification_head(7, 2), "the name of a classification head must be a non-empty"),
        (
            lambda lsg: lsg.register_classification_head("h", 2, 10**12),
            "inner_dim must be an integer from 1 to 131,072",
        ),
        (lambda lsg: lsg.fill_mask("a <mask>", match_source_len="x"), "match_source_len must be True or False"),
        (lambda lsg: lsg.fill_mask("a <mask>", source_lang=torch.ones(2)), "a language must be a code"),
        (lambda lsg: lsg.summarize("a", source_lang=torch.ones(2)), "a language must be a code"),
        (lambda lsg: lsg.summarize("a", progress=torch.ones(2)), "progress must be True or False"),
        (lambda lsg: lsg.encode("a", "b", no_separator=torch.ones(2)), "no_separator must be True or False"),
        (lambda lsg: lsg.extract_features(torch.tensor([0, 2]), torch.ones(2)), "return_all_hiddens must be True or"),
        (lambda lsg: lsg.predict("h", torch.tensor([0, 2]), torch.ones(2)), "return_logits must be True or False"),
    ],
)
def test_wrong_arguments(lsg: LSGHubInterface, call: Callable[[LSGHubInterface], object], message: str) -> None:
    with pytest.raises(LSGError, match=re.escape(message)):
        call(lsg)


def test_an_error_of_the_users_own_texts_is_theirs(lsg: LSGHubInterface) -> None:
    def texts() -> Iterator[str]:
        yield "the cat"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(lsg.summarize_stream(texts(), max_len_b=3))


def test_forward_is_the_same_after_generation(lsg: LSGHubInterface, documents: list[str]) -> None:
    tokens = lsg.collate([lsg.encode(document) for document in documents[:4]])
    before = lsg(tokens, None, tokens[:, :7])[0]
    lsg.summarize(documents, beam=4, max_len_b=5)
    assert torch.equal(lsg(tokens, None, tokens[:, :7])[0], before)
    with pytest.raises(LSGError):
        lsg.summarize(documents, beam=4, min_len=2000, max_len_b=3000)
    assert torch.equal(lsg(tokens, None, tokens[:, :7])[0], before)
    assert not lsg.model.training


def test_16384_tokens(trained: Path, documents: list[str]) -> None:
    lsg = hub.lsg_bart_base(trained, max_source_positions=16384)
    text = " ".join(itertools.islice(itertools.cycle(documents), 400))
    ids = lsg.encode(text)
    text = lsg.decode(ids[:16383])
    assert len(lsg.encode(text)) == 16384
    assert lsg.model.max_positions() == (16384, 16384)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert lsg.summarize(text, **SHORT)
    table = lsg.model.encoder.embed_positions.weight
    assert torch.equal(table[2 + 1024 : 2 + 2048], table[2 : 2 + 1024])


# --- features, masks, classes ---------------------------------------------------------------------------------------


def test_extract_features_is_the_decoder_reading_the_tokens(lsg: LSGHubInterface) -> None:
    tokens = lsg.encode("the cat sat on a mat near the river")
    features = lsg.extract_features(tokens)
    shifted = torch.cat([torch.tensor([2]), tokens[:-1]])[None]
    expected = lsg.model(tokens[None], None, shifted, features_only=True)[0]
    assert torch.equal(features, expected)
    states = lsg.extract_features(tokens, return_all_hiddens=True)
    assert len(states) == 1 + 2
    assert torch.equal(states[-1], features)
    with pytest.raises(LSGError, match="extract_features got 1025 tokens, but encoder and decoder of this model both"):
        lsg.extract_features(torch.full((1025,), 5))


def test_predict_does_not_depend_on_padding(trained: Path, documents: list[str]) -> None:
    lsg = hub.lsg_bart_base(trained)
    lsg.register_classification_head("topic", 3)
    tokens = [lsg.encode(document) for document in documents[:3]]
    alone = torch.cat([lsg.predict("topic", ids) for ids in tokens])
    assert alone.shape == (3, 3)
    torch.testing.assert_close(alone.exp().sum(1), torch.ones(3))
    together = lsg.predict("topic", lsg.collate(tokens, length=1024))
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=0)
    logits = lsg.predict("topic", tokens[0], return_logits=True)
    torch.testing.assert_close(logits.log_softmax(-1), alone[:1])
    with pytest.raises(LSGError, match=r"no classification head 'mood' \(present: 'topic'\)"):
        lsg.predict("mood", tokens[0])
    with pytest.raises(LSGError, match="already"):
        lsg.register_classification_head("topic", 3)
    with pytest.raises(LSGError, match="each row of tokens must end with </s>"):
        lsg.predict("topic", tokens[0][:-1])


def test_heads_of_a_checkpoint_are_loaded(trained: Path, documents: list[str], tmp_path: Path) -> None:
    lsg = hub.lsg_bart_base(trained)
    lsg.register_classification_head("topic", 3, inner_dim=16)
    state = torch.load(trained / "checkpoint_best.pt", weights_only=False)
    state["model"] = lsg.model.state_dict()
    torch.save(state, tmp_path / "checkpoint_best.pt")
    again, tokens = hub.lsg_bart_base(tmp_path), lsg.encode(documents[0])
    assert torch.equal(again.predict("topic", tokens), lsg.predict("topic", tokens))


def test_fill_mask(lsg: LSGHubInterface) -> None:
    filled = lsg.fill_mask("the cat <mask> on a mat", topk=3)
    assert len(filled) == 3
    assert all(isinstance(text, str) and isinstance(score, float) for text, score in filled)
    assert [score for _, score in filled] == sorted((score for _, score in filled), reverse=True)
    assert lsg.fill_mask(["the <mask> sat"], topk=2) == [lsg.fill_mask("the <mask> sat", topk=2)]
    with pytest.raises(LSGError, match="fill_mask needs the mask token '<mask>' in each text"):
        lsg.fill_mask("the cat")


def test_types_and_modes_return_the_interface(trained: Path) -> None:
    lsg = hub.lsg_bart_base(trained)
    assert lsg.eval() is lsg
    assert lsg.to("cpu") is lsg
    for convert, dtype in ((lsg.bfloat16, torch.bfloat16), (lsg.half, torch.float16), (lsg.float, torch.float32)):
        assert convert() is lsg
        assert lsg.model.encoder.embed_tokens.weight.dtype == dtype
        assert isinstance(lsg.summarize("the cat sat on a mat " * 20, **SHORT), str)
    assert lsg.train().model.training


# --- the model cards' examples (docs/python.md) ----------------------------------------------------------------


def test_the_cards_examples(trained: Path, pretrained: Path, corpus: Path, tmp_path: Path) -> None:
    shutil.copy(pretrained / "checkpoint_best.pt", tmp_path)
    shutil.copytree(corpus / "tokenizer", tmp_path / "tokenizer")
    code = (REPOSITORY / "docs" / "python.md").read_text()
    blocks = [block for block in re.findall(r"```python\n(.*?)```", code, re.S) if "# a network is needed" not in block]
    assert len(blocks) >= 4
    namespace: dict[str, object] = {"torch": torch}
    for block in blocks:
        block = block.replace('REPO = "path/to/lsg_fairseq"', f"REPO = {str(REPOSITORY)!r}")
        block = block.replace('CHECKPOINT = "ccdv/lsg-bart-base-4096"', f"CHECKPOINT = {str(trained)!r}")
        block = block.replace('ENCODER = "ccdv/lsg-base-4096"', f"ENCODER = {str(tmp_path)!r}")
        exec(block, namespace)
    assert namespace["logits"].shape[-1] == len(namespace["lsg"].task.target_dictionary)
    assert namespace["classes"].shape == (1, 3)
    assert isinstance(namespace["summary"], str)
    assert namespace["topics"].shape == (2, 3)
    roberta = namespace["roberta"].model
    trained_alone = {name for name, parameter in roberta.named_parameters() if parameter.grad is not None}
    assert "encoder.sentence_encoder.global_embeddings.weight" in trained_alone
    assert {name.partition(".")[0] for name in trained_alone} == {"encoder", "classification_heads"}
    assert sum(name.startswith("encoder.") for name in trained_alone) == 1


@pytest.mark.usefixtures("no_cache")
def test_a_small_checkpoint_is_known_by_its_content(tmp_path: Path) -> None:
    """A copy of it is not converted anew, and other weights are never taken for it, whatever sizes and times say."""
    here, there = tmp_path / "here" / "model", tmp_path / "there" / "model"
    for copy in (here, there):
        shutil.copytree(REFERENCE / "models" / "bart_n1024_short", copy)
        (copy / "README.md").write_text(f"a card of {copy}")
        lsg = hub.lsg_bart_base(copy)
    assert len(list((tmp_path / "torch").rglob("model.pt"))) == 1
    weights, name = load_file(there / "model.safetensors"), "model.encoder.layers.0.fc1.bias"
    times = (there / "model.safetensors").stat()
    save_file(weights | {name: weights[name] + 1}, there / "model.safetensors", {"format": "pt"})
    os.utime(there / "model.safetensors", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert (there / "model.safetensors").stat().st_size == times.st_size
    changed = hub.lsg_bart_base(there).model.encoder.layers[0].fc1.bias
    torch.testing.assert_close(changed, lsg.model.encoder.layers[0].fc1.bias + 1)


def test_a_cache_that_cannot_be_written_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home").write_text("a file where a folder should be")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "config.json").write_text("{}")
    with pytest.raises(LSGError, match=r"cannot be written \(Not a directory\): set TORCH_HOME to a folder that can"):
        hub.lsg_bart_base(tmp_path / "hf")
