"""From a recipe to a trained run: the step, the loop, and what is recorded."""
