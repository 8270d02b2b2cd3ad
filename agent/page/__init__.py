"""One incident for people's eyes: the gauges over time, and a self-contained HTML page.

``series`` is plain arithmetic and serves the terminal too; ``render`` and ``charts`` load jinja2, which the
service never does: import them where they are needed.
"""
