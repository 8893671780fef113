"""What `:cpu`, `:gpu1`, `:gpu` and `:paper` mean, for every experiment.

Overrides that all units of a preset share: data, batch, steps, evaluation.
An experiment adds what it varies and the sizes that it holds. Learning rates
are the peak itself, not scaled by the batch, since each is chosen for its
towers.
"""

_EVERYWHERE = {'optimizer.reference_batch': 0, 'optimizer.warmup': 0.1}

_ACCELERATOR = {'model.dtype': 'bfloat16', 'logging.every': 100,
                'evaluation.split': 'validation'}

SCALES = {
    # Two cores, minutes.
    'cpu': {
        'data.sources': ('photographs',), 'data.resolution': 32,
        # Windows are random already, and enlarged crops blur 32 pixels.
        'data.crop': 'center',
        'batch_size': 32, 'total_steps': 400, 'model.dtype': 'float32',
        'evaluation.every': 200, 'evaluation.split': 'test',
        'evaluation.batch_size': 64, 'evaluation.count': 512,
        'evaluation.coded': 64,
        'logging.every': 50, 'logging.tensorboard': False,
        **_EVERYWHERE,
    },
    # One accelerator, a day.
    'gpu1': {
        'data.sources': ('tfds:imagenet_resized/64x64',),
        'data.resolution': 64,
        'batch_size': 256, 'total_steps': 10_000,
        'evaluation.every': 2_500, 'evaluation.batch_size': 500,
        'evaluation.count': 5_000,
        **_ACCELERATOR, **_EVERYWHERE,
    },
    # A node of eight accelerators.
    'gpu': {
        'data.sources': ('tfds:imagenet2012',), 'data.resolution': 256,
        'batch_size': 512, 'total_steps': 25_000,
        'evaluation.every': 5_000, 'evaluation.batch_size': 512,
        **_ACCELERATOR, **_EVERYWHERE,
    },
    # The papers' steps and batch; where their data are private, ImageNet.
    'paper': {
        'data.sources': ('tfds:imagenet2012',), 'data.resolution': 256,
        'batch_size': 1024, 'total_steps': 100_000,
        'evaluation.every': 20_000, 'evaluation.batch_size': 512,
        **_ACCELERATOR, **_EVERYWHERE,
    },
}
