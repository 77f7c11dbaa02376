"""Sources -> decoded pictures -> batches; the value range [-1, 1] is made here and nowhere else."""

from sfumato.data.augment import Augment
from sfumato.data.codec import PixelCodec
from sfumato.data.open import open
from sfumato.data.order import Order
from sfumato.data.source import Source
from sfumato.data.text import VOCABULARY, encode

__all__ = ["VOCABULARY", "Augment", "Order", "PixelCodec", "Source", "encode", "open"]
