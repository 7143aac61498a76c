"""Which class a checkpoint's arguments make fairseq build, and that it is one of ours: a checkpoint must not choose."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from fairseq.models import ARCH_MODEL_REGISTRY, MODEL_DATACLASS_REGISTRY, MODEL_REGISTRY, BaseFairseqModel

from lsg_fairseq.models.lsg_model import LSGModelMixin
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.weights.families import family_of_arch


def check_architecture(args: Namespace, checkpoint: Path) -> None:
    """Refuse a model of another class than this package's and their subclasses.

    Raises:
        LSGError: the architecture is unknown, or registered with such a class.
    """
    if not is_lsg_architecture(args):
        known = sorted(name for name, model in ARCH_MODEL_REGISTRY.items() if issubclass(model, LSGModelMixin))
        raise LSGError(
            f"{checkpoint} asks for the architecture {_built_name(args)!r}, which is no LSG model (known: "
            f"{', '.join(known)}): if a package of yours registers it with a subclass of one, have that imported first "
            "(--user-dir DIR; in Python, import it)"
        )


def is_lsg_architecture(args: Namespace) -> bool:
    """Whether fairseq builds a class of this package, or a subclass, from these arguments."""
    name = _built_name(args)
    model = ARCH_MODEL_REGISTRY.get(name)
    if model is None and name in MODEL_DATACLASS_REGISTRY:
        model = MODEL_REGISTRY[name]
    return model is not None and issubclass(model, LSGModelMixin)


def own_flags(arch: str) -> set[str]:
    """The arguments that a subclass of somebody's own has beside those of its family's model."""
    model = ARCH_MODEL_REGISTRY[arch]
    stock = ARCH_MODEL_REGISTRY[family_of_arch(arch).arch]
    return set() if model is stock else _flags_of(model) - _flags_of(stock)


def _flags_of(model: type[BaseFairseqModel]) -> set[str]:
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    model.add_args(parser)
    return {action.dest for action in parser._actions}


def _built_name(args: Namespace) -> str:
    """The name that fairseq goes by, as in fairseq/models/__init__.py: `_name` comes before `arch`."""
    name = getattr(args, "_name", None) or getattr(args, "arch", None)
    return name if isinstance(name, str) else repr(name)
