"""The shape of a model: what its config.json says of its size."""

from __future__ import annotations

from pydantic import Field

from muster.spec.validation import Frozen


class Shape(Frozen):
    """What the model's config.json says of its size; `plan.gpu_memory` turns it into bytes.

    Dense models leave the expert counts at 0; models without MLA leave `kv_lora_rank` at 0 and give
    `num_key_value_heads` and `head_dim`.
    """

    num_hidden_layers: int = Field(gt=0)
    first_k_dense_replace: int = 0
    hidden_size: int = Field(gt=0)
    intermediate_size: int = Field(gt=0)
    moe_intermediate_size: int = 0
    n_routed_experts: int = 0
    n_shared_experts: int = 0
    num_attention_heads: int = Field(gt=0)
    num_key_value_heads: int = 0
    head_dim: int = 0
    q_lora_rank: int = 0
    kv_lora_rank: int = 0
    qk_nope_head_dim: int = 0
    qk_rope_head_dim: int = 0
    v_head_dim: int = 0
    index_head_dim: int = 0
    """Of sparse MLA: size of the key that its indexer keeps of every token."""
    index_layers: int = Field(default=0, ge=0)
    """Layers with an indexer of their own, where others take its choice; 0 where all have one."""
    window_layers: int = Field(default=0, ge=0)
    """Layers that keep a window of tokens (sliding or chunked attention), `window` of them."""
    window: int = Field(default=0, ge=0)
    state_layers: int = Field(default=0, ge=0)
    """Layers that keep a state of each request (linear attention), of `state_bytes` over all TP ranks."""
    state_bytes: int = Field(default=0, ge=0)
    vocab_size: int = Field(gt=0)
    expert_bits: float = Field(default=16, ge=0, le=64)
    """Bits a parameter of a routed expert takes, scales included (FP8 with 128x128 block scales: 8.002)."""
    linear_bits: float = Field(default=16, ge=0, le=64)
    """Bits a parameter of every other quantised linear layer takes."""
    other_bits: float = Field(default=16, ge=0, le=64)
    """Bits a parameter of embeddings, output head and router takes."""
    weight_block: int = Field(default=0, ge=0)
    """Side of the square blocks that quantised weights have one scale for; 0 where there are none."""
    weight_bytes: int = Field(default=0, ge=0)
    """Of all weights on disk, which the sizes are scaled to; 0 where only the sizes are known."""

    @property
    def kv_heads(self) -> int:
        """Number of KV heads without MLA: as many as attention heads where the model does not say."""
        return self.num_key_value_heads or self.num_attention_heads
