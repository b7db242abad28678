"""Fetching a corpus's published files: official checksums, resumed by range, whole files only.

:func:`tusp.datasets.fetching.run.fetch` does it; :mod:`sources` knows where each corpus lies.
"""
