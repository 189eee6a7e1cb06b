"""What must be fast: decoding, augmentation, training, acquisition, evaluation."""
