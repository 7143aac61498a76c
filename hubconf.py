"""What torch.hub offers of this repository: `torch.hub.list` names the entries, `torch.hub.help` describes one."""

dependencies = ["torch", "fairseq", "tokenizers", "sentencepiece", "safetensors", "tqdm", "filelock"]

from lsg_fairseq.hub import (  # noqa: E402, F401
    lsg_bart_base,
    lsg_bart_base_4096_arxiv,
    lsg_bart_base_4096_booksum,
    lsg_bart_base_4096_mediasum,
    lsg_bart_base_4096_multinews,
    lsg_bart_base_4096_pubmed,
    lsg_bart_base_4096_wcep,
    lsg_bart_base_16384,
    lsg_bart_base_16384_arxiv,
    lsg_bart_base_16384_mediasum,
    lsg_bart_base_16384_pubmed,
    lsg_bart_large,
    lsg_bart_manpages,
    lsg_barthez,
    lsg_bert_base,
    lsg_camembert_base,
    lsg_distilbert_base,
    lsg_distilcamembert_base,
    lsg_distilroberta_base,
    lsg_legal_base,
    lsg_legal_small,
    lsg_pegasus_large,
    lsg_roberta_base,
    lsg_xlm_roberta_base,
)
