"""Small videos for tests: every frame differs from every other."""

import fractions

import av
import numpy as np

SHAPE = (32, 48)  # Pixels.


def images(count, shape=SHAPE, seed=0):
  """uint8 (count, H, W, 3): a random picture that moves by 2 pixels a frame."""
  height, width = shape
  noise = np.random.default_rng(seed).integers(
      0, 256, (-(-height // 8), (width + 2 * count) // 8 + 1, 3), np.uint8)
  wide = noise.repeat(8, 0).repeat(8, 1)
  return np.stack([wide[:height, 2 * n:2 * n + width] for n in range(count)])


def flat(count, shape=SHAPE):
  """uint8 (count, H, W, 3): frame n is grey, of level 8 n."""
  return np.full((count, *shape, 3), 8 * np.arange(count)[:, None, None, None],
                 np.uint8)


def write(path, frames, codec='libx264', options=(), rate=25, stamps=None):
  """Encodes frames, a key frame each 12; `stamps` in milliseconds."""
  path.parent.mkdir(parents=True, exist_ok=True)
  with av.open(str(path), 'w') as container:
    stream = container.add_stream(codec, rate=rate, options=dict(options))
    stream.height, stream.width = frames.shape[1:3]
    stream.pix_fmt = 'bgr0' if codec == 'ffv1' else 'yuv420p'
    stream.codec_context.gop_size = 12
    if stamps is not None:
      stream.codec_context.time_base = fractions.Fraction(1, 1000)
    for n, image in enumerate(frames):
      frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), 'rgb24')
      if stamps is not None:
        frame.pts, frame.time_base = stamps[n], fractions.Fraction(1, 1000)
      container.mux(stream.encode(frame))
    container.mux(stream.encode())
  return path


def decode(path):
  """All frames from the beginning on, uint8 (N, H, W, 3)."""
  with av.open(str(path)) as container:
    return np.stack([frame.to_ndarray(format='rgb24')
                     for frame in container.decode(video=0)])
