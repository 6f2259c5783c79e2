"""What a task makes of the model's raw output: numpy and plain Python, no torch, no HTTP."""
