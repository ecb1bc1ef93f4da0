"""Fine-tuning of whole networks: quantization with a learned scale, and gradual pruning."""
