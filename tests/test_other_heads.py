"""Heads of other tasks, whose tensors may have a sequence classifier's names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from encoder_models import build_hf_model, write_hf_folder

from lsg_fairseq.checkpoints.convert import plan_conversion
from lsg_fairseq.huggingface.folder_kinds import check_head
from lsg_fairseq.modules.lsg_config import LSGError


@pytest.mark.parametrize(
    ("model_type", "saved", "stated"),
    [
        # As transformers 3 saved token classification: with a pooler.
        ("bert", "BertForSequenceClassification", "BertForTokenClassification"),
        ("bert", "BertForMultipleChoice", "BertForMultipleChoice"),
        ("bert", "BertForQuestionAnswering", "BertForQuestionAnswering"),
        ("roberta", "RobertaForTokenClassification", "RobertaForTokenClassification"),
        ("distilbert", "DistilBertForSequenceClassification", "DistilBertForMultipleChoice"),
        ("electra", "ElectraForSequenceClassification", "ElectraForTokenClassification"),
    ],
)
def test_other_heads_are_refused(model_type: str, saved: str, stated: str, tmp_path: Path) -> None:
    folder = write_hf_folder(build_hf_model(model_type, saved), tmp_path / "hf")
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"architectures": [stated]}))
    with pytest.raises(LSGError, match=f"the checkpoint is a {stated}, whose head .* has no counterpart here"):
        plan_conversion(folder)


@pytest.mark.parametrize(
    ("architectures", "names"),
    [
        (["BertForSequenceClassification"], ["classifier.weight"]),
        (["LSGBartForSequenceClassification"], ["classification_head.dense.weight"]),
        (["BertForPreTraining"], ["cls.seq_relationship.weight"]),
        # A class of somebody's own, without a head that could be taken for another.
        (["BertForSentenceEmbeddings"], ["bert.pooler.dense.weight"]),
        (["BertModel"], []),
        ([], ["classifier.weight"]),
        (None, ["classifier.weight"]),
        ("BertForTokenClassification", ["bert.pooler.dense.weight"]),
        (["BertForTokenClassification", "BertForSequenceClassification"], ["classifier.weight"]),
    ],
)
def test_what_else_is_stated_is_left_to_the_tensors(architectures: object, names: list[str]) -> None:
    check_head({"architectures": architectures}, names)
