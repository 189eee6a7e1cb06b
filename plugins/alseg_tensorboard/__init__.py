"""A run's metrics, figures and queries in TensorBoard."""
