"""What the JSON files beside a vocabulary say: names of special tokens, added tokens, and the tokenizer's class."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.weights.limits import check_file

CONFIG_FILE, SETTINGS_FILE, ADDED_FILE = "config.json", "tokenizer_config.json", "added_tokens.json"
# Classes of transformers that any tokenizer may be saved with: they say nothing about its kind.
GENERIC_CLASSES = ("PreTrainedTokenizer", "TokenizersBackend", "SentencePieceBackend", "PythonBackend")
# The model types whose tokenizer's class decides about the order of ids.
CLASS_OF_MODEL_TYPE = {
    "pegasus": "PegasusTokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
    "camembert": "CamembertTokenizer",
}
KIND_FIELDS = ("tokenizer_class", "model_type")
# Settings that are read here.
TOKEN_NAMES = frozenset(f"{role}_token" for role in ("pad", "cls", "bos", "sep", "eos", "unk", "mask"))
SETTING_TYPES: dict[str, type] = {
    "tokenizer_class": str,
    "added_tokens_decoder": dict,
    "offset": int,
    **dict.fromkeys(("src_lang", "tgt_lang"), str),
    **dict.fromkeys(("add_prefix_space", "do_lower_case", "strip_accents", "tokenize_chinese_chars"), bool),
}


def read_settings(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json over special_tokens_map.json; every *_token as a plain string, null as not stated.

    Raises:
        LSGError: a file is not a JSON object, or a setting has another type than transformers writes.
    """
    settings: dict[str, Any] = {}
    for name in ("special_tokens_map.json", SETTINGS_FILE):
        # To BERT's normalizer, no strip_accents is an answer of its own.
        stated = {k: v for k, v in read_json(folder / name).items() if v is not None or k == "strip_accents"}
        _check_settings(folder / name, stated)
        settings |= {k: token_string(v) if k.endswith("_token") else v for k, v in stated.items()}
    return settings


def _check_settings(path: Path, settings: Mapping[str, Any]) -> None:
    for name, value in settings.items():
        wanted = str if name in TOKEN_NAMES else SETTING_TYPES.get(name)
        plain = token_string(value) if name in TOKEN_NAMES else value
        if wanted is not None and value is not None and type(plain) is not wanted:
            raise LSGError(
                f"{path} must state {name} as a {wanted.__name__}, not {value!r:.80}: correct it, or download it again"
            )


def named_kind(
    folder: Path, settings: Mapping[str, Any], config: Mapping[str, Any] | None
) -> tuple[str, dict[str, Any]]:
    """The tokenizer's class, and the fields of config.json that it was taken from ({} if the settings name it).

    As in transformers: tokenizer_config.json's class, config.json's, then that of the model_type; "" if there is none.

    Args:
        config: stands in for a config.json that the folder is without.
    """
    stated = settings.get("tokenizer_class", "")
    if not is_generic(stated):
        return stated, {}
    config = read_json(folder / CONFIG_FILE) or config or {}
    fields = {name: config[name] for name in KIND_FIELDS if isinstance(config.get(name), str)}
    model_type = fields.get("model_type", "").removeprefix("lsg_").removeprefix("lsg-")
    candidates = (fields.get("tokenizer_class", ""), CLASS_OF_MODEL_TYPE.get(model_type, ""))
    return next((name for name in candidates if not is_generic(name)), ""), fields


def is_generic(tokenizer_class: str) -> bool:
    """Whether a class says nothing about the kind of tokenizer."""
    return not tokenizer_class or tokenizer_class.removesuffix("Fast") in GENERIC_CLASSES


def added_tokens(folder: Path, settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Token string -> id and flags of the tokens that the settings add, in the order of their ids.

    Raises:
        LSGError: an entry is not as transformers writes it.
    """
    listed = (settings.get(name) for name in ("additional_special_tokens", "extra_special_tokens"))
    special = {token_string(token) for names in listed if isinstance(names, list) for token in names}
    added: dict[int, dict[str, Any]] = {}
    with clear_error(folder / ADDED_FILE, "ids of added tokens"):
        for name, index in read_json(folder / ADDED_FILE).items():
            added[int(index)] = {"content": name, **({"special": True} if name in special else {})}
    with clear_error(folder / SETTINGS_FILE, "settings with an added_tokens_decoder"):
        added |= {int(index): dict(entry) for index, entry in settings.get("added_tokens_decoder", {}).items()}
        return {added[index].pop("content"): {"id": index, **added[index]} for index in sorted(added)}


def token_string(token: Any) -> Any:
    """The string of a token that is written out with its flags; anything else as it is."""
    return token.get("content") if isinstance(token, dict) else token


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; {} if there is no such file.

    Raises:
        LSGError: it is something else.
    """
    if not path.is_file():
        return {}
    check_file(path)
    with clear_error(path, "a JSON object"):
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"it holds a {type(content).__name__}")
        return content


@contextmanager
def clear_error(path: Path, wanted: str) -> Iterator[None]:
    """Turn whatever a reader raises (tokenizers raises bare Exception) into one sentence."""
    try:
        yield
    except LSGError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise LSGError(f"{path} cannot be read as {wanted}: {reason}") from error
