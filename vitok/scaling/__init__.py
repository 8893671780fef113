"""From finished runs to scaling laws: load, fit, judge, draw, report.

Needs numpy, scipy and matplotlib alone, so that a notebook elsewhere can open
a sweep without installing what trained it:

  from vitok import scaling
  found = scaling.analyse('gs://bucket/sweep')
  for verdict in found.verdicts:
    print(verdict.claim.text, verdict.word, verdict.reason)
  scaling.figures.law(found, 'code_floats')
"""

from vitok.scaling import figures, panels, style
from vitok.scaling.analysis import Analysis, analyse
from vitok.scaling.claims import Claim, fingerprint, parse
from vitok.scaling.fits import smallest_effect
from vitok.scaling.page import to_json, write
from vitok.scaling.runs import load_runs
from vitok.scaling.table import rows, to_csv

__all__ = [
    'Analysis', 'Claim', 'analyse', 'figures', 'fingerprint', 'load_runs',
    'panels', 'parse', 'rows', 'smallest_effect', 'style', 'to_csv', 'to_json',
    'write',
]
