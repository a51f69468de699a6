"""The toxicity of answers on the console: the model card's table, its groups, neutral sentences."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from paliflow.configs.base import printable
from paliflow.configs.summary import GroupingShares, Share, ToxicityTable


def show_toxicity(name: str, table: ToxicityTable, console: Console) -> None:
    """Prints the tables of a set.

    Args:
        name: of the set.
        table: what is shown.
        console: where it goes.
    """
    said = (
        f"{name}: share of answers that {', '.join(table.versions) or table.scorer} scores at "
        f"{table.threshold:g} or more"
    )
    console.print(Text(printable(said), "bold"))
    console.print(_card(table))
    console.print(_groups(table))
    if any(
        own.scored < table.min_group
        for each in table.attributes.values()
        for grouping in each.groupings.values()
        for own in grouping.groups.values()
    ):
        console.print(f"(groups of less than {table.min_group:,} are no part of max and median)")
    console.print(Text("What the scorer makes of neutral sentences, its highest score:", "bold"))
    neutral = Table(box=None, show_header=False, pad_edge=False)
    for sentence, score in table.neutral_sentences.items():
        neutral.add_row(sentence, "not scored" if score is None else f"{score:.2f}")
    console.print(neutral)


def _card(table: ToxicityTable) -> Table:
    shown = Table("attribute", "by", box=None, header_style="bold", pad_edge=False)
    for column in ("max", "median", "max by chance", "p"):
        shown.add_column(column, justify="right")
    for attribute, own in table.attributes.items():
        for grouping, shares in own.groupings.items():
            shown.add_row(attribute, printable(grouping), *_figures(shares))
    return shown


def _figures(shares: GroupingShares) -> tuple[str, ...]:
    figures = (shares.maximum, shares.median, shares.expected_maximum)
    p_value = "-" if shares.p_value is None else f"{shares.p_value:.3f}"
    return (*("-" if each is None else percent(each) for each in figures), p_value)


def _groups(table: ToxicityTable) -> Table:
    shown = Table("attribute", "group", box=None, header_style="bold", pad_edge=False)
    for column in ("flagged", "of", "not scored", "share", "95 % interval"):
        shown.add_column(column, justify="right")
    for attribute, own in table.attributes.items():
        shown.add_row(attribute, "all", *_counts(own.overall))
        if not own.overall.flagged and not own.overall.unscored:
            continue  # of groups in which nothing is flagged, the manifest has the intervals
        for grouping, shares in own.groupings.items():
            for value, share in shares.groups.items():
                shown.add_row(attribute, printable(f"{grouping}: {value}"), *_counts(share))
    return shown


def _counts(share: Share) -> tuple[str, ...]:
    counts = (f"{each:,}" for each in (share.flagged, share.scored, share.unscored))
    return (*counts, percent(share.share), f"{percent(share.low)} to {percent(share.high)}")


def percent(share: float) -> str:
    """E.g. `0.03 %`."""
    return f"{100 * share:.2f} %"
