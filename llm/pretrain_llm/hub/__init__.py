"""Architectures that transformers has no class for, as transformers' classes.

    import pretrain_llm.hub

and AutoConfig and AutoModelForCausalLM load their folders, without remote code. The other families
need no import. Imports transformers.
"""

from __future__ import annotations

from transformers import AutoConfig, AutoModelForCausalLM

from .nanochat_2026 import Nanochat2026Config, Nanochat2026ForCausalLM

AutoConfig.register(Nanochat2026Config.model_type, Nanochat2026Config, exist_ok=True)
AutoModelForCausalLM.register(Nanochat2026Config, Nanochat2026ForCausalLM, exist_ok=True)
