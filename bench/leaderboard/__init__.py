"""Rows to people: joined with their campaign, then terminal, JSON, CSV, Markdown, HTML and figures.

Everything here is a pure function of rows (see `row`), of what is shown beside them (`attachments`) and of
the campaign that they are shown in (`rank`). `tables` and `fields` define what is shown, `findings` decides what the
rows say, `texts` and `formats` word it; the other modules are the forms.
"""
