"""The adapter methods of this build; importing the package registers them."""

from adapters_core.methods.fourierft import FourierFT
from adapters_core.methods.lora import LoRA

__all__ = ["FourierFT", "LoRA"]
