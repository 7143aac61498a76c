"""No code runs from what a checkpoint says: which arguments reach which sink of fairseq, and that all are shut."""

from __future__ import annotations

import ast
import importlib
import subprocess
from argparse import Namespace
from pathlib import Path
from typing import Any

import fairseq
import numpy as np
import pytest
import torch
from conftest import REPOSITORY, run
from fairseq import checkpoint_utils, options, utils
from fairseq.data import Dictionary, fasta_dataset
from fairseq.models import ARCH_CONFIG_REGISTRY, ARCH_MODEL_REGISTRY, MODEL_DATACLASS_REGISTRY, build_model
from fairseq.optim.adam import FairseqAdam, FairseqAdamConfig
from fairseq.tasks.translation import TranslationConfig, TranslationTask

from lsg_fairseq.checkpoints.build_task import check_architecture, is_lsg_architecture
from lsg_fairseq.checkpoints.convert import convert_checkpoint
from lsg_fairseq.checkpoints.loading import CheckpointFiles, Overrides, load_task_and_model
from lsg_fairseq.compat.literals import MAX_ITEMS, evaluate_literal
from lsg_fairseq.compat.loading import load_checkpoint_file
from lsg_fairseq.models.lsg_bart import LSGBartModel
from lsg_fairseq.modules.lsg_config import LSGError

FAIRSEQ = Path(fairseq.__file__).parent
MODELS = REPOSITORY.parent / "shared" / "reference" / "models"

# module -> {argument that it gives to `eval`: where a checkpoint says it}
SINKS = {
    "criterions.ctc": {"cfg.wer_args": "cfg.criterion"},
    "data.audio.raw_audio_dataset": {"feature_encoder_spec": "cfg.task and cfg.model, through audio_pretraining"},
    "data.codedataset": {"line.strip()": "a manifest in the folder that cfg.task names"},
    "models.fconv": dict.fromkeys(
        ("args.encoder_layers", "args.decoder_layers", "args.decoder_attention"), "cfg.model"
    ),
    "models.fconv_lm": dict.fromkeys(("args.decoder_layers", "args.decoder_attention"), "cfg.model"),
    "models.fconv_self_att": dict.fromkeys(
        (
            *("args.pretrained", "args.encoder_layers", "args.encoder_attention", "args.decoder_layers"),
            *("args.decoder_attention", "args.self_attention", "args.project_input", "args.gated_attention"),
            "args.downsample",
        ),
        "cfg.model",
    ),
    "models.hubert.hubert": {"cfg.conv_feature_layers": "cfg.model"},
    "models.lightconv_lm": {"args.character_filters": "cfg.model"},
    "models.multires_hubert.multires_hubert": dict.fromkeys(
        ("cfg.conv_feature_layers", "cfg.override_encoder_layers"), "cfg.model"
    ),
    "models.speech_to_text.s2t_wav_transformer": {"args.conv_feature_layers": "cfg.model"},
    "models.transformer_lm": {"args.character_filters": "cfg.model"},
    "models.wav2vec.wav2vec": dict.fromkeys(("cfg.conv_feature_layers", "cfg.conv_aggregator_layers"), "cfg.model"),
    "models.wav2vec.wav2vec2": dict.fromkeys(("cfg.conv_feature_layers", "self.cfg.conv_feature_layers"), "cfg.model"),
    "optim.adafactor": {"self.args.adafactor_eps": "cfg.optimizer"},
    "optim.adam": {"self.cfg.adam_betas": "cfg.optimizer"},
    "optim.adamax": {"self.args.adamax_betas": "cfg.optimizer"},
    "optim.cpu_adam": {"self.cfg.adam_betas": "cfg.optimizer"},
    "optim.fused_lamb": {"self.args.lamb_betas": "cfg.optimizer"},
    "utils": {"x": "eval_str_list, eval_str_dict and eval_bool: see THROUGH_UTILS"},
}
# What reaches the three of fairseq.utils, and what of it comes from a checkpoint's cfg.model, cfg.task or
# cfg.distributed_training; `parser`: the type of a flag alone.
THROUGH_UTILS = {
    "xformers_att_config": "cfg.model.encoder_xformers_att_config and decoder_xformers_att_config",
    "args.adaptive_softmax_cutoff": "cfg.model",
    "cfg.adaptive_softmax_cutoff": "cfg.model",
    "args.adaptive_input_cutoff": "cfg.model",
    "args.decoder_attention": "cfg.model of lstm",
    "args.left_pad_source": "cfg.task",
    "args.left_pad_target": "cfg.task",
    "x": "parser: kernel sizes of lightconv",
    "uf": "parser: dictionaries of multilingual tasks",
    "args.pipeline_balance": "cfg.model",
    "args.pipeline_devices": "cfg.model",
    "args.pipeline_encoder_balance": "cfg.model",
    "args.pipeline_encoder_devices": "cfg.model",
    "args.pipeline_decoder_balance": "cfg.model",
    "args.pipeline_decoder_devices": "cfg.model",
    "cfg.pipeline_balance": "cfg.distributed_training",
    "cfg.pipeline_devices": "cfg.distributed_training",
    "cfg.pipeline_encoder_devices": "cfg.distributed_training",
    "cfg.pipeline_decoder_devices": "cfg.distributed_training",
}
# Arguments whose defaults are text that is evaluated, in any of fairseq's models.
# Of the packages that bring fairseq, not all have every module (fairseq-fixed, for Python 3.13, lacks one).
SINKS = {name: found for name, found in SINKS.items() if (FAIRSEQ / f"{name.replace('.', '/')}.py").is_file()}
EVALUATED = {argument.rpartition(".")[2] for arguments in SINKS.values() for argument in arguments if "." in argument}
# Flags that architectures take from the parser's defaults.
FILLED_BEFORE = {"attention_dropout": 0.1, "dropout": 0.1, "tokens_per_sample": 512}


def calls_in_fairseq(*functions: str) -> dict[str, set[str]]:
    """module -> source of the first argument, for each call of one of these functions; examples are other packages."""
    found: dict[str, set[str]] = {}
    for path in sorted(FAIRSEQ.rglob("*.py")):
        place, source = path.relative_to(FAIRSEQ), path.read_text()
        if place.parts[0] == "examples" or not any(name + "(" in source for name in functions):
            continue
        for node in ast.walk(ast.parse(source)):
            owner, _, name = ast.unparse(node.func).rpartition(".") if isinstance(node, ast.Call) else ("", "", "")
            if name in functions and owner in ("", "utils", "options"):
                found.setdefault(".".join(place.with_suffix("").parts), set()).add(ast.unparse(node.args[0]))
    return found


def touching(path: Path) -> str:
    """Text that, run as code, makes a file and is a list."""
    return f"[__import__('pathlib').Path({str(path)!r}).touch() or 5]"


def holder(argument: str, value: str) -> dict[str, Any]:
    """Local names in which `argument`, such as self.cfg.adam_betas, is `value`."""
    name, *attributes = argument.removesuffix(".strip()").split(".")
    held: Any = value
    for attribute in reversed(attributes):
        held = Namespace(**{attribute: held})
    return {name: held}


# --- eval -----------------------------------------------------------------------------------------------------------


def test_every_sink_is_in_the_table() -> None:
    assert calls_in_fairseq("eval") == {module: set(arguments) for module, arguments in SINKS.items()}
    assert not calls_in_fairseq("exec", "__import__", "instantiate")
    reached = calls_in_fairseq("eval_str_list", "eval_str_dict", "eval_bool")
    del reached["dataclass.utils"]  # that one takes literals upstream
    assert set.union(*reached.values()) == set(THROUGH_UTILS)


@pytest.mark.parametrize(("module", "argument"), [(module, argument) for module in SINKS for argument in SINKS[module]])
def test_sink_takes_literals_only(module: str, argument: str, tmp_path: Path) -> None:
    """fairseq's own expression, in the module's own names."""
    names = vars(importlib.import_module(f"fairseq.{module}"))
    expression = compile(f"eval({argument})", module, "eval")
    with pytest.raises(LSGError, match="is not a literal"):
        eval(expression, names, holder(argument, touching(tmp_path / "ran")))
    assert not (tmp_path / "ran").exists()
    assert eval(expression, names, holder(argument, "[(512, 3)] * 2")) == [(512, 3), (512, 3)]


def test_sinks_run_code_in_stock_fairseq(tmp_path: Path) -> None:
    """What the table is about: the builtin, which these modules would find."""
    eval(touching(tmp_path / "ran"))
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("function", "text", "value"),
    [
        (utils.eval_str_list, "[1, 2]", [1.0, 2.0]),
        (utils.eval_str_list, "5", [5.0]),
        (options.eval_str_list, "(3,)", [3.0]),
        (utils.eval_str_dict, "{'en': 1}", {"en": 1}),
        (options.eval_str_dict, "{}", {}),
        (utils.eval_bool, "False", False),
        (options.eval_bool, "1", True),
    ],
)
def test_helpers_take_literals_only(function: Any, text: str, value: Any, tmp_path: Path) -> None:
    assert function(text) == value
    with pytest.raises(LSGError, match="code is not run"):
        function(touching(tmp_path / "ran"))
    assert not (tmp_path / "ran").exists()
    assert utils.eval_bool(True) is False  # fairseq's own meaning of what is no text


def test_stock_defaults_are_literals() -> None:
    """Whatever text fairseq's own models say, and so the checkpoints that people have."""
    filled = {name: make() for name, make in MODEL_DATACLASS_REGISTRY.items() if make is not None}
    for name, fill in ((n, f) for n, f in ARCH_CONFIG_REGISTRY.items() if n not in filled):
        filled[name] = Namespace(**FILLED_BEFORE)
        fill(filled[name])
    texts = {f"{name}.{arg}": getattr(args, arg, None) for name, args in filled.items() for arg in EVALUATED}
    texts = {name: text for name, text in texts.items() if isinstance(text, str) and text}
    assert {"fconv.encoder_layers", "wav2vec2.conv_feature_layers"} <= set(texts)
    for name, text in texts.items():
        assert evaluate_literal(text) == eval(text), name


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("(0.9, 0.98)", (0.9, 0.98)),
        (" -1e-8 ", -1e-8),
        ("[(512, 10, 5)] + [(512, 3, 2)] * 2", [(512, 10, 5), (512, 3, 2), (512, 3, 2)]),
        ("2 * ([1] + [2])", [1, 2, 1, 2]),
        ("{'a': [1 / 4, None]}", {"a": [0.25, None]}),
        ("()", ()),
    ],
)
def test_literals_are_what_python_says(text: str, value: Any) -> None:
    assert evaluate_literal(text) == eval(text.strip()) == value


@pytest.mark.parametrize(
    "text",
    [
        "open('/etc/passwd')",
        "(lambda: 1)()",
        "().__class__",
        "[x for x in (1,)]",
        "f'{1}'",
        "os",
        "1 if True else 2",
        "2 ** 9",
        "'a' * 9",
        "1 / 0",
        "{[]: 1}",
        "{**{}}",
        "",
        "(" * 5000,
        f"[0] * {MAX_ITEMS + 1}",
        "[[0] * 9999] * 9999",
        "[[]] * 10 ** 9",
        "0" * 200_000,
    ],
    ids=lambda text: text[:20],
)
def test_everything_else_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(LSGError, match="is not a literal") as refused:
        evaluate_literal(text)
    assert len(str(refused.value)) < 600
    assert "\n" not in str(refused.value)


# --- through the builders of fairseq --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def task() -> TranslationTask:
    return TranslationTask(TranslationConfig(left_pad_source=False), Dictionary(), Dictionary())


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        ("fconv", "encoder_layers"),
        ("fconv_self_att_wp", "pretrained"),
        ("lstm", "decoder_attention"),
        ("bart_base", "decoder_xformers_att_config"),
        ("bart_base", "adaptive_softmax_cutoff"),
        ("lsg_bart_base", "decoder_xformers_att_config"),
        ("lsg_bart_base", "adaptive_softmax_cutoff"),
    ],
)
def test_models_run_no_code(name: str, argument: str, task: TranslationTask, tmp_path: Path) -> None:
    sizes = {"encoder_layers": 1, "decoder_layers": 1} if "bart" in name else {}
    args = Namespace(**{"_name": name, "arch": name, **sizes, argument: touching(tmp_path / "ran")})
    with torch.device("meta"), pytest.raises(LSGError, match="code is not run"):
        build_model(args, task)
    assert not (tmp_path / "ran").exists()


def test_optimizer_runs_no_code(tmp_path: Path) -> None:
    weights = [torch.nn.Parameter(torch.zeros(1))]
    betas = FairseqAdam(FairseqAdamConfig(adam_betas="(0.9, 0.98)", lr=[1.0]), weights).optimizer_config["betas"]
    assert betas == (0.9, 0.98)
    with pytest.raises(LSGError, match="code is not run"):
        FairseqAdam(FairseqAdamConfig(adam_betas=touching(tmp_path / "ran"), lr=[1.0]), weights)
    assert not (tmp_path / "ran").exists()


def test_a_fasta_file_is_read_without_a_shell(tmp_path: Path) -> None:
    """Its name holds the languages of cfg.task, and fairseq pastes it into `cat {path} | ...`."""
    prefix = tmp_path / "valid;touch ran;"
    text = ">first\nMKV\nLA\n>second\n>third\nM\n"
    Path(f"{prefix}.fasta").write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        patch.setattr(subprocess, "Popen", None)
        dataset = fasta_dataset.FastaDataset(str(prefix))
    assert not (tmp_path / "ran").exists()
    assert [dataset[i] for i in range(3)] == [(">first", "MKVLA"), (">second", ""), (">third", "M")]
    assert dataset.sizes.tolist() == [5, 0, 1]
    assert dataset.offsets.dtype == dataset.sizes.dtype == np.int64


# --- a checkpoint as a whole ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("converted") / "bart"
    convert_checkpoint(MODELS / "bart_n1024_short", folder)
    return folder


def with_settings(converted: Path, path: Path, group: str, **settings: Any) -> Path:
    """The checkpoint with other settings in a group of its cfg."""
    state = load_checkpoint_file(converted / "model.pt")
    stored = state["cfg"][group]
    (vars(stored) if isinstance(stored, Namespace) else stored).update(settings)
    torch.save(state, path)
    return path


def test_stored_user_dir_is_not_imported(converted: Path, tmp_path: Path) -> None:
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil" / "__init__.py").write_text(touching(tmp_path / "ran"))
    path = with_settings(converted, tmp_path / "model.pt", "common", user_dir=str(tmp_path / "evil"))
    path = with_settings(path.rename(converted.parent / "model.pt").parent, path, "task", data=str(converted))
    [model], _, _ = checkpoint_utils.load_model_ensemble_and_task([str(path)])
    assert isinstance(model, LSGBartModel)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "settings",
    [
        {"_name": "fconv", "arch": "fconv"},
        {"_name": "fconv"},
        {"_name": "transformer"},
        {"_name": "nobody_knows", "arch": "nobody_knows"},
        {"_name": ["fconv"]},
    ],
    ids=str,
)
def test_other_architectures_are_not_built(settings: dict[str, Any], converted: Path, tmp_path: Path) -> None:
    path = with_settings(converted, tmp_path / "model.pt", "model", **settings)
    files = CheckpointFiles(path, converted, converted / "tokenizer")
    with pytest.raises(LSGError, match=r"model\.pt (asks for the architecture .* is not an LSG model|states _name as)"):
        load_task_and_model(files, Overrides())


def test_subclasses_are_built(monkeypatch: pytest.MonkeyPatch) -> None:
    class Ours(LSGBartModel):
        """As in somebody's own --user-dir."""

    class Theirs(ARCH_MODEL_REGISTRY["bart_base"]):
        """A stock model of theirs."""

    monkeypatch.setitem(ARCH_MODEL_REGISTRY, "ours", Ours)
    monkeypatch.setitem(ARCH_MODEL_REGISTRY, "theirs", Theirs)
    check_architecture(Namespace(arch="ours"), Path("model.pt"))
    assert is_lsg_architecture(Namespace(_name="ours", arch="bart_base"))
    assert not is_lsg_architecture(Namespace(_name="theirs", arch="lsg_bart_base"))


def test_command_says_so_in_one_line(converted: Path, tmp_path: Path) -> None:
    path = with_settings(converted, converted / "evil.pt", "model", adaptive_softmax_cutoff=touching(tmp_path / "ran"))
    flags = ["--user-dir", REPOSITORY / "lsg_fairseq", "--task", "lsg_summarization", "--path", path, "--cpu"]
    printed = run("fairseq-interactive", converted, *flags, stdin="The cat.\n", check=False)
    assert not (tmp_path / "ran").exists()
    assert printed.startswith("1\n")
    assert "fairseq-interactive: error: a setting of the model" in printed
    assert "Traceback" not in printed
