"""The few kinds of panels that the dashboards are made of, and what they have in common."""

from __future__ import annotations

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    LegendDisplayMode,
    LegendPlacement,
    StackingMode,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    VariableRefresh,
    VariableSort,
)

DATASOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
HALF, THIRD, QUARTER, SIXTH = 12, 8, 6, 4
"""Widths of panels: a row has 24 columns."""

Query = tuple[str, str]
"""PromQL, and what its series are called: a text with `{{label}}` in it."""


def board(uid: str, title: str, description: str, *variables: dashboard.QueryVariable) -> dashboard.Dashboard:
    """An empty dashboard of the gateway, with its data source and these variables to choose from."""
    source = dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")
    others = dashboard.DashboardLink("Pareto Gateway").tags(["pareto-gateway"]).as_dropdown(as_dropdown=True)
    board = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags(["pareto-gateway"])
        .link(others.include_vars(include_vars=True).keep_time(keep_time=True))
        .time("now-1h", "now")
        .refresh("10s")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(source)
    )
    for variable in variables:
        board.with_variable(variable)
    return board


def choice(name: str, label: str, query: str) -> dashboard.QueryVariable:
    """A variable: one of the label's values that a query finds, named `label_values(metric, label)`."""
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(DATASOURCE)
        .query({"query": query, "refId": f"variable-{name}"})
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
    )


def graph(
    title: str,
    unit: str,
    *queries: Query,
    about: str = "",
    span: int = HALF,
    most: float | None = None,
    stacked: bool = False,
) -> timeseries.Panel:
    """Lines over time, from zero on (to `most`, where that is the most there can be)."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(about)
        .datasource(DATASOURCE)
        .unit(unit)
        .span(span)
        .height(8)
        .axis_soft_min(0)
        .fill_opacity(40 if stacked else 8)
        .line_width(1)
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(show_legend=True)
        )
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
    )
    if most is not None:
        panel.max(most)
    if stacked:
        panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    for number, (expression, legend) in enumerate(queries):
        panel.with_target(_target(number, expression, legend))
    return panel


def number(title: str, unit: str, expression: str, about: str = "", span: int = SIXTH) -> stat.Panel:
    """The latest value, large, over a small line of its past."""
    return (
        stat.Panel()
        .title(title)
        .description(about)
        .datasource(DATASOURCE)
        .unit(unit)
        .span(span)
        .height(4)
        .color_mode(BigValueColorMode.NONE)
        .graph_mode(BigValueGraphMode.AREA)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .with_target(_target(0, expression, ""))
    )


def quantiles(histogram: str, matchers: str = "", *, since_start: bool = False) -> tuple[Query, ...]:
    """The median, the 95th and the 99th percentile of a histogram: of late, or of all that a replica has counted.

    The latter is for what happens seldom, of which most moments have no late.
    """
    counts = f"{histogram}_bucket{matchers}"
    buckets = f"sum by (le) ({counts if since_start else f'rate({counts}[$__rate_interval])'})"
    return tuple((f"histogram_quantile({share}, {buckets})", f"p{share * 100:g}") for share in (0.5, 0.95, 0.99))


def _target(number: int, expression: str, legend: str) -> prometheus.Dataquery:
    return (
        prometheus.Dataquery()
        .datasource(DATASOURCE)
        .expr(expression)
        .legend_format(legend or "__auto")
        .ref_id(chr(ord("A") + number))
    )
