"""The adapter methods of this build; importing the package registers them.

Imports contract, errors, frod, kernels, positions and transforms.
"""

from adapters_core.methods.c3a import C3A
from adapters_core.methods.clora import CLoRA
from adapters_core.methods.dora import DoRA
from adapters_core.methods.fourierft import FourierFT
from adapters_core.methods.frod import FRoD
from adapters_core.methods.loca import LoCA
from adapters_core.methods.lora import LoRA
from adapters_core.methods.lora_embedding import LoRAEmbedding
from adapters_core.methods.lora_stack import LoRAStack
from adapters_core.methods.shira import SHiRA
from adapters_core.methods.tinylora import TinyLoRA
from adapters_core.methods.vera import VeRA
from adapters_core.methods.waveletft import WaveletFT

__all__ = [
    "C3A",
    "CLoRA",
    "DoRA",
    "FRoD",
    "FourierFT",
    "LoCA",
    "LoRA",
    "LoRAEmbedding",
    "LoRAStack",
    "SHiRA",
    "TinyLoRA",
    "VeRA",
    "WaveletFT",
]
