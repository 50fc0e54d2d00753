"""What the pool's objects say of models, classes and priorities."""
