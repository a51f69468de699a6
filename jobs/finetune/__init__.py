"""Fine-tuning: labelled examples in, a checkpoint out. Others use `job.finetune`."""
