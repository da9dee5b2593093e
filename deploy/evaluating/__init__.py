"""How good a model is on labelled data: figures with their confidence, side by side, and why."""
