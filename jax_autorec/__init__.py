"""AutoML for deep recommender systems in JAX and Flax."""
