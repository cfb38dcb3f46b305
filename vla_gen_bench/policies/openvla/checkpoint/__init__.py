"""Checkpoints of OpenVLA: configuration, tensors, tokenizer, adapters; read strictly, written as Hugging Face does."""
