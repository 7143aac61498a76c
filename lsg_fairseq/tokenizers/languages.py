"""Language codes: what they are called in Hugging Face and in fairseq, and where a tokenizer class puts them."""

from __future__ import annotations

from collections.abc import Iterable

# arXiv 2001.08210 (mBART, 25 languages) and 2008.00401 (mBART-50), in the order of their vocabularies.
CODES_25 = tuple(
    "ar_AR cs_CZ de_DE en_XX es_XX et_EE fi_FI fr_XX gu_IN hi_IN it_IT ja_XX kk_KZ ko_KR lt_LT lv_LV my_MM ne_NP nl_XX "
    "ro_RO ru_RU si_LK tr_TR vi_VN zh_CN".split()
)
CODES_50 = CODES_25 + tuple(
    "af_ZA az_AZ bn_IN fa_IR he_IL hr_HR id_ID ka_GE km_KH mk_MK ml_IN mn_MN mr_IN pl_PL ps_AF pt_XX sv_SE sw_KE ta_IN "
    "te_IN th_TH tl_XX uk_UA ur_PK xh_ZA gl_ES sl_SI".split()
)
# Where the code of a sequence stands: behind its `</s>` (mBART), or in front of its text in place of `<s>` (mBART-50).
BEHIND, FRONT = "behind", "front"
# By the beginning of tokenizer_class, the longest first.
PLACES = {"MBart50": FRONT, "MBart": BEHIND}


def language_symbol(code: str) -> str:
    """fairseq's name of a language code, in brackets; a name that has them already stays."""
    return code if code.startswith("[") else f"[{code}]"


def language_symbols(tokens: Iterable[str]) -> dict[str, str]:
    """Hugging Face's names of the language codes among the tokens, each with fairseq's."""
    known = set(tokens)
    return {code: language_symbol(code) for code in CODES_50 if code in known}


def place_of_languages(tokenizer_class: str, tokens: Iterable[str] = ()) -> str:
    """BEHIND, FRONT or "" (no language codes), by the class; where none is named, by the codes among the tokens."""
    if tokenizer_class:
        return next((place for name, place in PLACES.items() if tokenizer_class.startswith(name)), "")
    codes = language_symbols(tokens)
    if len(codes) == len(CODES_50):
        return FRONT
    return BEHIND if set(codes) == set(CODES_25) else ""
