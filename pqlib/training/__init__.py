"""Fine-tuning of whole networks with compressed weights: training with a learned step, and gradual pruning by magnitude."""
