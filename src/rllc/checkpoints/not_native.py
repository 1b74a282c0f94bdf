"""Models of transformers that are known and cannot become ours, and what stands in the way."""

REASONS = {
    "bloom": "its positions are ALiBi and it has a norm behind the embedding",
    "codegen": "its rotary positions turn adjacent pairs, and ours halves",
    "falcon": "attention and MLP of its layers share norms, or its positions are ALiBi",
    "gemma3": "it reads images too; its text half alone, model.model.language_model, can be converted",
    "gpt_neo": "no conversion is written for its layout, and its layers see windows by turns",
    "gptj": "its rotary positions turn adjacent pairs, and ours halves",
    "mixtral": "its MLPs are mixtures of experts",
    "olmoe": "its MLPs are mixtures of experts",
    "phi": "attention and MLP of its layers share a norm",
    "qwen2_moe": "its MLPs are mixtures of experts",
    "qwen3_moe": "its MLPs are mixtures of experts",
}
