"""What packages say of themselves -> examples, or the reasons why not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping, Sequence

from tqdm import tqdm

from examples.manpages.corpus.examples import body_without, check_body, check_description
from examples.manpages.corpus.pages import Example, Package, Reason, UnusablePage
from examples.manpages.corpus.rendering import Section
from examples.manpages.descriptions.boilerplate import has_no_content, shared_moulds, without_boilerplate
from examples.manpages.descriptions.stanzas import Description
from examples.manpages.descriptions.text import paragraphs_of_description, without_packaging

SECTION = "package"
FEWEST_WORDS = 15


def read_examples(
    descriptions: Sequence[Description], sources: Mapping[str, str]
) -> tuple[list[Example], Counter[Reason]]:
    """The examples in the order of the descriptions, and how many descriptions gave none, by reason."""
    known, dropped = [], Counter()
    for description in descriptions:
        if source := sources.get(description.package):
            package = Package(description.package, source=source)
            known.append((package, description.synopsis, paragraphs_of_description(description.extended)))
        else:
            dropped[Reason.UNKNOWN_SOURCE] += 1
    shared = shared_moulds((package, paragraphs) for package, _, paragraphs in known)
    examples = []
    bar = tqdm(known, desc="reading descriptions", unit="package", disable=len(known) < 1000)
    for package, synopsis, paragraphs in bar:
        try:
            examples.append(example_of_package(package, synopsis, paragraphs, shared))
        except UnusablePage as unusable:
            dropped[unusable.reason] += 1
    return examples, dropped


def example_of_package(
    package: Package, synopsis: str, paragraphs: Sequence[str], shared: Container[str] = ()
) -> Example:
    """The example that a description gives; `shared` has the moulds of sentences that many packages have.

    Raises:
        UnusablePage: it gives none.
    """
    summary = without_packaging(synopsis)
    own = [text for paragraph in paragraphs if (text := without_boilerplate(paragraph, package.name, shared))]
    if has_no_content(summary) or (paragraphs and not own):
        raise UnusablePage(Reason.NO_CONTENT)
    check_description(summary)
    document = body_without([Section("", own)], summary)
    check_body(document, FEWEST_WORDS)
    return Example(document, summary, package.name, SECTION, package.name, package.source)
