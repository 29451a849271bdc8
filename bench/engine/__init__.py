"""Who runs the jobs. The only package whose files import ray: Ray Tune trains, Ray Data generates and scores."""
