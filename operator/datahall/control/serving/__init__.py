"""The life of an InferenceService: pure functions from what is seen to what is to be done."""
