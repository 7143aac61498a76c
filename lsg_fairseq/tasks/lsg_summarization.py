"""Task `lsg_summarization`: fairseq's translation task for long documents; nothing is dropped silently."""

import logging
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fairseq import utils
from fairseq.data import FairseqDataset, LanguagePairDataset, ListDataset, StripTokenDataset
from fairseq.tasks import register_task
from fairseq.tasks.translation import TranslationTask
from omegaconf import DictConfig
from torch import Tensor, nn

from lsg_fairseq.alignment import AligningSequenceGenerator, SoftScorer
from lsg_fairseq.data.datasets import KeptPartDataset, MovedAlignments, SurroundedDataset, ValuedPairDataset
from lsg_fairseq.data.kept_part import HEAD, PART_STATE, KeptPart, pieces_to_read
from lsg_fairseq.data.split_files import (
    REPORT_FILE,
    check_pairs,
    check_room,
    lead_of,
    part_of_split,
    read_languages,
    read_queries,
)
from lsg_fairseq.generation import LSGSequenceGenerator
from lsg_fairseq.models.freezing import freeze_embeddings, freeze_encoder
from lsg_fairseq.models.lsg_decoder import give_weights
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.tasks.data_folders import (
    check_data_folders,
    is_name_of_split,
    missing_split,
    name_sides,
    require_constraints,
    require_hard_alignment,
    require_summaries,
    require_summaries_for,
    unchanged_sequences,
)
from lsg_fairseq.tasks.languages import decoder_starts, in_task_languages, index_of_symbol, indices_of_symbols
from lsg_fairseq.tasks.rouge_validation import RougeValidation, parse_rouge_arguments
from lsg_fairseq.tasks.summarization_config import LSGSummarizationConfig, with_checkpoint_settings
from lsg_fairseq.tokenizers.fairseq_bpe import (
    DICTIONARY_STATE,
    LSGBPE,
    LineBPE,
    build_dictionary,
    dictionary_fingerprint,
)
from lsg_fairseq.tokenizers.load import has_tokenizer
from lsg_fairseq.tokenizers.sequence_format import SequenceFormat

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Origin:
    """The split of some sequences, the part of long sources that is kept, and each query's number of tokens, if any."""

    split: str
    part: str
    queries: Sequence[int] | None = None


@register_task("lsg_summarization", dataclass=LSGSummarizationConfig)
class LSGSummarizationTask(RougeValidation, TranslationTask):
    """Summarises documents.

    Sequences get the special tokens of their model family (sequence_format.json beside the dictionary, else BART's).
    Sources and targets that are longer than the model's position tables are cut, and a warning says how many.
    """

    cfg: LSGSummarizationConfig

    def __init__(self, cfg: LSGSummarizationConfig, src_dict: Any, tgt_dict: Any) -> None:
        super().__init__(cfg, src_dict, tgt_dict)
        self.data_folder = Path(utils.split_paths(cfg.data)[0])
        self.sequence_format = in_task_languages(SequenceFormat.load(self.data_folder), cfg, src_dict)
        self.model_positions: tuple[int, int] | None = None
        self.kept_part = KeptPart(cfg.keep_part)
        self.trained_part: str | None = None
        self.data_bpe = self._bpe_beside_data()
        self._check_dictionaries()
        self.checkpoint_paths: tuple[str, ...] = ()  # those of --path; compat/generating.py sets it
        self.rouge_arguments = parse_rouge_arguments(cfg.eval_rouge_args)

    @classmethod
    def setup_task(cls, cfg: LSGSummarizationConfig, **kwargs: Any) -> "LSGSummarizationTask":
        """Load the dictionaries; raises LSGError if a folder or a dictionary is missing."""
        name_sides(cfg, check_data_folders(cfg.data))
        return super().setup_task(cfg, **kwargs)

    def state_dict(self) -> dict[str, Any]:
        """The task's state in a checkpoint: the dictionary's fingerprint, and the part that training kept."""
        part = {} if self.trained_part is None else {PART_STATE: self.trained_part}
        return {**super().state_dict(), DICTIONARY_STATE: dictionary_fingerprint(self.src_dict), **part}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Check the dictionary against the checkpoint's, and adopt the part of long documents it was trained on.

        Raises:
            LSGError: the dictionaries differ, or the checkpoints of an ensemble were trained on different parts.
        """
        known = state_dict.get(DICTIONARY_STATE)
        if known is not None and known != dictionary_fingerprint(self.src_dict):
            raise LSGError(
                f"the dictionary in {self.data_folder} is not the one that the checkpoint was trained with: use data "
                "that were preprocessed with the checkpoint's tokenizer"
            )
        self.kept_part = self.kept_part.with_checkpoint(state_dict.get(PART_STATE))
        own = (DICTIONARY_STATE, PART_STATE)
        super().load_state_dict({name: value for name, value in state_dict.items() if name not in own})

    def build_model(self, cfg: Any, from_checkpoint: bool = False) -> nn.Module:
        """Build the model, freeze its parts, and store its maximum lengths, to which sources and targets are cut.

        Raises:
            LSGError: it is no encoder-decoder, or --freeze-encoder was given for an encoder that this package does not
                know.
        """
        model = super().build_model(cfg, from_checkpoint)
        if not from_checkpoint:  # else it is built for inference
            if self.cfg.freeze_encoder:
                freeze_encoder(model)
            if self.cfg.freeze_embeddings:
                freeze_embeddings(model)
            give_weights(model, bool(self.cfg.load_alignments))
        positions = model.max_positions()
        if not isinstance(positions, tuple):
            raise LSGError(
                f"{type(model).__name__} is no encoder-decoder, which this task needs: use another --arch or "
                "--path, or the model's own task (masked_lm, sentence_prediction)"
            )
        source, target = positions
        if self.model_positions is not None:  # of an ensemble, the shortest counts
            source, target = min(source, self.model_positions[0]), min(target, self.model_positions[1])
        self.model_positions = (source, target)
        return model

    def max_positions(self) -> tuple[int, int]:
        """The longest source and target in tokens, including special tokens."""
        asked = (self.cfg.max_source_positions, self.cfg.max_target_positions)
        known = self.model_positions or (None, None)
        return tuple(min((n for n in pair if n is not None), default=2**31) for pair in zip(asked, known, strict=True))

    def load_dataset(self, split: str, epoch: int = 1, combine: bool = False, **kwargs: Any) -> None:
        """Load a split, with or without targets, and bring its sequences into the model's format.

        Raises:
            LSGError: there is no such split, or its files are damaged or of two runs.
        """
        if not is_name_of_split(split):
            raise missing_split(self.data_folder, split)
        folders = [Path(path) for path in utils.split_paths(self.cfg.data)]
        for folder in folders:
            check_pairs(folder, split)
        try:
            with unchanged_sequences(self.cfg):
                super().load_dataset(split, epoch, combine, **kwargs)
        except FileNotFoundError as error:
            raise missing_split(self.data_folder, split) from error
        dataset, is_train = self.datasets[split], split == self.cfg.train_subset
        folder = folders[(epoch - 1) % len(folders) if is_train else 0]
        languages = read_languages(folder, split, len(dataset))
        part = self.kept_part.of(part_of_split(folder, split))
        if is_train:
            self.trained_part = part
        queries = read_queries(folder, split, len(dataset))
        self.datasets[split] = self._formatted(dataset, Origin(split, part, queries), languages)

    def build_dataset_for_inference(
        self, src_tokens: list[Tensor], src_lengths: list[int], constraints: Any = None
    ) -> LanguagePairDataset:
        """The sources of fairseq-interactive, which end in `</s>`, in the model's format."""
        sources = self._format(ListDataset(src_tokens, src_lengths), "source", Origin("input", self.kept_part.of()))
        return LanguagePairDataset(
            sources,
            sources.sizes,
            self.source_dictionary,
            tgt_dict=self.target_dictionary,
            left_pad_source=False,
            constraints=constraints,
        )

    def filter_indices_by_size(
        self, indices: Any, dataset: FairseqDataset, max_positions: Any = None, ignore_invalid_inputs: bool = False
    ) -> Any:
        """Refuse examples that fairseq would drop: those that even after cutting do not fit into --max-tokens.

        Raises:
            LSGError: there are such examples.
        """
        kept, ignored = dataset.filter_indices_by_size(indices, max_positions)
        if len(ignored):
            longest = max(np.max(dataset.size(index)) for index in ignored)
            raise LSGError(
                f"{len(ignored)} examples of up to {longest} tokens exceed the limit {max_positions} and would be "
                f"dropped: use --max-tokens {longest} or more, or cut them with --max-source-positions"
            )
        return kept

    def build_generator(
        self,
        models: list[nn.Module],
        args: Namespace | DictConfig,
        seq_gen_cls: type | None = None,
        extra_gen_cls_kwargs: dict[str, Any] | None = None,
        prefix_allowed_tokens_fn: Any = None,
    ) -> Any:
        """An LSGSequenceGenerator with fairseq's options and the generation settings of the checkpoints of --path.

        Raises:
            LSGError: an option needs summaries that are missing, or is not supported, or a symbol is unknown.
        """
        args = with_checkpoint_settings(args, self.cfg, self.checkpoint_paths)
        extra = dict(extra_gen_cls_kwargs or {})
        alignment = getattr(args, "print_alignment", None)
        require_summaries_for(args, self.datasets)
        require_hard_alignment(alignment)
        if getattr(args, "score_reference", False) and alignment == "soft":
            return SoftScorer(self.tgt_dict, compute_alignment=True)
        if seq_gen_cls is None:
            seq_gen_cls = AligningSequenceGenerator if alignment else LSGSequenceGenerator
            extra |= {"print_alignment": alignment} if alignment else {}
            spoken = in_task_languages(self.sequence_format, args, self.tgt_dict)
            # If each example has its language, the sample says how its output begins.
            extra["decoder_start"] = spoken.start() if spoken.has_target else None
            extra |= self._forced_tokens(args, spoken.forced_first() if spoken.has_target else None)
        return super().build_generator(models, args, seq_gen_cls, extra, prefix_allowed_tokens_fn)

    def inference_step(
        self, generator: Any, models: list[nn.Module], sample: Any, prefix_tokens: Any = None, constraints: Any = None
    ) -> Any:
        """fairseq's; raises LSGError if --constraints is used with binarized data."""
        require_constraints(generator, constraints)
        return super().inference_step(generator, models, sample, prefix_tokens, constraints)

    def train_step(self, sample: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """fairseq's; raises LSGError if the documents have no summaries."""
        require_summaries(sample)
        return super().train_step(sample, *args, **kwargs)

    def valid_step(self, sample: dict[str, Any], model: nn.Module, criterion: Any) -> tuple[Any, Any, dict[str, Any]]:
        """fairseq's, and ROUGE with --eval-rouge; raises LSGError if the documents have no summaries."""
        require_summaries(sample)
        return super().valid_step(sample, model, criterion)

    def build_bpe(self, args: Any) -> Any:
        """The bpe of --bpe, else the tokenizer beside the data, so that outputs are detokenized by default."""
        return super().build_bpe(args) or (self.data_bpe and LineBPE(self.data_bpe, self._tokenize))

    def _tokenize(self, text: str) -> list[str]:
        """The tokens of a text; of a far too long one, only as many as the kept part needs."""
        room = self.max_positions()[0]
        pieces, number = pieces_to_read(text, room, self.kept_part.of(), self.data_bpe.tokenizer.encode)
        if number is not None:
            logger.warning(f"a text of {len(text):,} characters has about {number:,} tokens: it is not read completely")
        return [token for piece in pieces for token in piece]

    def _formatted(
        self, dataset: LanguagePairDataset, origin: Origin, languages: Sequence[tuple[str, str]] | None = None
    ) -> LanguagePairDataset:
        """The pairs in the family's format; `languages` are those of each source and target, None: the task's."""
        spoken = list(zip(*languages, strict=True)) if languages else [("",), ("",)]
        sources = self._format(dataset.src, "source", origin, spoken[0])
        targets = None if dataset.tgt is None else self._format(dataset.tgt, "target", origin, spoken[1])
        values = decoder_starts(self.sequence_format, self.tgt_dict, spoken[1]) if languages else {}
        if origin.queries is not None:
            values["query_length"] = torch.tensor(origin.queries)
        return ValuedPairDataset(
            values,
            sources,
            sources.sizes,
            self.src_dict,
            targets,
            None if targets is None else targets.sizes,
            self.tgt_dict,
            left_pad_source=self.cfg.left_pad_source,
            left_pad_target=self.cfg.left_pad_target,
            align_dataset=dataset.align_dataset and MovedAlignments(dataset.align_dataset, sources, targets),
            num_buckets=self.cfg.num_batch_buckets,
            shuffle=dataset.shuffle,
            # The collater puts this token in front of the decoder's input; Pegasus starts from <s>.
            eos=index_of_symbol(self.tgt_dict, self.sequence_format.start(spoken[1][0])),
            pad_to_multiple=self.cfg.required_seq_len_multiple,
        )

    def _format(
        self, tokens: FairseqDataset, side: str, origin: Origin, languages: Sequence[str] = ("",)
    ) -> FairseqDataset:
        """Cut the sequences of a side and put the family's special tokens and language codes around them."""
        source = side == "source"
        dictionary = self.src_dict if source else self.tgt_dict
        ends = {
            code: tuple(indices_of_symbols(dictionary, part) for part in self.sequence_format.ends(side, code))
            for code in dict.fromkeys(languages)
        }
        around = [ends[code] for code in languages]
        room = self.max_positions()[0 if source else 1] - sum(map(len, around[0]))
        part, leads = (origin.part, [lead_of(n) for n in origin.queries or ()]) if source else (HEAD, [])
        check_room(leads, room, f"{origin.split}: document")
        self._report_cut(np.asarray(tokens.sizes) - 1, room, f"{side}s", replace(origin, part=part))
        kept = KeptPartDataset(StripTokenDataset(tokens, dictionary.eos()), room, part, leads or None)
        return SurroundedDataset(kept, around)

    def _report_cut(self, lengths: np.ndarray, room: int, sides: str, origin: Origin) -> None:
        too_long = lengths > room
        if too_long.any():
            logger.warning(
                f"{origin.split}: {too_long.sum():,} of {len(lengths):,} {sides} were cut to {room:,} tokens of text, "
                f"the {origin.part} (the longest has {lengths.max():,}; {(lengths - room)[too_long].sum():,} tokens "
                "are not read)"
            )

    def _forced_tokens(self, args: Namespace | DictConfig, language: str | None) -> dict[str, int | None]:
        """The generator's forced tokens: from the generation settings, else the task's, else the output language's."""
        symbol = getattr(args, "forced_first_token", None) or self.cfg.forced_first_token or language
        forced_eos = getattr(args, "forced_eos", None)
        is_forced = self.cfg.forced_eos if forced_eos is None else forced_eos
        first = None if symbol is None else self.target_dictionary.index(symbol)
        if symbol is not None and self.target_dictionary[first] != symbol:
            raise LSGError(f"--forced-first-token {symbol!r} is not in the dictionary: use one of its symbols")
        return {"forced_first_token": first, "forced_last_token": self.tgt_dict.eos() if is_forced else None}

    def _check_dictionaries(self) -> None:
        """Check that dictionaries of lsg-preprocess, whose report is beside them, are still those of its tokenizer."""
        if self.data_bpe is None or not (self.data_folder / REPORT_FILE).is_file():
            return
        own = build_dictionary(self.data_bpe.tokenizer).symbols
        # One may have more symbols at its end (filler) or fewer (fairseq's recipes go without <mask>).
        if any(found.symbols[: len(own)] != own[: len(found)] for found in (self.src_dict, self.tgt_dict)):
            raise LSGError(
                f"a dictionary in {self.data_folder} is not that of the tokenizer beside it, so ids would be other "
                "words: preprocess the data again (lsg-preprocess)"
            )

    def _bpe_beside_data(self) -> LSGBPE | None:
        folder = self.data_folder / "tokenizer"
        return LSGBPE.from_folder(folder) if has_tokenizer(folder) else None
