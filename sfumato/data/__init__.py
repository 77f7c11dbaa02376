"""Sources -> decoded pictures -> batches; the value range [-1, 1] is made here and nowhere else."""

from sfumato.data.augment import Augment, Colour
from sfumato.data.captions import Captions
from sfumato.data.codec import PixelCodec
from sfumato.data.open import located, open, open_as
from sfumato.data.order import Order
from sfumato.data.shapes import Buckets
from sfumato.data.source import Source
from sfumato.data.standardise import Standard, StandardCodec
from sfumato.data.text import VOCABULARY, encode

__all__ = [
    "VOCABULARY",
    "Augment",
    "Buckets",
    "Captions",
    "Colour",
    "Order",
    "PixelCodec",
    "Source",
    "Standard",
    "StandardCodec",
    "encode",
    "located",
    "open",
    "open_as",
]
