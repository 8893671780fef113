"""From finished runs to scaling laws: load, fit, judge, draw, report.

Needs numpy, scipy, matplotlib and etils alone, so that a notebook elsewhere
can open a sweep without installing what trained it:

  from vitok.scaling import analysis, figures
  found = analysis.analyse('gs://bucket/sweep')
  for verdict in found.verdicts:
    print(verdict.claim.text, verdict.word, verdict.reason)
  figures.law(found, 'code_floats')

claims     what is judged, by which numbers; what a sweep's files hold
responses  what a law may be of         estimates each rule's number
runs       reads a sweep's workdir      table     a row per unit
bootstrap  seeds and images drawn anew  fits      laws, tests of fit
regression what E leaves unexplained    iso       best sizes for a budget
forecast   a run told in advance        checks    converged? tuned? repeated?
verdicts   one of four per claim        analysis  all of it at once
report, sections                        HTML, PNGs, CSV, JSON
figures, panels, curves, style          what is drawn
published  the paper's own points
"""
