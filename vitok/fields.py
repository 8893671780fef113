"""Every field of a config, with the paper's stage-1 value where it has one.

Units: lengths in pixels and frames, cadences in steps, `warmup` as a fraction
of `total_steps`, weights as plain factors. `vitok.config` makes a config of it.
"""

# (ml_collections takes one dict in two places for one config: hence copies.)
# 0: as the name says. The hidden units of the MLP may be stated by their ratio
# to the width or as they are.
_TOWER = dict(width=0, depth=0, heads=0, mlp_ratio=0.0, mlp_width=0)
_OPTIMIZER = dict(
    learning_rate=1e-4,  # At `reference_batch` images.
    reference_batch=256,  # Rates times batch / this; 0: as they stand.
    min_learning_rate=2.5e-6,  # 1e-5 at the paper's batch of 1024.
    schedule='cosine',
    warmup=0.03,
    b1=0.9,
    b2=0.95,
    weight_decay=1e-4,
    clip=1.0,  # Global norm; 0: none.
    # Of dicts: match, learning_rate, weight_decay, frozen, layer_decay.
    groups=(),
)
FIELDS = dict(
    seed=0,
    task='reconstruction',
    total_steps=100_000,
    batch_size=1024,
    ema_decay=0.0,  # 0: no moving average.
    init_from='',  # A workdir to start from; '' starts from random values.
    init_subtree='',  # '' or a path of parameters: 'autoencoder/encoder'.
    model=dict(
        name='S-B/16',
        encoder=dict(_TOWER),
        decoder=dict(_TOWER),
        mlp='swiglu',
        norm='layernorm',
        positions='rope2d',
        block='sequential',  # 'parallel': attention and MLP side by side.
        layer_scale=0.0,  # Start of each branch's factors; 0: none.
        qk_norm=False,  # RMSNorm of queries and keys.
        bias=True,  # Of the linear maps in blocks.
        key_bias=True,  # Of the keys among them.
        sub_norm=False,  # Norms before the last map of attention and MLP.
        final_norm=True,  # After the last block of each tower.
        # A token beside the encoder's patches that is no part of the code. The
        # encoder's final norm is then of this token alone.
        cls=False,
        bottleneck='gaussian',
        projection='linear',  # To and from the code; or 'mlp'.
        head='linear',  # From the decoder to pixels; or 'tanh', an MLP.
        # Of a discrete bottleneck; each refuses what it does not read.
        quantizer=dict(
            product=1,  # Parts of a token, an integer each.
            residual=1,  # Stages, each of what those before it left over.
            decay=0.99,  # Of moving averages: shares of codes, VQ's entries.
            size=1024,  # Entries of a codebook of 'vq'.
            distance='euclidean',  # Or 'cosine'.
            update='ema',  # Or 'gradient'.
            # Share of an even one below which an entry is replaced; 0: never.
            restart=0.1,
            levels=(),  # Of 'fsq', of the channels of a part: (8, 5, 5, 5).
            temperature=10.0,  # Inverse, of soft codes; QLIP's is 1.
            gammas=(1.0, 1.0),  # Of a token's entropy, and their mean's.
        ),
        latents=0,  # 1-D tokens that are the code; 0: as the name says.
        # Lengths to which codes are cut in training: (32, 64, 128, 256).
        keep=(),
        # Time steps of a clip that attend to each other, so that it is coded
        # as so many shorter ones, or images (1); 0: the whole clip.
        window=0,
        attention='xla',
        scan=True,
        remat='none',
        dtype='float32',
    ),
    loss=dict(
        pixel='l2',
        kl_weight=1e-3,
        kl_reduction='mean',  # 'sum': a constant price per nat.
        # Of discrete codes, each where the bottleneck has such a loss.
        commitment_weight=0.01,  # Of squared distances; QLIP's is .001.
        codebook_weight=1.0,
        entropy_weight=0.1,
        ssim_weight=0.0,  # Of 1 - SSIM.
        lpips_weight=0.0,  # The paper's is 1; needs fetched weights.
        lpips_network='lpips_vgg16',  # 'lpips_alexnet' is 30 times cheaper.
        feature_weight=0.0,  # ViTok-v2 says 500; needs converted weights.
        feature_network='dinov2_base',
        # Pixels of a side that this network sees at once; 0: all. Of an image
        # at its own size all but the pixel loss see one such tile.
        feature_tile=0,
    ),
    # Stage 2; read by the task 'adversarial' alone.
    adversarial=dict(
        trained='decoder',  # 'all': the encoder and the bottleneck as well.
        # Weight of the generator's loss: 0 before update `start`, then up to
        # `weight` in `ramp` updates. 0: the control, without discriminator.
        schedule=dict(weight=0.05, start=5_000, ramp=50_000),
        adaptive=False,  # Times the ratio of gradients at the last layer,
        adaptive_limits=(0.0, 1e4),  # clipped to these.
        discriminator='residual',
        width=1.0,  # Factor on the discriminator's numbers of features.
        loss='hinge',
        r1=0.0,  # Gamma of the gradient penalty; 0: none.
        r1_every=16,  # Steps from one penalty to the next.
        lecam=0.0,  # Weight of LeCam's regularisation; 0: none.
        lecam_decay=0.99,
        optimizer=_OPTIMIZER | dict(  # The discriminator's.
            learning_rate=2e-5, min_learning_rate=0.0, schedule='constant',
            warmup=0.25),
    ),
    # A generator of codes; read by the task 'generation' alone, whose `model`
    # is that of the frozen tokenizer.
    tokenizer=dict(
        workdir='',  # Of the finished run that trained it.
        checkpoint=0,  # 0: the newest.
        sample=True,  # Codes are drawn from the posterior; or its means.
    ),
    dit=dict(
        _TOWER,
        name='S',
        mlp='swiglu',
        positions='rope2d',
        remat='none',
    ),
    diffusion=dict(
        schedule='linear',
        prediction='epsilon',
        shift=1.0,  # Of the noise-to-signal ratio; 0: by the code's floats.
        classes=0,  # Of the data's labels; 0: unconditional.
        label_dropout=0.1,  # Share of the labels replaced by the null class.
        normalise=True,  # Channels to mean 0 and variance 1.
        sampler='ddim',
        steps=250,
    ),
    generation=dict(
        count=64,  # Samples of an evaluation.
        batch_size=64,
        guidance=(1.0,),  # Scales, all evaluated; 1: none.
        interval=(0.0, 1.0),  # Times at which to guide; 1 is noise.
        labels=(),  # To generate, in turn; -1: no class; (): all.
    ),
    data=dict(
        sources=('photographs',),
        weights=(),  # One per source; (): equal.
        split='train',
        resolution=256,
        frames=1,  # Of a clip.
        stride=1,  # Frames of a video from one of a clip to the next.
        frame_rate=0.0,  # Of a clip, a second; 0: as `stride` says.
        # 'native': whole images at their own size, of at most as many
        # patches as a square of `resolution` has.
        crop='random_resized',
        crop_scale=(0.8, 1.0),
        crop_ratio=(0.75, 4 / 3),
        flip=True,
        filter='bilinear',
        skip_unreadable=False,
        workers=0,  # Processes that read and augment; 0: threads only.
        prefetch=2,  # Batches kept ready on the device.
    ),
    evaluation=dict(
        every=5_000,  # 0: at the first and the last step only.
        source='',  # '': the first training source.
        split='test',
        batch_size=256,
        count=0,  # 0: the whole split.
        clips=1,  # Of each video, evenly spread; 1: its centre.
        crop='center',
        filter='bilinear',
        grid=8,  # Images kept with their reconstruction.
        coded=256,  # Examples entropy-coded after the last step; 0: none.
        numbers=(),  # Beside PSNR and SSIM: 'lpips', 'rfid', 'rkid', ...
        numbers_every=0,  # Steps, as `every`; 0: after the last one only.
        features=0,  # Examples whose features are taken; 0: all.
        reference='',  # Folder of originals' features; '': with the weights.
    ),
    optimizer=_OPTIMIZER | dict(accumulate=1),  # Micro-batches per step.
    mesh=dict(replica=-1, fsdp=1, tensor=1),  # -1: the devices that remain.
    sharding=dict(
        # Logical axis of a parameter -> mesh axis.
        rules=(('embed', 'fsdp'), ('mlp', 'tensor'), ('heads', 'tensor')),
        fsdp_min_size=2**16,  # Smaller parameters stay whole, in numbers.
    ),
    checkpoint=dict(every=1_000, keep=2, keep_every=0),
    # A run that diverged; see `vitok.training.divergence`.
    divergence=dict(
        action='stop',  # Or 'rewind' to a checkpoint, or 'skip' batches too.
        limit=3,  # Rewinds of a run, after which it stops.
        metric='',  # Guarded: 'train/autoencoder/l2'; '': none.
        above=0.0,  # What it may not exceed
        patience=3,  # in so many readings in a row.
    ),
    # watchdog: seconds without a step until stacks are printed; 0: never.
    logging=dict(every=50, tensorboard=True, watchdog=1800),
    profile=dict(first=0, steps=0),  # A trace of `steps` steps; 0: none.
)

# What the tuples hold, and an example of each.
ELEMENTS = {
    'config.model.keep': (int, (16, 64)),
    'config.model.quantizer.levels': (int, (8, 5, 5, 5)),
    'config.model.quantizer.gammas': (float, (1.0, 1.0)),
    'config.data.sources': (str, ('photographs',)),
    'config.data.weights': (float, (1.0,)),
    'config.data.crop_scale': (float, (0.8, 1.0)),
    'config.data.crop_ratio': (float, (0.75, 1.333)),
    'config.generation.guidance': (float, (1.5,)),
    'config.generation.interval': (float, (0.0, 1.0)),
    'config.generation.labels': (int, (0,)),
    'config.evaluation.numbers': (str, ('lpips',)),
    'config.optimizer.groups': (
        dict, ({'match': 'encoder/.*', 'frozen': True},)),
    'config.adversarial.optimizer.groups': (
        dict, ({'match': 'head/.*', 'learning_rate': 0.5},)),
    'config.adversarial.adaptive_limits': (float, (0.0, 1e4)),
    'config.sharding.rules': (tuple, (('embed', 'fsdp'),)),
}

# What may differ between two sessions of the same run. Every other field must
# be equal to resume; `total_steps` may grow if the user asks for it.
MAY_DIFFER = (
    'mesh', 'sharding', 'logging', 'profile', 'checkpoint', 'divergence',
    'data.workers', 'data.prefetch',
)
