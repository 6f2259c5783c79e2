"""The life of a TrainingJob: pure functions from what is seen to what is to be done."""
