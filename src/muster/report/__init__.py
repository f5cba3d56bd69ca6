"""Reports of the ledger: one HTML page that needs no network, and Markdown.

entries -> summary (data) -> markdown | figures (SVG) -> page
"""
