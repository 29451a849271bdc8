"""Rows to people: joined with their campaign, then terminal, JSON, CSV, Markdown, HTML and figures.

Everything here is a pure function of rows (see `row`), of optional side material that is shown beside them (see
`side`) and of the campaign that they are shown in (see `rank`).
"""
