"""Broken files by the thousand, and what tusp makes of them.

``python -m tests.fuzz --format edf --count 2000 --seed 1`` (or ``--all``) breaks small sound files of one format in
many ways and reads each with everything that tusp reads it with: discovery, channels, problems, hypnogram, samples,
audit. Allowed is a refusal in one line that names the file, or a night that is what the bytes say as a second,
independent reader reads them. Everything else (another exception, a hang, a crash, too much memory, a night that is
not in the bytes, a night dropped in silence) is a finding, and kept where ``--keep`` says; ``--replay`` runs it again.
"""
