"""Fine-tuning a target model: one resumable training loop, and one file per fine-tuning method."""
