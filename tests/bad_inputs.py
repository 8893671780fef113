"""Wrong command lines by class, each with what its refusal must say.

Run as a program it tries all of them in one process and prints JSON: what was
answered to each, and whether a JAX backend was started. `CASES` maps a class
to (arguments of `vitok.train`, words of the answer); `{dir}` is a folder that
`prepare` fills.
"""

import contextlib
import io
import json
import pathlib
import sys

CONFIG = str(pathlib.Path(__file__).parents[1] / 'configs' / 'vitok.py')
SMALL = ['--config.data.resolution=32', '--config.batch_size=8']


def _case(*changes, words, model='P-N/8', workdir='{dir}/new'):
  arguments = [f'--config={CONFIG}:{model}', f'--workdir={workdir}', *SMALL]
  arguments += [f'--config.{change}' for change in changes]
  return arguments, words


def _stage2(*changes, words):
  return _case(
      'task=adversarial',
      "optimizer.groups=({'match': '(enc|bott).*', 'frozen': True},)",
      'init_from={dir}/run', *changes, words=words)


def _dit(*changes, words):
  """Of a generator, whose tokenizer another unit of a sweep will train."""
  return _case('task=generation', 'tokenizer.workdir=@after', *changes,
               words=words)


CASES = {
    'misspelt key': [
        _case('optimizer.learning_rat=1', words=['optimizer.learning_rate']),
        _case('optimiser.clip=1', words=['optimiser.clip', 'optimizer.clip']),
        _case('optimizer.lr=1', words=['optimizer.learning_rate']),
        _case('batchsize=8', words=['config.batch_size']),
        _case('model.nam=S-B/16', words=['config.model.name']),
        _case('data.source=photographs', words=['config.data.sources']),
        _case('loss.kl_wieght=1', words=['config.loss.kl_weight']),
        _case('total_step=1', words=['config.total_steps']),
        _case('mesh.replicas=1', words=['config.mesh.replica']),
        _case('optimizer=1', words=['group of fields']),
    ],
    'wrong type': [
        _case('batch_size=8.5', words=['config.batch_size', 'int', '8']),
        _case('batch_size=many', words=['config.batch_size', 'many']),
        _case('seed=' + 200_000 * '-', words=['config.seed', 'int', '0']),
        _case('model.scan=yes', words=['config.model.scan', 'bool', 'True']),
        _case('data.flip=1', words=['config.data.flip', 'bool']),
        _case('optimizer.learning_rate=fast',
              words=['config.optimizer.learning_rate', 'float']),
        _case('optimizer.b1=None', words=['config.optimizer.b1', 'NoneType']),
        _case('total_steps=1e3', words=['config.total_steps', 'int']),
        _case('optimizer.groups={}', words=['config.optimizer.groups']),
        _case("optimizer.groups=('x',)", words=['groups', 'match']),
        _case("sharding.rules=('embed',)", words=['config.sharding.rules']),
        _case("sharding.rules=(('embed', 'fsdp', 1),)",
              words=['config.sharding.rules', "('embed', 'fsdp')"]),
        _case("sharding.rules=((['embed'], 'fsdp'),)",
              words=['config.sharding.rules', "('embed', 'fsdp')"]),
        _case('data.sources=(1,)', words=['data.sources', 'int', 'str']),
        _case('data.sources=(None,)', words=['data.sources', 'photographs']),
        _case('data.sources=({},)', words=['data.sources', 'dict']),
        _case('data.weights=x', words=['config.data.weights', 'float']),
        _case('data.weights=(None,)', words=['data.weights', 'NoneType']),
        _case("data.crop_ratio=('nan', 1.0)",
              words=['config.data.crop_ratio', 'str', '(0.75']),
        _case("data.crop_scale=('nan', 1.0)",
              words=['config.data.crop_scale', 'str', '(0.8, 1.0)']),
        _case("optimizer.groups=({'match': '.*', 'layer_decay': 'x'},)",
              words=['groups', 'layer_decay', 'number', '1']),
        _case("optimizer.groups=({'match': '.*', 'learning_rate': 'a'},)",
              words=['groups', 'learning_rate', 'number']),
        _case("optimizer.groups=({'match': '.*', 'frozen': 'no'},)",
              words=['groups', 'frozen', 'True']),
        _case("optimizer.groups=({'match': b'.*'},)",
              words=['groups', 'match']),
    ],
    'impossible size': [
        _case(model='P-N/7', words=['data.resolution', '32', '7', '35']),
        _case('data.resolution=30', words=['config.data.resolution', '32']),
        _case('data.frames=3', model='P-N/2x8', words=['frames', '3', '2']),
        _case('model.latents=-1', words=['config.model.latents', '-1', '0']),
        _case('model.latents=8', 'model.positions=none',
              words=['config.model.positions', 'mask tokens', 'rope2d']),
        _case('model.window=2', words=['config.model.window', '1 time steps']),
        _case('model.keep=(8, 32)',
              words=['config.model.keep', '16 tokens', '(8, 16)']),
        _case('model.keep=(16, 4)',
              words=['config.model.keep', 'rise', '(4, 16)']),
        _case('model.keep=(4, 8)', model='P-N/8+12',
              words=['config.model.keep', 'untrained', '(4, 8, 12)']),
        _case('model.keep=(4.5, 16)', words=['config.model.keep', 'float']),
        _case('model.encoder.heads=5', words=['heads', '5', '192']),
        _case('model.decoder.heads=7', words=['heads', '7', '192']),
        _case('model.encoder.width=100', words=['heads', '100']),
        _case(model='P-N/1x8x0', words=['P-N/1x8x0']),
        _case(model='P-N/0', words=['P-N/0']),
        _case(model='Q-N/8', words=['Q']),
        _case(model='P/8', words=['P/8']),
        _case(model='P-N/1x2x3x4', words=['P-N/1x2x3x4']),
        _case(model='nonsense', words=['nonsense']),
        _case(model='P-N/' + 5000 * '9', words=['config.model.name', 'PATCH']),
        _case('batch_size=0x' + 5000 * 'f', words=['batch_size', 'too large']),
        _case('model.encoder.depth=-1', words=['depth', '-1']),
        _case('model.bottleneck=layernorm', model='P-N/1x8x1',
              words=['config.model.bottleneck', '1 channel']),
        _case('batch_size=0', words=['config.batch_size', '0', '1']),
        _case('optimizer.accumulate=3',
              words=['accumulate', '3', 'batch_size=8', '1']),
        _case('mesh.replica=3', words=['batch_size', '8', '3']),
        _case('mesh.fsdp=-1', words=['mesh', '-1', 'replica']),
        _case('mesh.tensor=0', words=['config.mesh.tensor', '0']),
        _case('mesh.tensor=2', words=['config.mesh.tensor', '3 heads', '1']),
        _case('mesh.tensor=3', words=['config.mesh.tensor', '512 mlp', '1']),
        _case('model.encoder.mlp_ratio=1e400',
              words=['config.model.encoder.mlp_ratio', 'inf', 'finite']),
        _case('model.decoder.mlp_ratio=-1.0',
              words=['config.model.decoder.mlp_ratio', '-1.0']),
        _case('model.decoder.mlp_ratio=1e9',
              words=['config.model.decoder.mlp_ratio', '1024']),
        _case(model='P-Nm0/8', words=['P-Nm0/8', 'mlp_ratio']),
        _case('total_steps=10000000000',
              words=['config.total_steps', '2147483647']),
    ],
    'impossible generator': [
        _dit('tokenizer.workdir=', words=['tokenizer.workdir', 'names no run']),
        _dit('tokenizer.workdir={dir}/nowhere',
             words=['config.tokenizer.workdir', 'no config.json']),
        _dit('tokenizer.checkpoint=-1', words=['tokenizer.checkpoint', '0']),
        _dit('dit.name=Q', words=['config.dit.name', "'XL'"]),
        _dit('dit.heads=5', words=['config.dit.heads', '384', '4']),
        _dit('dit.positions=rope4d', words=['config.dit.positions', 'rope']),
        _dit('dit.remat=some', words=['config.dit.remat', "'full'"]),
        _dit('dit.width=-4', words=['config.dit.width', '-4']),
        _dit('mesh.tensor=4', words=['config.mesh.tensor', '4', 'heads']),
        _dit('diffusion.schedule=flows', words=['diffusion.schedule', 'flow']),
        _dit('diffusion.schedule=flow',
             words=['config.diffusion.prediction', 'epsilon', 'velocity']),
        _dit('diffusion.schedule=cosine',
             words=['config.diffusion.prediction', 'cosine', 'choice: v']),
        _dit('diffusion.shift=-1.0', words=['config.diffusion.shift', '0']),
        _dit('diffusion.sampler=dimm', words=['diffusion.sampler', 'ddim']),
        _dit('diffusion.steps=2000', words=['config.diffusion.steps', '1000']),
        _dit('diffusion.classes=10',
             words=['config.diffusion.classes', 'photographs', 'no labels']),
        _dit('diffusion.label_dropout=2.0', words=['label_dropout', '1']),
        _dit('generation.count=0', words=['config.generation.count', '1']),
        _dit('generation.guidance=-1.0', words=['generation.guidance', '1.0']),
        _dit('generation.guidance=()', words=['generation.guidance', '1.0']),
        _dit('generation.guidance=1.5',
             words=['generation.guidance', 'diffusion.classes=0', '(1.0,)']),
        _dit('generation.interval=(1.0, 0.0)', words=['generation.interval']),
        _dit('generation.labels=3', words=['config.generation.labels', '3']),
        _dit('diffusion.label_dropout=0.0', 'diffusion.classes=10',
             'generation.guidance=1.5',
             words=['config.generation.guidance', 'null class']),
        _dit("evaluation.numbers=('rfid',)",
             words=['config.evaluation.numbers', 'rfid', 'gfid']),
        _dit('data.sources=codes:{dir}/nowhere',
             words=['config.data.sources', 'vitok.encode']),
        _case('data.sources=codes:{dir}/nowhere',
              words=['config.data.sources', 'vitok.encode']),
    ],
    'impossible value': [
        _case('optimizer.b2=1.5', words=['config.optimizer.b2', '1.5']),
        _case('optimizer.warmup=2.0', words=['config.optimizer.warmup']),
        _case('ema_decay=-0.1', words=['config.ema_decay']),
        _case('seed=-1', words=['config.seed', '0']),
        _case('optimizer.learning_rate=0.0', words=['learning_rate']),
        _case('optimizer.min_learning_rate=1.0',
              words=['min_learning_rate', 'peak']),
        _case('loss.kl_weight=-1.0', words=['config.loss.kl_weight']),
        _case('model.layer_scale=-1.0', words=['config.model.layer_scale']),
        _case('data.crop=native',
              words=['config.model.bottleneck', 'padding', 'layernorm']),
        _case('data.crop=native', 'model.bottleneck=layernorm',
              'loss.ssim_weight=0.1',
              words=['config.loss.feature_tile', '0', 'SSIM', 'choice: 32']),
        _case('evaluation.crop=native', 'model.bottleneck=layernorm',
              'evaluation.numbers=lpips',
              words=['config.evaluation.numbers', 'center']),
        _case('loss.feature_weight=-1.0',
              words=['config.loss.feature_weight']),
        _case('loss.feature_weight=1.0', 'loss.feature_tile=20',
              words=['config.loss.feature_tile', '20', '32', '4']),
        _case('loss.feature_weight=1.0', 'loss.feature_tile=16',
              'loss.feature_network=resnet50',
              words=['config.loss.feature_tile', '16', '32']),
        _case('loss.kl_weight=1e400', words=['config.loss.kl_weight', 'inf']),
        _case('loss.kl_weight=1' + 400 * '0', words=['kl_weight', 'finite']),
        _case('optimizer.clip=1e400', words=['config.optimizer.clip', 'inf']),
        _case('optimizer.weight_decay=1e400',
              words=['config.optimizer.weight_decay', 'inf']),
        _case('data.weights=(1e400,)', words=['config.data.weights', 'inf']),
        _case('profile.steps=1', 'profile.first=9', 'total_steps=9',
              words=['config.profile.first', '9', '8']),
        _case("sharding.rules=(('embed', 'fdsp'),)",
              words=['config.sharding.rules', 'fdsp', 'fsdp']),
        _case("sharding.rules=(('layers', 'fsdp'),)",
              words=['config.sharding.rules', 'layers']),
        _case("sharding.rules=(('embed', 'fsdp'), ('mlp', 'fsdp'))",
              words=['config.sharding.rules', 'mlp and embed', 'kernel']),
        _case("optimizer.groups=({'match': '.*', 'learning_rate': -5.0},)",
              words=['groups', 'learning_rate', '-5.0', '0']),
        _case("optimizer.groups=({'match': '.*', 'frozen': True},)",
              words=['groups', 'every parameter']),
        _case("optimizer.groups=({'match': '('},)",
              words=['groups', 'regular expression']),
        _case("optimizer.groups=({'match': 'encoders/.*'},)",
              words=['groups', 'encoders', 'encoder']),
        _case("optimizer.groups=({'match': 'x', 'rate': 1},)",
              words=['groups', 'rate', 'learning_rate']),
        _case('data.crop_scale=(0.9, 0.1)', words=['config.data.crop_scale']),
        _case('data.crop_ratio=(0.0, 1.0)', words=['config.data.crop_ratio']),
        _case('data.stride=0', words=['config.data.stride', '0', '1']),
        _case('data.frame_rate=-1.0', words=['config.data.frame_rate']),
        _case('data.frame_rate=8.0', 'data.stride=2',
              words=['config.data.stride', 'frame_rate=8.0', '1']),
        _case('evaluation.numbers=rfd', words=['evaluation.numbers', 'rfid']),
        _case('evaluation.numbers=gfid',
              words=['evaluation.numbers', 'generated samples', 'rfid']),
        _case('evaluation.numbers=rfvd',
              words=['config.data.frames', '1', 'rfvd', '9']),
        _case('evaluation.numbers=lpips_alex', 'data.resolution=16',
              words=['config.data.resolution', '16', '31']),
        _case('evaluation.numbers_every=3',
              words=['evaluation.numbers_every', '3', '5000']),
        _case('evaluation.clips=0', words=['config.evaluation.clips', '1']),
        _case('evaluation.clips=2',
              words=['config.evaluation.clips', 'images', '1']),
    ],
    'impossible stage 2': [
        _case('adversarial.width=0.5',
              words=['config.adversarial.width', 'task adversarial', '1.0']),
        _case('task=adversarial', words=['groups', 'freeze', 'encoder']),
        _stage2('adversarial.trained=encoder', words=['trained', 'decoder']),
        _stage2('adversarial.schedule.start=-1', words=['schedule.start']),
        _stage2('adversarial.width=0.0', words=['width', '0.015625']),
        _stage2('adversarial.discriminator=resnet', words=['residual']),
        _stage2('adversarial.loss=hing', words=['hinge']),
        _stage2('adversarial.adaptive_limits=(1.0,)',
                words=['adaptive_limits', '10000']),
        _stage2('adversarial.r1_every=0', words=['r1_every', '1']),
        _stage2('adversarial.lecam=-1.0', words=['lecam', '0']),
        _stage2('adversarial.optimizer.b2=2.0',
                words=['config.adversarial.optimizer.b2']),
        _stage2('adversarial.optimizer.schedule=cosin',
                words=['config.adversarial.optimizer.schedule', 'cosine']),
        _stage2('adversarial.optimizer.groups='
                "({'match': 'hed/.*', 'learning_rate': 0.5},)",
                words=['config.adversarial.optimizer.groups', 'head']),
        _stage2('adversarial.lecam=0.1', 'optimizer.accumulate=2',
                words=['accumulate', 'discriminator']),
        _case('loss.lpips_weight=1.0', 'data.resolution=8',
              words=['resolution', 'lpips_vgg16', '16']),
        _case('loss.lpips_network=vgg', words=['lpips_network', 'lpips_vgg16']),
        _case('loss.ssim_weight=-1.0', words=['ssim_weight', '0']),
        _case('divergence.action=restart', words=['action', 'rewind']),
        _case('divergence.above=1.0', words=['above', 'metric']),
        _case('divergence.metric=train/los', 'divergence.above=1.0',
              words=['metric', 'train/loss']),
    ],
    'unknown choice': [
        _case('model.mlp=swiglo', words=['config.model.mlp', 'swiglu']),
        _case('model.norm=rms', words=['config.model.norm', 'rmsnorm']),
        _case('model.block=paralel', words=['config.model.block', 'parallel']),
        _case('model.positions=rope4d', words=['config.model.positions']),
        _case('model.bottleneck=gausian', words=['bottleneck', 'gaussian']),
        _case('model.remat=all', words=['config.model.remat']),
        _case('model.dtype=float16', words=['config.model.dtype', 'float32']),
        _case('loss.pixel=l3', words=['config.loss.pixel', 'l']),
        _case('loss.feature_network=dinov2', words=[
            'config.loss.feature_network', 'dinov2_']),
        _case('optimizer.schedule=cosin', words=['schedule', 'cosine']),
        _case('task=reconstruct', words=['config.task', 'reconstruction']),
        _case('data.filter=cubic', words=['config.data.filter', 'bicubic']),
        _case('data.crop=centre', words=['config.data.crop', 'center']),
        _case('data.frames=2', words=['config.model.positions', 'rope3d']),
        _case('data.frames=2', 'model.positions=rope3d',
              words=['config.data.frames', 'images', '1']),
    ],
    'unknown source': [
        _case('data.sources=photograph', words=['photograph', 'photographs']),
        _case('data.sources=folder:{dir}/absent', words=['absent']),
        _case('data.sources=folder:{dir}/empty', words=['empty']),
        _case('data.sources=folder:{dir}/texts', words=['texts']),
        _case('data.sources=array_record:{dir}/none*', words=['none*']),
        _case('data.sources=videos:{dir}/absent', words=['absent']),
        _case('data.sources=videos:{dir}/texts',
              words=['no video', '1 other file']),
        _case('data.sources=video:{dir}/texts', words=['videos:PATH']),
        _case('data.sources=()', words=['config.data.sources']),
        _case('data.split=trian', words=['trian', 'train']),
        _case('data.split=train[50%', words=['train[50%']),
        _case('evaluation.split=train[100%:]', words=['train[100%:]']),
        _case('evaluation.source=cifar', words=['cifar']),
        _case('data.weights=(1.0, 2.0)', words=['config.data.weights']),
        _case('data.weights=(-1.0,)', words=['config.data.weights']),
    ],
    'unwritable workdir': [
        _case(workdir='/dev/null/run', words=['/dev/null/run', 'workdir']),
        _case(workdir='{dir}/a_file', words=['a_file']),
        _case(workdir='{dir}/a_file/run', words=['a_file/run']),
        _case(workdir='/proc/run', words=['/proc/run']),
        _case(workdir='/sys/run', words=['/sys/run', 'runs/run']),
    ],
    "another run's workdir": [
        _case('seed=1', workdir='{dir}/run', words=['config.seed', '1', '0']),
        _case('batch_size=16', workdir='{dir}/run', words=['batch_size']),
        _case(model='P-N/4', workdir='{dir}/run', words=['P-N/4', 'P-N/8']),
        _case('loss.pixel=l1', workdir='{dir}/run', words=['loss.pixel']),
        _case('total_steps=7', workdir='{dir}/run',
              words=['total_steps', 'never shortened', '100000']),
        _case('total_steps=200000', workdir='{dir}/run',
              words=['total_steps', '--extend']),
        _case(workdir='{dir}/broken', words=['broken/config.json']),
        _case(workdir='{dir}/bytes', words=['bytes/config.json', 'utf-8']),
        _case(workdir='{dir}/folder', words=['folder/config.json', 'Is a']),
        _case(workdir='{dir}/sweep', words=['sweep']),
    ],
    "another run's parameters": [
        _case('init_from={dir}/nowhere', words=['init_from', 'nowhere']),
        _case('init_from={dir}/run', words=['init_from', 'no checkpoint']),
        _case('init_from={dir}/run/checkpoints/3',
              words=['init_from', 'no checkpoint']),
        _case('init_from={dir}/run', 'init_subtree=autoencoder/encodr',
              words=['init_subtree', 'encodr', 'autoencoder/encoder']),
        _stage2('init_from=', words=['init_from', 'stage 1', 'trained']),
        _case('init_subtree=autoencoder/encoder',
              words=['init_subtree', 'autoencoder/encoder', 'init_from']),
    ],
    'command line': [
        ([f'--config={CONFIG}:P-N/8', '--workdir=x', '--distributed', *SMALL],
         ['--distributed', 'JAX_COORDINATOR_ADDRESS']),
        (['--config={dir}/nothing.py', '--workdir=x'],
         ['nothing.py', 'NoneType', 'ConfigDict']),
        (['--config={dir}/plain.py', '--workdir=x'],
         ['plain.py', 'dict', 'ConfigDict']),
        ([], ['--config']),
        ([f'--config={CONFIG}'], ['--workdir']),
        (['--config=configs/vitoc.py', '--workdir=x'], ['vitoc.py']),
        ([f'--config={CONFIG}', '--workdir=x', '--work=y'], ['--work']),
        ([f'--config={CONFIG}', '--workdir=x', '--config.seed'], ['seed']),
        ([f'--config={__file__}', '--workdir=x'], ['get_config']),
    ],
}


def prepare(folder):
  """Makes the files that the cases speak of."""
  from vitok import config as config_lib
  (folder / 'empty').mkdir()
  (folder / 'texts').mkdir()
  (folder / 'texts' / 'a.txt').write_text('not an image')
  (folder / 'a_file').write_text('')
  config = config_lib.load(f'{CONFIG}:P-N/8')
  config_lib.override(config, {'data.resolution': 32, 'batch_size': 8})
  for name, text in (('run', config_lib.to_json(config)),
                     ('broken', '{"seed": ')):
    (folder / name).mkdir()
    (folder / name / 'config.json').write_text(text)
  (folder / 'bytes').mkdir()
  (folder / 'bytes' / 'config.json').write_bytes(b'{"seed": "\xff"}')
  (folder / 'folder' / 'config.json').mkdir(parents=True)
  for name, returned in (('nothing', None), ('plain', {'seed': 1})):
    (folder / f'{name}.py').write_text(
        f'def get_config():\n  return {returned}\n')
  (folder / 'sweep').mkdir()
  (folder / 'sweep' / 'sweep.json').write_text('{}')


def answer(arguments):
  """(exit code, stderr) of `vitok.train` in this process."""
  from vitok import train
  stderr = io.StringIO()
  code = None
  with contextlib.redirect_stderr(stderr):
    try:
      train.main(arguments)
    except SystemExit as stop:
      code = stop.code
    except Exception as error:  # Would be a traceback.
      code = f'{type(error).__name__}: {error}'
  return code, stderr.getvalue()


def main(folder):
  folder = pathlib.Path(folder)
  prepare(folder)
  answers = {
      kind: [(arguments, words, *answer(arguments))
             for arguments, words in [
                 ([a.replace('{dir}', str(folder)) for a in arguments], words)
                 for arguments, words in cases]]
      for kind, cases in CASES.items()}
  from jax._src import xla_bridge
  print(json.dumps({'answers': answers,
                    'backend': xla_bridge.backends_are_initialized()}))


if __name__ == '__main__':
  main(sys.argv[1])
