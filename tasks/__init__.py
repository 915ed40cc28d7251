"""The application: what this deployment's workers run."""
