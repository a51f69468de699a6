"""Videos: which frames are sampled, how they are decoded, how they become a model's inputs."""
