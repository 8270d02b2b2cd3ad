"""One incident for people's eyes: the gauges over time, a plain text, and a self-contained HTML page.

``series`` is plain arithmetic, and ``text`` serves the terminal and the service; ``render`` and ``charts`` load jinja2,
which the service never does: import them where they are needed.
"""
