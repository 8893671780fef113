"""The page: self-contained, whole for half a sweep, nothing typed in."""

import csv
import dataclasses
import html
import html.parser
import io
import json
import math
import re

import numpy as np
import pytest
from PIL import Image

from tests.scaling import synthetic
from vitok.scaling import (
    analysis,
    claims,
    figures,
    panels,
    report,
    style,
)

EQUAL = dict(name='equal', rule='equal_slopes', x=['tokens', 'channels'],
             margin=0.25, text='Tokens and channels are worth the same.')


def law(tokens, channels):
  return 4 + 2 * math.log2(tokens * channels)


def pictures(psnr, model):
  del psnr
  noise = np.random.default_rng(model['code_floats'])
  return tuple(noise.integers(0, 255, (2, 4, 1, 32, 32, 3), dtype=np.uint8))


def write(path, units, **more):
  more = dict(pictures=pictures) | more
  synthetic.write(path, units, [synthetic.LAW, EQUAL], **more)
  return report.write(path, count=200).read_text()


class Page(html.parser.HTMLParser):
  """Collects tags, and fails on tags that do not match."""

  def __init__(self, text):
    super().__init__()
    self.open, self.tags = [], []
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))
    if tag not in ('meta', 'img', 'br', 'html'):
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag


@pytest.fixture
def unpainted(monkeypatch):
  """Figures are made but not painted, for what the page says without them."""
  monkeypatch.setattr(style, 'png', lambda figure: b'')


@pytest.fixture
def laid_out(monkeypatch):
  """Figures are laid out as for painting, which takes most of the time."""
  monkeypatch.setattr(
      style, 'png', lambda figure: figure.draw_without_rendering() or b'')


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  path = tmp_path_factory.mktemp('report')
  text = write(path, synthetic.grid(
      law, longer=law, rates=(0.5, 2)) + [synthetic.unit(
          'arm', 'p8c2', 'P-N/1x8x2', psnr=16, role='arm', arm='per_nat')])
  return path, text


def test_the_page_is_whole_and_loads_nothing(finished):
  _, text = finished
  page = Page(text)
  assert not page.open
  sources = [attrs['src'] for tag, attrs in page.tags if tag == 'img']
  assert len(sources) >= 9
  assert all(source.startswith('data:image/png;base64,') for source in sources)
  assert not {'link', 'script', 'iframe'} & {tag for tag, _ in page.tags}
  assert not re.search(r'\bnan\b', re.sub('base64,[^"]*', '', text).lower())
  assert 'They were priced for' in text


def test_figures_are_pngs_of_some_size(finished):
  path, _ = finished
  names = {file.stem for file in (path / 'report').glob('*.png')}
  assert names == {
      'claims', 'psnr_code_floats', 'mse_code_floats', 'ssim_code_floats',
      'reconstructions', 'pairs', 'training', 'converged', 'bits', 'cost'}
  for name in names:
    with Image.open(path / 'report' / f'{name}.png') as image:
      assert min(image.size) > 300
      assert len(image.convert('L').getcolors(256)) > 20, f'{name} is blank'


def test_numbers_agree_between_page_json_csv_and_files(finished):
  path, text = finished
  summary = json.loads((path / 'report/report.json').read_text())
  stored = json.loads((path / 'sweep.json').read_text())['claims']
  assert summary['rules'] == dict(
      claims=claims.fingerprint(claims.parse(stored)), code=claims.rules(),
      code_at_launch=None)
  assert summary['rules']['claims'] in text and claims.rules() in text
  assert 'at launch: <code>not recorded</code>' in text
  assert summary['grade'] == 'finding'
  first = summary['claims'][0]
  assert first['verdict'] == 'holds' and first['reason'] in text
  rows = list(csv.DictReader(io.StringIO(
      (path / 'report/results.csv').read_text())))
  assert len(rows) == summary['units']['all'] == 31
  used = [row for row in rows if row['role'] == 'law']
  slope = np.polyfit([math.log2(int(row['code_floats'])) for row in used],
                     [float(row['psnr']) for row in used], 1)[0]
  assert first['estimate'] == pytest.approx(slope)
  for row in rows:
    arrays = np.load(path / row['unit'] / 'evaluation' / f'{row["steps"]}.npz')
    assert float(row['psnr']) == pytest.approx(arrays['psnr'].mean())


def test_two_reports_of_one_sweep_are_the_same_bytes(finished):
  path, text = finished
  assert report.write(path, count=200).read_text() == text


def test_embedded_photographs_cap_the_report(tmp_path, unpainted):
  text = write(tmp_path, synthetic.grid(law, longer=law, rates=(0.5, 2)),
               source='photographs', groups=8, pictures=None)
  assert '<span class="word">demonstration</span>' in text
  assert 'By its rules alone: holds. The 90% interval' in text
  assert '8 independent images' in text
  summary = json.loads((tmp_path / 'report/report.json').read_text())
  assert summary['grade'] == 'demonstration'
  assert [(claim['verdict'], claim['outcome']) for claim in summary[
      'claims']] == [('demonstration', 'holds')] * 2
  drawn = figures.claims(analysis.analyse(tmp_path, count=200))
  assert [axes.get_title('left') for axes in drawn.axes] == [
      'law: demonstration', 'equal: demonstration']


def test_two_photographs_are_drawn_and_estimated_all_the_same(
    tmp_path, laid_out):
  text = write(tmp_path, synthetic.grid(law, longer=law, rates=(0.5, 2)),
               source='photographs', groups=2, pictures=None)
  assert 'By its rules alone: not testable here.' in text
  summary = json.loads((tmp_path / 'report/report.json').read_text())
  assert summary['claims'][0]['estimate'] == pytest.approx(2, abs=0.1)
  low, high = summary['claims'][0]['interval']
  assert low < 2 < high
  names = {file.name for file in (tmp_path / 'report').glob('*.png')}
  assert {'claims.png', 'psnr_code_floats.png'} <= names


@pytest.mark.parametrize('launched, said', [
    (None, False), ('same', False), ('0' * 64, True)])
def test_verdicts_by_other_code_than_at_launch_are_said_to_be(
    tmp_path, unpainted, launched, said):
  synthetic.write(tmp_path, synthetic.grid(law)[:4], [synthetic.LAW])
  path = tmp_path / 'sweep.json'
  info = json.loads(path.read_text()) | dict(
      claims=claims.recorded([synthetic.LAW]))
  if launched:
    info['rules'] = claims.rules() if launched == 'same' else launched
  path.write_text(json.dumps(info))
  text = report.write(tmp_path, claims=[synthetic.LAW], count=50).read_text()
  assert ('by other code than that of the launch' in text) == said
  assert ('not recorded' in text) == (launched is None)
  assert 'are no longer those' not in text
  if said:
    text = report.write(tmp_path, claims=[synthetic.LAW | dict(margin=2)],
                        count=50).read_text()
    assert 'are no longer those' in text


def test_what_no_unit_was_there_to_show_is_listed_and_nothing_else(
    tmp_path, finished, unpainted):
  def lines(text):
    return re.findall('<li>not made: ([^:<]*)', text)
  assert lines(finished[1]) == ['a constant price for each nat', 'a forecast']
  assert lines(write(tmp_path, synthetic.grid(law, seeds=1),
                     pictures=None)) == [
      'convergence', 'learning rate for each size', 'error between seeds',
      'a constant price for each nat', 'a forecast']


def test_a_unit_that_is_not_finite_is_listed_and_the_rest_reported(
    tmp_path, laid_out):
  units = synthetic.grid(law, longer=law, rates=(0.5, 2))
  units[0]['psnr'] = math.nan
  text = write(tmp_path, units, pictures=None)
  assert f'{units[0]["name"]} (not finite)' in text
  summary = json.loads((tmp_path / 'report/report.json').read_text())
  assert summary['units']['failed'] == {units[0]['name']: 'not finite'}
  assert summary['claims'][0]['verdict'] == 'undecided'
  assert summary['claims'][0]['estimate'] == pytest.approx(2, abs=0.1)


def test_names_from_an_experiment_are_text_and_no_markup(
    tmp_path, laid_out):
  odd = '"><i>/../$'
  units = [row | {odd: 2**(i // 2), 'name': f'<i>{i}', 'configuration':
                  f'<i>{row["configuration"]}'}
           for i, row in enumerate(synthetic.grid(law))]
  units[-1]['state'] = 'missing'
  claim = synthetic.LAW | dict(x=odd, text='<i>', requires=['null'])
  synthetic.write(tmp_path, units, [claim], about='<i>', experiment='<i>')
  text = report.write(tmp_path, count=200).read_text()
  assert 'i' not in [tag for tag, _ in Page(text).tags]
  assert html.escape(odd) in text
  names = [file.name for file in (tmp_path / 'report').iterdir()]
  assert 'psnr____i______.png' in names
  assert all(re.fullmatch(r'\w+\.\w+', name) for name in names)


def test_training_is_drawn_from_two_evaluations_on(finished):
  path, _ = finished
  found = analysis.analyse(path, count=50)
  for number in (4, 2):
    cut = [dataclasses.replace(run, curve=run.curve[-number:])
           for run in found.sweep.runs]
    drawn = panels.training(dataclasses.replace(
        found, sweep=dataclasses.replace(found.sweep, runs=tuple(cut))),
                            'code_floats')
    curves = [line for axes in drawn.axes[:2] for line in axes.lines
              if len(line.get_xdata()) == number]
    assert len(curves) == 2 * (18 + 4)  # Of the law, and trained longer.


@pytest.mark.parametrize('done', [0, 1, 5])
def test_an_unfinished_sweep_is_reported_with_what_is_missing(
    tmp_path, laid_out, done):
  units = synthetic.grid(law)
  for unit in units[done:]:
    unit['state'] = 'missing'
  text = write(tmp_path, units, pictures=None)
  assert f'{len(units) - done} of {len(units)} units are missing' in text
  assert units[-1]['name'] in text
  assert 'demonstration' not in text.split('<h2>Rules')[0]
  summary = json.loads((tmp_path / 'report/report.json').read_text())
  assert {c['verdict'] for c in summary['claims']} == {'undecided'}
  assert len((tmp_path / 'report/results.csv').read_text().splitlines()) == 19


def test_a_sweep_without_price_nulls_or_images_is_reported(
    tmp_path, laid_out):
  units = synthetic.grid(law)
  synthetic.write(tmp_path, units, [synthetic.LAW], price=False)
  (tmp_path / 'nulls.json').unlink()
  (tmp_path / 'nulls.npz').unlink()
  text = report.write(tmp_path, count=200).read_text()
  assert 'have no PCA' in text
  assert 'units took' in text and 'They were priced for' not in text


def test_null_models_are_levels_over_the_size_of_a_tower(tmp_path):
  for spread, y in ((2, 'psnr'), (4, 'log2_mse')):
    levels, main = _levels(tmp_path / y, spread, y)
    # Of 256 floats; the mean colour has 3 a patch, 192 fit into 256.
    assert set(levels) == {'patch PCA, 256 floats', 'mean colour, 48 floats',
                           'down- and up-sampled, 192 floats'}
    if y == 'psnr':
      np.testing.assert_allclose(sorted(levels.values()), [19, 19, 24],
                                 atol=1e-6)
    else:
      assert main.get_ylabel() == 'MSE of pixels in [0, 1]'


def test_null_models_far_from_the_units_are_told_and_not_drawn(tmp_path):
  levels, main = _levels(tmp_path, 0.1, 'psnr')
  assert levels == {
      'patch PCA, 256 floats': pytest.approx(24),
      'mean colour, 48 floats: 19, off the axis': None,
      'down- and up-sampled, 192 floats: 19, off the axis': None}
  low, high = main.get_ylim()
  assert high - low < 2


def _levels(path, spread, y):
  """{label of a null model: where its line is}, and the axes; decoders of
  around 25 dB differ by `spread` for each doubling of their depth."""
  units = [synthetic.unit(f'd{depth}', f'd{depth}', f'P-Pd{depth}/8',
                          psnr=25 + spread * doublings)
           for doublings, depth in ((-1, 1), (0, 2), (1, 4))]
  flat = dict(name='flat', rule='no_slope', x='decoder_parameters',
              margin=0.05, text='No effect.')
  synthetic.write(path, units, [flat], pca=lambda tokens, channels: {
      16: 24, 3: 22, 192: 21}.get(channels, 9))
  main = figures.law(analysis.analyse(path, count=50),
                     'decoder_parameters', y).axes[0]
  return {line.get_label(): next(iter(line.get_ydata()), None)
          for line in main.lines if 'floats' in line.get_label()}, main


def test_the_law_of_e_has_pixels_per_float_on_top(tmp_path):
  synthetic.write(tmp_path, synthetic.grid(law), [synthetic.LAW])
  found = analysis.analyse(tmp_path, count=50)
  main = figures.law(found, 'code_floats').axes[0]
  (top,) = main.child_axes
  shown = {float(tick.get_text()) for tick in top.get_xticklabels()}
  assert shown == {3 * 32**2 / row['code_floats'] for row in found.rows}


def test_the_caption_says_what_the_band_leaves_out(finished):
  assert 'lack of fit is not in it' in finished[1]


def test_a_sweep_over_tower_sizes_is_drawn_beside_the_papers(
    tmp_path, laid_out):
  units = [synthetic.unit(f'd{depth}-s{seed}', f'd{depth}', f'P-Pd{depth}/8',
                          seed=seed, psnr=25 + 0.01 * seed)
           for depth in (1, 2, 4) for seed in range(3)]
  flat = dict(name='flat', rule='no_slope', x='decoder_parameters',
              margin=0.05, text='No effect.', requires=['seeds'])
  synthetic.write(tmp_path, units, [flat])
  report.write(tmp_path, count=200)
  summary = json.loads((tmp_path / 'report/report.json').read_text())
  assert summary['claims'][0]['verdict'] == 'holds'
  assert (tmp_path / 'report/psnr_decoder_parameters.png').exists()
