"""Published models of every family but Llama (tests/unit/planner_rows.py has those), and how many
parameters their authors' checkpoints have (of scale23x-gpt-1.3b: its authors' program).

Sources: Pythia 70M to 12B: Biderman et al. 2023, table 1; the others: the tensors of the published
checkpoints EleutherAI/pythia-{14m,31m}, HuggingFaceTB/SmolLM3-3B and
allenai/OLMo-2-{0425-1B,1124-7B,1124-13B,0325-32B}, openai-community/gpt2{,-medium,-large,-xl};
nanochat: its own count (d20, d32; of 2026 d12, d24), else its dial's. Shapes: the projects' own
configurations.
"""

from __future__ import annotations

from typing import NamedTuple

from pretrain_llm.contract.config import ModelConfig


class Published(NamedTuple):
    name: str
    architecture: str
    shape: tuple[int, int, int, int, int, int]  # layers, dim, heads, KV heads, FFN, vocabulary
    tied: bool
    parameters: int
    positions: int | None = None  # learned ones
    biases: bool | None = None
    tables: int = 1  # as wide as the model and as high as the vocabulary, looked up by token

    @property
    def model(self) -> ModelConfig:
        layers, dim, heads, kv_heads, ffn, vocabulary = self.shape
        return ModelConfig(
            architecture=self.architecture,
            dim=dim,
            num_layers=layers,
            num_heads=heads,
            num_kv_heads=kv_heads,
            ffn_hidden_dim=ffn,
            vocab_size=vocabulary,
            rope_theta=10000.0,
            norm_eps=1e-5,
            tie_embeddings=self.tied,
            max_positions=self.positions,
            biases=self.biases,
        )


def _pythia(
    name: str, layers: int, dim: int, heads: int, parameters: int, vocabulary: int = 50304
) -> Published:
    """The vocabulary is padded to a multiple of 128 times the tensor parallelism of training."""
    shape = (layers, dim, heads, heads, 4 * dim, vocabulary)
    return Published(f"pythia-{name}", "gpt_neox", shape, False, parameters)


def _olmo2(
    name: str, layers: int, dim: int, heads: int, kv_heads: int, ffn: int, parameters: int
) -> Published:
    shape = (layers, dim, heads, kv_heads, ffn, 100352)
    return Published(f"olmo2-{name}", "olmo2", shape, False, parameters)


def _gpt2(
    name: str, layers: int, dim: int, heads: int, parameters: int, positions: int, vocabulary: int
) -> Published:
    shape = (layers, dim, heads, heads, 4 * dim, vocabulary)
    return Published(name, "gpt2", shape, True, parameters, positions)


def _nanochat(depth: int, parameters: int) -> Published:
    """Its one dial: heads 128 wide, the vocabulary of its own tokenizer."""
    heads = depth // 2
    shape = (depth, 64 * depth, heads, heads, 256 * depth, 65536)
    return Published(f"nanochat-d{depth}", "nanochat", shape, False, parameters)


def _nanochat_2026(depth: int, parameters: int) -> Published:
    """The same dial, with a vocabulary half as large. Without gates and scalars, which are 482 and
    1,802 parameters, d12 has 286,261,248 and d24 1,384,120,320."""
    heads = depth // 2
    shape = (depth, 64 * depth, heads, heads, 256 * depth, 32768)
    name, tables = f"nanochat-2026-d{depth}", 1 + depth // 2
    return Published(name, "nanochat_2026", shape, False, parameters, tables=tables)


PUBLISHED = (
    _pythia("14m", 6, 128, 4, 14_067_712),
    _pythia("31m", 6, 256, 8, 30_494_720),
    _pythia("70m", 6, 512, 8, 70_426_624),
    _pythia("160m", 12, 768, 12, 162_322_944),
    _pythia("410m", 24, 1024, 16, 405_334_016),
    _pythia("1b", 16, 2048, 8, 1_011_781_632),
    _pythia("1.4b", 24, 2048, 16, 1_414_647_808),
    _pythia("2.8b", 32, 2560, 32, 2_775_208_960),
    _pythia("6.9b", 32, 4096, 32, 6_857_302_016, 50432),
    _pythia("12b", 36, 5120, 40, 11_846_072_320, 50688),
    _olmo2("1b", 16, 2048, 16, 16, 8192, 1_484_916_736),
    _olmo2("7b", 32, 4096, 32, 32, 11008, 7_298_617_344),
    _olmo2("13b", 40, 5120, 40, 40, 13824, 13_716_198_400),
    _olmo2("32b", 64, 5120, 40, 8, 27648, 32_234_279_936),
    _gpt2("gpt2", 12, 768, 12, 124_439_808, 1024, 50257),
    _gpt2("gpt2-medium", 24, 1024, 16, 354_823_168, 1024, 50257),
    _gpt2("gpt2-large", 36, 1280, 20, 774_030_080, 1024, 50257),
    _gpt2("gpt2-xl", 48, 1600, 25, 1_557_611_200, 1024, 50257),
    Published(
        "scale23x-gpt-1.3b",
        "gpt2",
        (24, 2048, 32, 32, 8192, 50304),
        True,
        1_315_276_800,
        2048,
        biases=False,
    ),
    _nanochat(20, 560_988_160),
    _nanochat(26, 1_081_999_360),
    _nanochat(30, 1_578_762_240),
    _nanochat(32, 1_879_048_192),
    _nanochat_2026(12, 286_261_730),
    _nanochat_2026(24, 1_384_122_122),
    Published("smollm3-3b", "smollm3", (36, 2048, 16, 4, 11008, 128256), True, 3_075_098_624),
)
