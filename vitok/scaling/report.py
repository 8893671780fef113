"""The report: one HTML file with its figures inside, PNGs and a CSV beside.

Every number on it is computed from the sweep's workdir; none is typed in.
"""

import base64
import dataclasses
import html
import json
import re
from collections.abc import Iterable, Mapping

from etils import epath

from vitok import files
from vitok.scaling import (
    analysis,
    bootstrap,
    checks,
    curves,
    figures,
    forecast,
    panels,
    sections,
    style,
    table,
    verdicts,
)
from vitok.scaling import claims as claims_lib

_CSS = """
body{font:15px/1.5 system-ui,sans-serif;color:#1f2430;max-width:1080px;
margin:2rem auto;padding:0 1rem}h1{font-size:1.7rem;margin-bottom:.2rem}
h2{margin-top:2.4rem;border-bottom:1px solid #d9dde5;padding-bottom:.2rem}
img{max-width:100%;height:auto}figure{margin:1.2rem 0}figcaption,.small{color:
#5b6270;font-size:.88rem}table{border-collapse:collapse;font-size:.84rem;
margin:.6rem 0;display:block;overflow-x:auto}th,td{padding:.25rem .6rem;
border-bottom:1px solid #e6e9ef;text-align:right;white-space:nowrap}
th:first-child,td:first-child{text-align:left}th{color:#5b6270}
.claim{border:1px solid #d9dde5;border-left:6px solid var(--c);
border-radius:6px;padding:.6rem 1rem;margin:.8rem 0}
.word{background:var(--c);color:#fff;border-radius:4px;padding:.1rem .5rem;
font-weight:600;font-size:.85rem;margin-right:.5rem}
.note{background:#fff6e0;border:1px solid #eed9a0;border-radius:6px;
padding:.6rem 1rem;margin:.8rem 0}pre{background:#f5f6f9;padding:.8rem;
overflow-x:auto;font-size:.8rem;white-space:pre-wrap}
ul{margin:.3rem 0;padding-left:1.2rem}
"""
_COLOUR = {verdicts.HOLDS: '#00805c', verdicts.FAILS: '#b3403a',
           verdicts.UNDECIDED: '#8a6d1d', verdicts.UNTESTABLE: '#5b6270',
           verdicts.DEMONSTRATION: '#44607f'}
_UNITS = ('unit', 'state', 'seed', 'model', 'code_floats', 'parameters',
          'train_flops', 'steps', 'learning_rate', 'psnr', 'ssim', 'mse',
          'pca_psnr', 'below_pca', 'kl_bits', 'coded_bits', 'priced_seconds',
          'seconds')


def write(workdir, *, claims: Iterable[Mapping] | None = None,
          count: int = bootstrap.COUNT) -> epath.Path:
  """Writes `<workdir>/report/`: index.html, report.json, results.csv, PNGs.

  Args:
    workdir: of a sweep, finished or not.
    claims: those of the experiment file by now. The ones recorded at launch
      judge; if these are others, the page says so.
    count: replicates of the bootstrap.

  Returns:
    The path of index.html.

  Raises:
    InputError: as `analysis.analyse`.
  """
  found = analysis.analyse(workdir, count=count)
  folder = epath.Path(workdir) / 'report'
  drawn = {name: style.png(figure) for name, figure in _figures(found).items()
           if figure is not None}
  for name, data in drawn.items():
    files.write_bytes(folder / f'{name}.png', data)
  files.write_bytes(folder / 'results.csv', table.to_csv(found.rows).encode())
  summary = json.dumps(to_json(found), indent=1, allow_nan=False)
  files.write_bytes(folder / 'report.json', summary.encode())
  files.write_bytes(folder / 'index.html', _page(found, drawn, claims).encode())
  return folder / 'index.html'


def _figures(found):
  """{file stem: figure}, in the order of the page."""
  if not found.sweep.done:
    return {}
  drawn = {'claims': figures.claims(found), 'budgets': curves.budgets(found),
           'forecasts': curves.forecasts(found),
           'tradeoff': curves.tradeoff(found)}
  # Over the size of a budget's curve a straight law says nothing.
  bent = {v.claim.x[0] for v in found.verdicts if v.claim.rule == 'optimum'}
  for x in [x for x in found.sizes if x not in bent]:
    for y in found.data:
      stem = re.sub(r'\W', '_', f'{y.removeprefix("log2_")}_{x}')
      drawn[stem] = figures.law(found, x, y)
  x = found.sizes[0]
  return drawn | {
      'reconstructions': panels.pictures(found, x),
      'pairs': panels.pairs(found), 'training': panels.training(found, x),
      'converged': panels.converged(found, x), 'bits': panels.bits(found, x),
      'cost': panels.cost(found)}


def to_json(found: analysis.Analysis) -> dict:
  """Verdicts and laws for programs; what is not known is None."""
  return dict(
      experiment=found.sweep.info['experiment'],
      preset=found.sweep.info['preset'],
      grade=_grade(found), rules=dict(
          claims=claims_lib.fingerprint(found.sweep.claims),
          code=claims_lib.rules(),
          code_at_launch=found.sweep.info.get('rules')),
      protocol=next((run.protocol for run in found.sweep.done), None),
      units=dict(all=len(found.rows), missing=len(found.missing),
                 failed=found.failed),
      claims=[dict(
          name=v.claim.name, text=v.claim.text, verdict=v.shown,
          caveat=v.caveat.lstrip(', '), outcome=v.word, reason=v.reason,
          where=elsewhere(found, v), margin=v.claim.margin, estimate=v.estimate,
          interval=None if v.low is None else [v.low, v.high],
          slopes=_slopes(v), smallest_effect=v.smallest, used=v.used,
          flagged=v.flagged,
          checks=[dataclasses.asdict(check) for check in v.checks])
              for v in found.verdicts],
      not_made=checks.not_made(found.rows),
      regressions=[dict(
          y=one.y, terms={term: dict(
              slope=slope, interval=ends, partial_r2=one.partial[term])
                          for term, (slope, *ends) in one.slopes().items()},
          r2_first=one.alone, r2=one.fit.r2, beyond_first=one.unexplained,
          left_out=one.left_out) for one in found.regressions],
      forecast=dict(found.forecast, scores={
          name: dict(observed=score.observed, error=score.error,
                     covered=score.covered) for name, score in forecast.scores(
                         found.forecast, found.rows).items()})
      if found.forecast else None,
      laws=[sections.law_numbers(law) for law in found.laws])


def elsewhere(found: analysis.Analysis, verdict: verdicts.Verdict) -> str:
  """The command that tests a claim which this sweep cannot, or ''."""
  info = found.sweep.info
  if verdict.word != verdicts.UNTESTABLE or info['preset'] != 'cpu':
    return ''
  name = info['experiment']
  return (f'python -m vitok.sweep run experiments/{name}.py:gpu1 '
          f'--workdir=runs/{name}-gpu1')


def _slopes(verdict):
  """{column: [slope, low, high]} of the regression behind a verdict."""
  if verdict.fit is None:
    return {}
  slopes = {term: verdict.fit.slope(term) for term in verdict.fit.terms}
  return {term: [slope, *bootstrap.interval(slope_R, verdict.claim.level)]
          for term, (slope, slope_R) in slopes.items()}


def _grade(found):
  """Embedded photographs are a few dozen scenes: they show, not prove."""
  return 'demonstration' if found.sweep.demonstration else 'finding'


def _page(found, drawn, given):
  info = found.sweep.info
  title = f'{info["experiment"]}, preset {info["preset"]}'
  parts = [
      '<!doctype html><html lang="en"><meta charset="utf-8">',
      f'<title>{html.escape(title)}</title><style>{_CSS}</style>',
      f'<h1>{html.escape(info["about"].strip().splitlines()[0])}</h1>'
      if info.get('about') else '', f'<p class="small">{html.escape(title)}'
      f' · {len(found.sweep.done)} of {len(found.rows)} units done</p>']
  parts += [f'<div class="note">{text}</div>' for text in _notes(found, given)]
  parts += ['<h2>Verdicts</h2>',
            *(_claim(v, elsewhere(found, v)) for v in found.verdicts),
            '<p class="small">Not made in this sweep:</p><ul class="small">',
            *(f'<li>not made: {html.escape(line)}</li>'
              for line in checks.not_made(found.rows)), '</ul>']
  names = dict(
      claims='Statistics with their intervals; the shaded region is what is '
      'claimed.',
      budgets='Units of equal compute and their parabolas; hollow ones are '
      'below their own PCA, stars are the best sizes. Then these over the '
      'budget, hollow where the best size is at an edge of what was run; and '
      'what compute buys at each size of the code.',
      forecasts='What was written before the larger run, from the ladder.',
      tradeoff='Means of configurations and their seeds. At the right what '
      'the paper has, of its own data and networks.',
      reconstructions='Originals and reconstructions, same images at every '
      'size; PSNR of each.',
      pairs='Paired by image: differences between configurations vary far '
      'less from image to image than PSNR does.',
      training='Evaluations on the way: equal steps compare optimisation too.',
      converged='What longer training and other learning rates change.',
      bits='The same units by information instead of floats.',
      cost='Wall clock of each unit, against its price before the run.')
  law_caption = (
      'Thin bars: 90% over seeds and images; thick ones leave out what other '
      'images would do to all units alike. (Of Frechet distances: over seeds '
      'alone.) Dots are seeds. The grey band is the 90% interval of the slope '
      'alone: lack of fit is not in it, but in the residuals below. At the '
      "right, where it has such a figure, the paper's own points, read off its "
      'figures: other images, losses and averaging, so that they are on axes '
      'of their own and in no fit.')
  parts.append('<h2>Figures</h2>')
  parts += [
      f'<figure><img alt="{html.escape(name)}" src="data:image/png;base64,'
      f'{base64.b64encode(data).decode()}"><figcaption>'
      f'{names.get(name, law_caption)}</figcaption></figure>'
      for name, data in drawn.items()]
  parts += [sections.forecasts(found), sections.laws(found),
            sections.regressions(found), sections.pairs(found),
            sections.cost(found), '<h2>Units</h2>', sections.table(_UNITS, [
                [row[column] for column in _UNITS] for row in found.rows]),
            *_rules(found)]
  if found.sweep.done:
    protocol = (found.sweep.done[0].path / 'evaluation' / 'protocol.json')
    parts.append(f'<h2>Protocol</h2><pre>{html.escape(protocol.read_text())}'
                 '</pre>')
  if info.get('about'):
    parts.append('<h2>The experiment in its own words</h2>'
                 f'<pre>{html.escape(info["about"])}</pre>')
  return '\n'.join(parts)


def _rules(found):
  launched = found.sweep.info.get('rules')
  hashes = (claims_lib.fingerprint(found.sweep.claims), claims_lib.rules(),
            launched or 'not recorded')
  yield ('<h2>Rules</h2><p class="small">SHA-256 of the claims below, as '
         'recorded when the sweep was launched: <code>{}</code>. Of the code '
         'that judged by them: <code>{}</code>. Of that code at launch: '
         '<code>{}</code>.</p>'.format(*(html.escape(str(h)) for h in hashes)))
  listed = json.dumps(claims_lib.recorded(found.sweep.claims), indent=1)
  yield f'<pre>{html.escape(listed)}</pre>'


def _others_judge(found, given):
  """What has changed since launch of all that makes a verdict, if known."""
  stored, launched = found.sweep.claims, found.sweep.info.get('rules')
  if given is not None and claims_lib.parse(given) != stored:
    yield ('The claims in the experiment file are no longer those that this '
           'sweep was launched with ('
           f'{claims_lib.fingerprint(stored)[:12]}), which judge it here.')
  if launched and launched != claims_lib.rules():
    yield ('The verdicts are by other code than that of the launch: '
           f'{claims_lib.rules()[:12]} now, '
           f'{html.escape(str(launched)[:12])} then.')


def _notes(found, given):
  yield from _others_judge(found, given)
  if found.sweep.demonstration:
    yield ('<b>Demonstration.</b> Embedded photographs were used: too few '
           'scenes to support a finding, whatever the intervals say.')
  if found.missing:
    yield (f'<b>Unfinished.</b> {len(found.missing)} of {len(found.rows)} '
           'units are missing: ' + html.escape(', '.join(found.missing)))
  if found.failed:
    yield (f'<b>{len(found.failed)} units failed</b> and are left out: '
           + html.escape(', '.join(f'{unit} ({error})' for unit, error
                                   in found.failed.items())))
  flagged = [row['unit'] for row in found.rows
             if row['below_pca'] and row['role'] == 'law']
  if flagged:
    yield (f'<b>{len(flagged)} units are below their own patch PCA</b>, that '
           'is limited by optimisation, and left out of every law: '
           + html.escape(', '.join(flagged)))
  absent = {name.removesuffix('_absent'): why for run in found.sweep.done
            for name, why in run.numbers.items() if name.endswith('_absent')}
  for name, why in absent.items():
    yield f'<b>{html.escape(name)} is absent</b>: {html.escape(why)}'
  groups = {row['groups'] for row in found.rows if row['groups']}
  if groups and min(groups) < 10:
    yield (f'Intervals rest on {min(groups)} independent images (photographs)'
           ': they are rough.')


def _claim(verdict, command):
  claim = verdict.claim
  numbers = ''
  if verdict.estimate is not None:
    numbers = (f'Estimate {verdict.estimate:.3g}, {claim.level:.0%} interval '
               f'{verdict.low:.3g} to {verdict.high:.3g}; claimed: '
               f'{verdicts.region(claim)}. {verdict.used} units, '
               f'{verdict.flagged} flagged.')
    numbers += ' Per doubling: ' + ', '.join(
        f'{term} {sections.interval(slope, ends)}' for term, (slope, *ends)
        in _slopes(verdict).items()) + '.'
  if verdict.smallest is not None:
    numbers += (' Smallest effect this design detects: '
                f'{verdict.smallest:.2g}.')
  listed = ''.join(
      f'<li>{"met" if check.met else "<b>not met</b>"}: {check.name}, '
      f'{html.escape(check.detail)}</li>' for check in verdict.checks)
  if command:
    command = f' On one GPU: <code>{html.escape(command)}</code>'
  outcome = (f'By its rules alone: {verdict.word}. '
             if verdict.demonstration else '')
  return (f'<div class="claim" style="--c:{_COLOUR[verdict.shown]}">'
          f'<span class="word">{verdict.shown}{verdict.caveat}</span>'
          f'<b>{html.escape(claim.text)}</b><br>'
          f'{outcome}{html.escape(verdict.reason)}{command}<div class="small">'
          f'{html.escape(numbers)}'
          f'<ul>{listed}</ul></div></div>')


