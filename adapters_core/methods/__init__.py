"""The adapter methods of this build; importing the package registers them."""

from adapters_core.methods.c3a import C3A
from adapters_core.methods.fourierft import FourierFT
from adapters_core.methods.loca import LoCA
from adapters_core.methods.lora import LoRA
from adapters_core.methods.shira import SHiRA
from adapters_core.methods.waveletft import WaveletFT

__all__ = ["C3A", "FourierFT", "LoCA", "LoRA", "SHiRA", "WaveletFT"]
