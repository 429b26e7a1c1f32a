"""What programs and studies share: bases, servers, traffic, timing, the form of a report.

Imports no program.
"""
