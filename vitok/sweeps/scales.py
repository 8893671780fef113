"""What `:cpu`, `:gpu1`, `:gpu` and `:paper` mean, for every experiment.

Overrides that all units of a preset share: data, batch, steps, evaluation.
An experiment adds what it varies and the sizes that it holds. Learning rates
are the peak itself, not scaled by the batch, since each is chosen for its
towers.
"""

_EVERYWHERE = {'optimizer.reference_batch': 0, 'optimizer.warmup': 0.1,
               'optimizer.min_learning_rate': 2.5e-6, 'loss.lpips_weight': 0.0}

# Classes of the data, and so what generators are guided by: they stand here,
# with the data, that one override replaces them for all units.
_ACCELERATOR = {'model.dtype': 'bfloat16', 'logging.every': 100,
                'evaluation.split': 'validation',
                'evaluation.numbers': ('lpips', 'rkid', 'rfid'),
                'diffusion.classes': 1000,
                'generation.guidance': (1.0, 1.5, 3.0)}

_TWO_CORES = {
    'data.sources': ('photographs',), 'data.resolution': 32,
    'evaluation.numbers': (), 'diffusion.classes': 0,
    'generation.guidance': (1.0,),
    # Windows are random already, and enlarged crops blur 32 pixels.
    'data.crop': 'center',
    'batch_size': 32, 'total_steps': 400, 'model.dtype': 'float32',
    'evaluation.every': 200, 'evaluation.split': 'test',
    'evaluation.batch_size': 64, 'evaluation.count': 512,
    'evaluation.coded': 64,
    'logging.every': 50, 'logging.tensorboard': False,
    **_EVERYWHERE,
}

SCALES = {
    # Two cores, minutes.
    'cpu': _TWO_CORES,
    # With networks that judge, where they have been fetched: twice as long.
    'cpu20': {
        **_TWO_CORES, 'evaluation.numbers': ('lpips_alex', 'rkid'),
        # Inception takes 0.1 s for an image, and more in larger batches.
        'evaluation.features': 64, 'evaluation.batch_size': 16,
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
    # ViTok's steps, batch, losses and floor of the rate; where its data are
    # private, ImageNet. (The others compare pixels alone.)
    'paper': {
        'data.sources': ('tfds:imagenet2012',), 'data.resolution': 256,
        'batch_size': 1024, 'total_steps': 100_000,
        'evaluation.every': 20_000, 'evaluation.batch_size': 512,
        **_ACCELERATOR, **_EVERYWHERE,
        'loss.lpips_weight': 1.0, 'optimizer.min_learning_rate': 1e-5,
    },
}

_DIFFUSED = {
    'task': 'generation', 'tokenizer.workdir': '@after',
    'evaluation.numbers': ('gkid', 'gfid'), 'batch_size': 256,
}

# The DiT on the codes of another unit, on top of that unit's own overrides.
GENERATORS = {
    'cpu': {
        **_DIFFUSED, 'dit.name': 'F', 'total_steps': 500, 'batch_size': 32,
        'optimizer.learning_rate': 2e-3, 'ema_decay': 0.99,
        'diffusion.steps': 25, 'generation.count': 128,
        'evaluation.numbers': ('gkid',), 'evaluation.features': 256,
        'evaluation.every': 0,
    },
    'gpu1': {
        **_DIFFUSED, 'dit.name': 'S', 'total_steps': 25_000,
        'optimizer.learning_rate': 2e-4, 'ema_decay': 0.999,
        'diffusion.steps': 50, 'generation.count': 5_000,
        'generation.batch_size': 500, 'evaluation.features': 5_000,
        'evaluation.every': 0,
    },
    'gpu': {
        **_DIFFUSED, 'dit.name': 'B', 'total_steps': 100_000,
        'optimizer.learning_rate': 1e-4, 'ema_decay': 0.9999,
        'diffusion.steps': 100, 'generation.count': 10_000,
        'generation.batch_size': 512, 'evaluation.features': 10_000,
        'evaluation.every': 50_000,
    },
    # The paper's DiT-L.
    'paper': {
        **_DIFFUSED, 'dit.name': 'L', 'dit.remat': 'full',
        'total_steps': 500_000,
        'optimizer.learning_rate': 1e-4, 'ema_decay': 0.9999,
        'diffusion.steps': 250, 'generation.count': 50_000,
        'generation.batch_size': 512, 'evaluation.features': 50_000,
        'evaluation.every': 250_000,
    },
}
