"""Frozen feature networks, as they were published.

Images are channels-last. Networks that losses differentiate through (VGG16,
AlexNet, ResNet50, DINOv2) take floats in [-1, 1], as batches hold them; those
that only measure (Inception-v3, I3D) take uint8, so that what they are given
is rounded and its range needs no guess. Each brings its own resize and
normalisation, and its map from the published file's names (`from_...`).
"""

from vitok.models.features.alexnet import AlexNet as AlexNet
from vitok.models.features.dinov2 import DINOv2 as DINOv2
from vitok.models.features.i3d import I3D as I3D
from vitok.models.features.inception import Inception as Inception
from vitok.models.features.resnet import ResNet50 as ResNet50
from vitok.models.features.vgg import VGG16 as VGG16
